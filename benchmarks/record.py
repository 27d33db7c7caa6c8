"""What a run measured: the record that its summary, its report and the README are drawn from.

Times are seconds for one operation, sizes are bytes.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

LATEST = Path(__file__).parents[1] / ".benchmarks" / "latest.json"
"""Where a run leaves its record."""
FULL = bool(os.environ.get("STOREBRIDGE_BENCH_FULL"))
"""Whether a million records are asked for."""


class Figure(msgspec.Struct, frozen=True):
    """One workload done by one contender: ours on a backend, or a peer on the same engine."""

    workload: str
    """`create`, `get`, `set_state`, `find`, `history`, `scan`, `recount`, `open`, `compact`,
    `kv get`, `kv set`."""
    mode: str
    """`one a transaction`, `in a batch`, `64 callers`, or `reading`."""
    contender: str
    """As `storebridge sqlite`, `sqlite3 by hand`, `APScheduler`."""
    engine: str
    """The backend that it is to be compared with."""
    ours: bool
    promise: str
    """`same`, or what the contender does not keep: as `no history, no index by state`."""
    records: int
    rounds: int
    median: float
    low: float
    """The first quartile of the rounds."""
    high: float
    """The third."""


class Cost(msgspec.Struct, frozen=True):
    """What a contender costs beside time. None: not measured, or there is no such thing."""

    contender: str
    engine: str
    ours: bool
    promise: str
    change_bytes: float | None = None
    """Handed to the system to write, for one durable change."""
    change_block_bytes: float | None = None
    """The same in whole blocks of 4 KiB, each once from sync to sync, as a disk takes it."""
    change_syncs: float | None = None
    """Calls that wait for the disk, for one durable change."""
    record_bytes: float | None = None
    """In files, for one record with its indexes and history."""
    import_seconds: float | None = None
    open_seconds: float | None = None
    memory_bytes: float | None = None
    """Resident in a process that has imported and opened, over bare Python."""
    own_memory_bytes: float | None = None
    """Of these, what no other process shares and the system cannot drop and read again."""


class Growth(msgspec.Struct, frozen=True):
    """How the time of one operation grows with the records there are."""

    workload: str
    contender: str
    shape: str
    """What it may be: `flat`, `logarithmic` or `linear`."""
    points: list[tuple[int, float]]
    """Records, and seconds for one operation."""
    verdict: str
    """`reached`, or `MISSED`: it grows faster than its shape."""


class Outcome(msgspec.Struct, frozen=True):
    """What a target came to; see `benchmarks.targets`."""

    key: str
    what: str
    asked: str
    value: float | None
    unit: str
    verdict: str
    """`reached`, `MISSED`, or why it was not measured."""


class Record(msgspec.Struct):
    """Everything that one run measured."""

    machine: dict[str, str] = {}
    """Date, processor, versions: for people, in the order to show them."""
    figures: list[Figure] = []
    costs: list[Cost] = []
    growth: list[Growth] = []
    targets: list[Outcome] = []


RUN = Record()
"""The run of this process."""


def read(path: Path) -> Record:
    """A record that an earlier run left."""
    return msgspec.json.decode(path.read_bytes(), type=Record)


def write(record: Record, path: Path) -> None:
    """Leave a record for the report, and for whoever commits it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
