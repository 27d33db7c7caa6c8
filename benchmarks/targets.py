"""Every figure that the project holds itself to, and whether a run reached it.

A benchmark names its target by key; what `judge` is told is printed at once, in the summary of the
run, and in the report. A target that a run did not measure is listed as such. A missed one fails
nothing: the machine may be shared.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.record import RUN, Outcome


class Target(NamedTuple):
    """`limit` is the most that is allowed, or the least if `at_least`. `full`: measured only by
    `make bench-full`."""

    what: str
    limit: float
    unit: str = "times"
    at_least: bool = False
    full: bool = False

    @property
    def asked(self) -> str:
        """`at most 1.4 times`, for people."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:,g} {self.unit}"

    def verdict(self, value: float) -> str:
        reached = value >= self.limit if self.at_least else value <= self.limit
        return "reached" if reached else "MISSED"


_HAND = "beside the same work written by hand"
TARGETS = {
    # --- the stores beside hand-written code, 20,000 records in random order ---
    "sqlite.create": Target(f"create in a transaction, SQLite, {_HAND}", 1.4),
    "sqlite.set_state": Target(f"set_state in a transaction, SQLite, {_HAND}", 1.4),
    "sqlite.durable": Target(f"set_state, durable, one a transaction, SQLite, {_HAND}", 1.25),
    "sqlite.get": Target(f"get, SQLite, {_HAND}", 1.6),
    "sqlite.find": Target(f"find of 1,000 by state, SQLite, {_HAND}", 1.5),
    "lmdb.create": Target(f"create in a transaction, LMDB, {_HAND}", 1.6),
    "lmdb.set_state": Target(f"set_state in a transaction, LMDB, {_HAND}", 1.6),
    "lmdb.durable": Target(f"set_state, durable, one a transaction, LMDB, {_HAND}", 1.25),
    "lmdb.get": Target(f"get, LMDB, {_HAND}", 2.0),
    "lmdb.find": Target(f"find of 1,000 by state, LMDB, {_HAND}", 1.5),
    "sqlite.open.memory": Target("memory of opening a SQLite store over bare Python", 16, "MB"),
    # --- pybolt beside Go's bbolt ---
    "bolt.get": Target("random get of 100,000 keys, pybolt beside bbolt", 3.0),
    "bolt.scan": Target("cold scan, pybolt, a record", 0.8, "us"),
    "bolt.put.random": Target("100,000 random puts in one transaction, pybolt beside bbolt", 1.0),
    "bolt.put.sequential": Target("100,000 sequential puts, pybolt beside bbolt", 2.0),
    "bolt.put.durable": Target("durable single put, pybolt beside bbolt", 1.2),
    "pybolt.open": Target("opening a bolt file of 1 GiB, and one get", 50, "ms"),
    "bolt.sparse": Target("sparse update of a bolt file, 100 times as large beside small", 1.5),
    "bolt.scan.memory": Target(
        "memory gained in a scan of 1M bolt records, with a cache of 4 MB", 5, "MB"
    ),
    # --- TinyDB and key-value stores ---
    "tinydb.faster": Target(
        "one durable change at 10,000 documents, TinyDB's time beside ours", 100, at_least=True
    ),
    "tinydb.bytes": Target(
        "one durable change at 10,000 documents, TinyDB's bytes beside ours", 500, at_least=True
    ),
    "tinydb.storage.insert": Target("insert by AtomicJSONStorage beside JSONStorage", 1.5),
    "tinydb.storage.read": Target("read by AtomicJSONStorage beside JSONStorage", 1.2),
    "tinydb.storage.block": Target("a block of AtomicAIOJSONStorage beside AIOJSONStorage", 1.5),
    "tinydb.storage.lag": Target(
        "how long AtomicAIOJSONStorage holds up the event loop at 5,000 documents", 20, "ms"
    ),
    "kv.get.by hand": Target("key-value get on SQLite beside a dict on sqlite3 by hand", 1.5),
    "kv.get.diskcache": Target("key-value get on SQLite beside diskcache", 1.0),
    "kv.get.sqlitedict": Target("key-value get on SQLite beside sqlitedict", 1.0),
    "kv.set.by hand": Target("durable key-value set on SQLite beside a dict by hand", 1.25),
    "kv.set.diskcache": Target("durable key-value set on SQLite beside diskcache", 1.25),
    "kv.set.sqlitedict": Target("durable key-value set on SQLite beside sqlitedict", 1.25),
    # --- restarts and space ---
    **{
        key: target
        for backend in ("sqlite", "lmdb", "bolt")
        for key, target in {
            f"{backend}.recount": Target(f"recount, {backend}, beside the engine's own count", 1.3),
            f"{backend}.recount.deep": Target(f"deep recount, {backend}, beside a bare scan", 4.0),
            f"{backend}.recount.memory": Target(f"memory of a recount, {backend}", 40, "MB"),
            f"{backend}.recount.deep.memory": Target(
                f"memory of a deep recount, {backend}", 40, "MB"
            ),
            f"{backend}.open": Target(
                f"opening a closed store, {backend}, over the engine's own opening", 20, "ms"
            ),
        }.items()
    },
    **{
        f"{backend}.growth": Target(
            f"operations on {backend} that grow faster with the records than they may", 0, "of 8"
        )
        for backend in ("sqlite", "lmdb", "bolt", "tinydb", "memory")
    },
    # --- moving data ---
    "migrate.ratio": Target(f"migrating SQLite to LMDB, {_HAND}", 2.0),
    "migrate.rate": Target(
        "migrating SQLite to LMDB, entries a second", 40_000, "a second", at_least=True
    ),
    **{
        f"migrate.memory.{backend}": Target(
            f"memory of migrating 1M entries beside 100,000, SQLite to {backend}", 1.2, full=True
        )
        for backend in ("lmdb", "bolt", "sqlite")
    },
    # --- PostgreSQL beside hand-written psycopg ---
    "postgresql.set_state": Target(f"set_state, PostgreSQL, {_HAND}", 1.3),
    "postgresql.create": Target(f"create, PostgreSQL, {_HAND}", 1.6),
    "postgresql.get": Target(f"get, PostgreSQL, {_HAND}", 2.0),
    "postgresql.find": Target(f"find of 100 by state, PostgreSQL, {_HAND}", 2.5),
    # --- many callers ---
    "callers.64": Target(
        "64 asyncio callers on SQLite beside sqlite3 by hand that commits every 64 changes",
        0.75,
        at_least=True,
    ),
    "callers.1": Target(
        "64 asyncio callers on SQLite beside sqlite3 by hand, a commit each, sync of 1 ms",
        10,
        at_least=True,
    ),
    "callers.apscheduler.1": Target(
        "64 asyncio callers on SQLite beside APScheduler's update_job, sync of 1 ms",
        50,
        at_least=True,
    ),
    "callers.apscheduler.10": Target(
        "64 asyncio callers on SQLite beside APScheduler's update_job, sync of 10 ms",
        50,
        at_least=True,
    ),
    "callers.lmdb": Target(
        "64 asyncio callers on LMDB beside one commit each, sync of 1 ms", 10, at_least=True
    ),
    "callers.bolt": Target(
        "64 asyncio callers on bolt beside one commit each, sync of 1 ms", 10, at_least=True
    ),
    "callers.lone": Target("a lone asyncio caller over an executor's round trip", 50, "us"),
    "callers.idle": Target("a process with an open store and a watcher, of a core", 0.5, "%"),
}


def judge(key: str, value: float) -> Outcome:
    """Note what a target came to, and print it. KeyError for a target that there is none of."""
    target = TARGETS[key]
    outcome = Outcome(key, target.what, target.asked, value, target.unit, target.verdict(value))
    RUN.targets.append(outcome)
    print(f"\n{target.what}: {value:,.2f} {target.unit}, {target.asked}: {outcome.verdict}")
    return outcome


def outcomes(*, full: bool) -> list[Outcome]:
    """Every target in order, measured or not."""
    measured = {outcome.key: outcome for outcome in RUN.targets}
    return [
        measured.get(key)
        or Outcome(key, target.what, target.asked, None, target.unit, _unmeasured(target, full))
        for key, target in TARGETS.items()
    ]


def _unmeasured(target: Target, full: bool) -> str:
    return "by make bench-full" if target.full and not full else "not measured"
