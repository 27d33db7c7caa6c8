"""What the demo does with its database at the end: moves it round the engines, and makes a copy of
it smaller."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from storebridge.cli import overview
from storebridge.compaction.retention import Retention
from storebridge.location import Location, parse_location
from storebridge.opening import open_database

ENGINES = ("sqlite", "lmdb", "bolt", "tinydb")


def journey(start: Location, folder: Path) -> list[dict[str, Any]]:
    """Migrate from engine to engine and back to the first: a row for each copy."""
    name = start.backend.name
    first = ENGINES.index(name) if name in ENGINES else -1
    order = [*ENGINES[first + 1 :], *ENGINES[: first + 1]]
    order = [engine for engine in order if overview.describe(engine)["works"]]
    rows = []
    source = start
    for number, engine in enumerate(order, 1):
        target = parse_location(overview.new_location(engine, folder, f"copy-{number}"))
        with open_database(source, read_only=True, create=False) as database:
            report = database.migrate_to(target)
        rows.append(
            {
                "from": source.backend.name,
                "to": engine,
                "location": target.text,
                "entries": report.digest.entries,
                "seconds": round(report.seconds, 3),
                "sha256": report.digest.sha256,
            }
        )
        source = target
    return rows


def compacted(location: str) -> dict[str, Any]:
    """Let everything that was completed go from a copy, give the space back, and look whether all
    that is left agrees."""
    with open_database(location, create=False) as database:
        report = database.compact(
            Retention(states=("Completed",), keep=timedelta(0), events_count=1), above=0.0
        )
        return {
            "location": location,
            "records": sum(pruned.records for pruned in report.pruned.values()),
            "events": sum(pruned.events for pruned in report.pruned.values()),
            "versions": sum(pruned.versions for pruned in report.pruned.values()),
            "bytes_before": report.before,
            "bytes_after": report.after,
            "longest_pause": round(report.longest_pause, 4),
            "skipped": report.skipped,
            "faults": [
                fault.problem for store in database.recount(deep=True) for fault in store.faults
            ],
        }
