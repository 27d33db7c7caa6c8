"""What the operations cost on a backend. As a program it does them all, and either counts and
prints the counts, or marks its sections for whoever traces it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from tests.budgets.counting import Counting
from tests.budgets.operations import OPERATIONS, TIMES, Counted, Opening, Operation
from tests.disk_traffic import INSTALLED, mark, traffic_of

Cost = dict[str, float]
"""What one of an operation costs, by kind of count."""
Costs = dict[str, Cost]
"""By operation."""
_IN_MEMORY = "/dev/shm"
ROOT = Path(__file__).parents[2]


def costs_of(backend: str) -> Costs:
    """What each operation costs; without `strace`, not what it hands to the disk."""
    # Sets are in the same order every time.
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    # What is counted is the same on a disk, which has better things to do.
    memory = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    with TemporaryDirectory(dir=memory) as folder:
        program = [sys.executable, "-m", "tests.budgets.measure", backend, folder]
        done = subprocess.run(
            [*program, "count"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
        )
        costs = msgspec.json.decode(done.stdout, type=Costs)
        if INSTALLED and backend != "memory":
            traffic = traffic_of([*program, "mark"], Path(folder), cwd=ROOT, env=environment)
            for name, found in traffic.items():
                costs[name] |= _of_one({"bytes": found.bytes, "syncs": found.syncs})
    return costs


def count(operations: Sequence[Operation | Opening], backend: str, folder: Path) -> Costs:
    """What each operation costs but for what it hands to the disk, counted in this process."""
    costs = {}
    for operation in operations:
        counting = Counting()
        with TemporaryDirectory(dir=folder) as own, counting.watching_sqlite():
            operation.run(backend, Path(own), counting)
        costs[operation.name] = _of_one(counting.counts)
    return costs


def _mark_all(backend: str, folder: Path) -> None:
    for operation in OPERATIONS:
        with TemporaryDirectory(dir=folder) as own:
            operation.run(backend, Path(own), _marked(operation.name))


def _marked(name: str) -> Counted:
    @contextmanager
    def marked() -> Iterator[None]:
        mark(name)
        try:
            yield
        finally:
            mark("")

    return marked


def _of_one(counts: Mapping[str, int]) -> Cost:
    return {kind: round(counts[kind] / TIMES, 1) for kind in sorted(counts)}


def main() -> None:
    backend, folder, what = sys.argv[1:]
    if what == "count":
        counted = count(OPERATIONS, backend, Path(folder))
        sys.stdout.buffer.write(msgspec.json.encode(counted))
    else:
        _mark_all(backend, Path(folder))


if __name__ == "__main__":
    main()
