"""Small records to draw."""

from __future__ import annotations

from typing import Any

from benchmarks.record import Cost, Figure, Growth, Outcome, Record


def figure(contender: str, median: float, **changed: Any) -> Figure:
    """A peer on SQLite that creates in a batch, unless it is said otherwise."""
    given: dict[str, Any] = {
        "workload": "create",
        "mode": "in a batch",
        "contender": contender,
        "engine": "sqlite",
        "ours": contender.startswith("storebridge"),
        "promise": "same",
        "records": 4000,
        "rounds": 5,
        "median": median,
        "low": median * 0.9,
        "high": median * 1.1,
    }
    return Figure(**(given | changed))


def change(contender: str, median: float, mode: str, **changed: Any) -> Figure:
    """A durable change of state."""
    return figure(contender, median, workload="set_state", mode=mode, **changed)


def full() -> Record:
    """Something in every part."""
    return Record(
        machine={"date": "2026-11-29", "processor": "two cores", "system": "Linux, x86_64"},
        figures=[
            figure("storebridge sqlite", 30e-6),
            figure("sqlite3 by hand", 20e-6),
            figure("APScheduler", 900e-6, promise="no history"),
            figure("storebridge lmdb", 25e-6, engine="lmdb"),
            change("storebridge sqlite", 400e-6, "one a transaction"),
            change("storebridge sqlite", 50e-6, "64 callers"),
            change("sqlite3 by hand", 320e-6, "one a transaction"),
            change("storebridge memory", 9e-6, "one a transaction", engine="memory"),
            figure("storebridge sqlite", 8e-6, workload="get", mode="reading"),
        ],
        costs=[
            Cost(
                "storebridge sqlite",
                "sqlite",
                True,
                "same",
                change_bytes=1300.0,
                change_block_bytes=21e3,
                change_syncs=1.0,
                record_bytes=1600.0,
                memory_bytes=14e6,
            ),
            Cost("TinyDB", "tinydb", False, "no history", change_bytes=8e6, change_syncs=1.0),
        ],
        growth=[
            Growth("get", "storebridge sqlite", "flat", [(1000, 8e-6), (10_000, 9e-6)], "reached"),
            Growth("get", "storebridge bolt", "flat", [(1000, 8e-6), (10_000, 8e-5)], "MISSED"),
        ],
        targets=[
            Outcome("a", "get beside by hand", "at most 1.6 times", 1.2, "times", "reached"),
            Outcome("b", "rate", "at least 40,000 a second", 20_000.0, "a second", "MISSED"),
            Outcome("c", "idle", "at most 0.5 %", None, "%", "by make bench-full"),
        ],
    )
