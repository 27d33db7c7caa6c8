"""What each contender costs beside time: bytes and syncs for a durable change, bytes on the disk
for a record, memory, and the time to import and to open.

Counts are the same however busy the machine is, so they are made two at a time. Times are medians
of several processes each, the contenders in turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from benchmarks.changes import CONTENDERS, RECORDS, SECTION, Result, filled, kind_of
from benchmarks.contenders.base import Contender
from benchmarks.contenders.bbolt import ORACLE, Bbolt
from benchmarks.contenders.ours import OurMemory, OurSqlite, OurTinydb
from benchmarks.record import FULL, RUN, Cost
from benchmarks.targets import judge
from tests.disk_traffic import BLOCK, INSTALLED, Traffic, traffic_of
from tests.postgres_server import binaries

ROOT = Path(__file__).parents[1]
ROUNDS = 15 if FULL else 5
_IN_MEMORY = "/dev/shm"
_HEAD = (
    *("contender", "bytes", "blocks", "syncs", "changes/GB", "bytes/record"),
    *("import", "open", "memory", "own", "promise"),
)
_ROW = "{:24} {:>11} {:>10} {:>6} {:>11} {:>12} {:>8} {:>8} {:>8} {:>7}  {}"


class Written(NamedTuple):
    """What changes cost; no traffic without `strace`."""

    result: Result
    traffic: Traffic | None


class Opened(NamedTuple):
    """What importing and opening cost: seconds and bytes."""

    import_seconds: float
    open_seconds: float
    own_bytes: float
    resident_bytes: float


def contenders() -> dict[str, type[Contender]]:
    """All whose server or program is there."""
    found: dict[str, type[Contender]] = {name: kind_of(name) for name in CONTENDERS}
    if not ORACLE.exists():
        print("bbolt is left out: `make oracle` builds it")
        found = {name: kind for name, kind in found.items() if kind is not Bbolt}
    try:
        binaries()
    except FileNotFoundError:
        print("PostgreSQL is left out: it is not installed")
        found = {name: kind for name, kind in found.items() if kind.engine != "sqlalchemy"}
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where nothing waits for a disk, if there is such a place: calls are counted, not timed."""
    with TemporaryDirectory(dir=_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None) as made:
        os.chmod(made, 0o711)  # PostgreSQL's user has a folder in it
        yield Path(made)


def written(name: str, folder: Path) -> Written:
    """Let a contender fill its folder and make its changes."""
    folder.mkdir(mode=0o711)
    result = folder.with_name(f"{folder.name}.result")
    command = [sys.executable, "-m", "benchmarks.changes", name, str(folder), str(result)]
    environment = os.environ | {"TMPDIR": str(folder)}  # a server's files, too, are in it
    if INSTALLED:
        traffic = traffic_of(command, folder, cwd=ROOT, env=environment)[SECTION]
    else:
        traffic = None
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    changes, record_bytes = result.read_text().split()
    return Written(Result(int(changes), float(record_bytes)), traffic)


def place_of(kind: type[Contender], folder: Path, servers: dict[str, str]) -> str:
    """What `benchmarks.openers` opens."""
    if kind.engine == "sqlalchemy":
        url = servers[kind.name]
        return f"{url}?schema=workloads" if kind.ours else url.replace("+psycopg", "")
    if kind.ours:
        suffix = OurTinydb.suffix if kind is OurTinydb else ""
        return f"{kind.engine}://{folder}/store/store{suffix}"
    return f"{folder}/store"


def opened(name: str, place: str) -> Opened:
    """Open what a contender has filled, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.openers", name, place]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return Opened(*map(float, done.stdout.split()))


@contextmanager
def serving(kinds: Iterable[type[Contender]], folder: Path) -> Iterator[dict[str, str]]:
    """Servers with their contenders' records: the addresses, by the contenders' names."""
    with ExitStack() as stack:
        urls = {}
        for kind in kinds:
            if kind.engine == "sqlalchemy":
                own = folder / kind.name
                own.mkdir()
                urls[kind.name] = stack.enter_context(filled(kind, own))[1] or ""
        yield urls


def write_all(kinds: Iterable[str], folders: Iterable[Path]) -> dict[str, Written]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(kinds, pool.map(written, kinds, folders), strict=True))


def open_all(places: Mapping[str, str]) -> dict[str, Opened]:
    """The medians of some rounds, in each of which everybody has a turn."""
    rounds: dict[str, list[Opened]] = {name: [] for name in places}
    for _ in range(ROUNDS):
        for name, place in places.items():
            rounds[name].append(opened(name, place))
    return {
        name: Opened(*(median(values) for values in zip(*each, strict=True)))
        for name, each in rounds.items()
    }


def test_cost(folder: Path) -> None:
    """Print a table of it all, and judge the memory of opening."""
    kinds = contenders()
    folders = {name: folder / str(number) for number, name in enumerate(kinds)}
    writes = write_all(kinds, folders.values())
    with serving(kinds.values(), folder) as servers:
        places = {name: place_of(kind, folders[name], servers) for name, kind in kinds.items()}
        places[OurMemory.name] = "memory:cost"
        places.pop(Bbolt.name, None)  # in Go there is nothing to import
        opens = open_all(places)
    everybody: tuple[type[Contender], ...] = (*kinds.values(), OurMemory)
    costs = [cost_of(kind, writes.get(kind.name), opens.get(kind.name)) for kind in everybody]
    RUN.costs += costs
    print(f"\n\ncost of a durable change of state, of {RECORDS:,} records, and of opening them")
    print(_ROW.format(*_HEAD))
    for cost in costs:
        print(_ROW.format(*_cells(cost)))
    judge("sqlite.open.memory", opens[OurSqlite.name].resident_bytes / 2**20)


def cost_of(kind: type[Contender], wrote: Written | None, opened: Opened | None) -> Cost:
    traffic = None if wrote is None else wrote.traffic
    changes = 1 if wrote is None else wrote.result.changes
    return Cost(
        contender=kind.name,
        engine=kind.engine,
        ours=kind.ours,
        promise=kind.promise,
        change_bytes=None if traffic is None else traffic.bytes / changes,
        change_block_bytes=None if traffic is None else traffic.blocks * BLOCK / changes,
        change_syncs=None if traffic is None else traffic.syncs / changes,
        record_bytes=None if wrote is None else wrote.result.record_bytes,
        import_seconds=None if opened is None else opened.import_seconds,
        open_seconds=None if opened is None else opened.open_seconds,
        memory_bytes=None if opened is None else opened.resident_bytes,
        own_memory_bytes=None if opened is None else opened.own_bytes,
    )


def _cells(cost: Cost) -> tuple[str, ...]:
    blocks = cost.change_block_bytes
    return (
        cost.contender,
        _number(cost.change_bytes),
        _number(blocks),
        _number(cost.change_syncs, "{:.2f}"),
        _number(1e9 / blocks if blocks else None),
        _number(cost.record_bytes),
        _number(cost.import_seconds, "{:.0f} ms", 1e3),
        _number(cost.open_seconds, "{:.1f} ms", 1e3),
        _number(cost.memory_bytes, "{:.1f} MB", 1 / 2**20),
        _number(cost.own_memory_bytes, "{:.1f}", 1 / 2**20),
        cost.promise,
    )


def _number(value: float | None, form: str = "{:,.0f}", times: float = 1.0) -> str:
    return "-" if value is None else form.format(value * times)
