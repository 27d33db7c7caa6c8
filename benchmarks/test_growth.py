"""How the time of one operation grows with the records there are: 1,000, 10,000 and 100,000, and a
million by `make bench-full`. Nothing is synced, so that the disk's moods do not hide a growth."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from math import log
from pathlib import Path
from time import perf_counter

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.contenders.base import execution
from benchmarks.record import FULL, RUN, Growth
from benchmarks.targets import judge
from storebridge import ExecutionStore, open_execution_store

SIZES = (1_000, 10_000, 100_000, 1_000_000) if FULL else (1_000, 10_000, 100_000)
MOST = {"tinydb": 100_000 if FULL else 10_000, "memory": 100_000}
"""What a process keeps whole in its memory is not asked for more."""
BACKENDS = ("sqlite", "lmdb", "bolt", "tinydb", "memory")
OPERATIONS, ROUNDS = 200, 5
STEEPEST = {"flat": 0.1, "logarithmic": 0.3, "linear": 1.15}
"""The exponent that a shape may come to: operations that take 10 ** 0.3 times as long, which is
twice, for ten times as many records grow as the depth of their trees and the misses of their
caches do."""


class Sized:
    """A store of so many executions."""

    def __init__(self, backend: str, path: Path, size: int) -> None:
        where = f"{path.name}-{path.parent.name}" if backend == "memory" else f"//{path}"
        self.location = f"{backend}:{where}?durability=off"
        self.size = size
        self.store: ExecutionStore = open_execution_store(self.location)
        self.ids: list[str] = []
        for first in range(0, size, 1000):
            with self.store.database.transaction():
                self.ids += [
                    self.store.create(execution(number)).id for number in range(first, first + 1000)
                ]
        random.Random(size).shuffle(self.ids)
        self._turn = 0

    def some_ids(self) -> list[str]:
        """Ids at random, others each time as far as there are more."""
        first = self._turn * OPERATIONS % self.size
        self._turn += 1
        return self.ids[first : first + OPERATIONS]

    def create(self) -> int:
        with self.store.database.transaction():
            for number in range(OPERATIONS):
                self.store.create(execution(number))
        return OPERATIONS

    def get(self) -> int:
        for each in self.some_ids():
            self.store.get(each)
        return OPERATIONS

    def update(self) -> int:
        ids = self.some_ids()
        with self.store.database.transaction():
            for each in ids:
                self.store.update(each, message=f"looked at {self._turn} times")
        return OPERATIONS

    def find(self) -> int:
        for number in range(10):
            self.store.find(node_id=f"node-{number}", limit=50)
        return 10

    def history(self) -> int:
        for each in self.some_ids():
            self.store.history(each)
        return OPERATIONS

    def counts(self) -> int:
        for _ in range(OPERATIONS):
            self.store.counts()
        return OPERATIONS

    def recount(self) -> int:
        self.store.recount()
        return 1

    def reopen(self) -> int:
        self.store.close()
        self.store = open_execution_store(self.location)
        self.store.find(limit=1)
        return 1


Operation = Callable[[Sized], int]
SHAPES: dict[str, tuple[str, Operation]] = {
    "create, in a batch": ("logarithmic", Sized.create),
    "get": ("logarithmic", Sized.get),
    "update, in a batch": ("logarithmic", Sized.update),
    "find of 50 by node": ("logarithmic", Sized.find),
    "history": ("logarithmic", Sized.history),
    "counts": ("flat", Sized.counts),
    "recount": ("linear", Sized.recount),
    "open": ("flat", Sized.reopen),
}
LINEAR_OPENING = ("tinydb",)
"""The backends that read their whole file at opening; memory's is gone then."""


@pytest.fixture(scope="module", params=BACKENDS)
def stores(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[Sized]]]:
    backend = str(request.param)
    folder = tmp_path_factory.mktemp("growth")
    sizes = [size for size in SIZES if size <= MOST.get(backend, size)]
    made = [Sized(backend, folder / f"{backend}-{size}", size) for size in sizes]
    yield backend, made
    for each in made:
        each.store.close()
    mine = [each for each in RUN.growth if each.contender == f"storebridge {backend}"]
    judge(f"{backend}.growth", sum(each.verdict == "MISSED" for each in mine))


@pytest.mark.parametrize("name", SHAPES)
def test_growth(benchmark: BenchmarkFixture, stores: tuple[str, list[Sized]], name: str) -> None:
    """Each size has a turn in each round."""
    backend, sized = stores
    shape, operation = SHAPES[name]
    if name == "open" and backend in LINEAR_OPENING:
        shape = "linear"
    if name == "open" and backend == "memory":
        pytest.skip("memory keeps no files")
    times: dict[int, list[float]] = {each.size: [] for each in sized}

    def turn() -> None:
        for each in sized:
            started = perf_counter()
            done = operation(each)
            times[each.size].append((perf_counter() - started) / done)

    turn()
    for each in times.values():
        each.clear()
    benchmark.pedantic(turn, rounds=ROUNDS, iterations=1)  # type: ignore[no-untyped-call]
    # The fastest round: whatever else the machine does only adds to it.
    points = [(size, min(found)) for size, found in times.items()]
    steep = exponent(points)
    verdict = "reached" if steep <= STEEPEST[shape] else "MISSED"
    RUN.growth.append(Growth(name, f"storebridge {backend}", shape, points, verdict))
    print(
        f"\n{name}, {backend}: "
        + ", ".join(f"{size:,} {seconds * 1e6:,.1f} us" for size, seconds in points)
        + f": exponent {steep:.2f}, {shape} is up to {STEEPEST[shape]}: {verdict}"
    )


def exponent(points: list[tuple[int, float]]) -> float:
    """By which power of the records the time grows, from the fewest to the most."""
    (fewest, first), (most, last) = points[0], points[-1]
    return log(last / first) / log(most / fewest)
