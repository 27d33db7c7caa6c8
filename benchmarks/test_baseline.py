"""Each operation beside the same work written by hand on sqlite3 and on py-lmdb: same records,
indexes, event rows, counters and durability; 20,000 records in random order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.by_hand import LmdbByHand, SqliteByHand
from benchmarks.contenders.base import PATH, execution
from benchmarks.race import race
from storebridge import (
    EXECUTION_STATES,
    Execution,
    ExecutionStore,
    open_execution_store,
)

RECORDS = 20_000


class _ByHand(Protocol):
    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def create(self, execution: Execution) -> None: ...
    def set_state(self, record_id: str, state: str, allowed: frozenset[str]) -> None: ...
    def get(self, record_id: str) -> Execution: ...
    def find(self, state: str, limit: int) -> list[Execution]: ...
    def close(self) -> None: ...


class Pair:
    """Our store and the one by hand, empty, on the same disk."""

    def __init__(self, backend: str, folder: Path, durability: str) -> None:
        folder.mkdir()
        self.backend = backend
        location = f"{backend}://{folder / 'ours'}?durability={durability}"
        self.ours: ExecutionStore = open_execution_store(location)
        self.hand: _ByHand
        if backend == "sqlite":
            synchronous = {"full": "FULL", "off": "OFF"}[durability]
            self.hand = SqliteByHand(folder / "hand.db", synchronous)
        else:
            self.hand = LmdbByHand(folder / "hand", sync=durability == "full")
        self.our_ids: list[str] = []
        self.hand_ids: list[str] = []

    def fill(self, count: int) -> None:
        self.create_ours(count)
        self.create_by_hand(count)

    def create_ours(self, count: int) -> None:
        with self.ours.database.transaction():
            self.our_ids = [self.ours.create(execution(i)).id for i in range(count)]
        random.Random(count).shuffle(self.our_ids)

    def create_by_hand(self, count: int) -> None:
        self.hand.begin()
        made = [execution(i) for i in range(count)]
        for each in made:
            self.hand.create(each)
        self.hand.commit()
        self.hand_ids = [each.id for each in made]
        random.Random(count).shuffle(self.hand_ids)

    def close(self) -> None:
        self.ours.close()
        self.hand.close()


@pytest.fixture(params=["sqlite", "lmdb"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pair(backend: str, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(backend, tmp_path / "pair", "off")
    yield pair
    pair.close()


@pytest.fixture
def durable(backend: str, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(backend, tmp_path / "durable", "full")
    yield pair
    pair.close()


def test_create(benchmark: BenchmarkFixture, pair: Pair) -> None:
    """Creating records in one transaction."""
    race(
        benchmark,
        ours=lambda: pair.create_ours(RECORDS // 2),
        theirs=lambda: pair.create_by_hand(RECORDS // 2),
        operations=RECORDS // 2,
        rounds=5,
        target=f"{pair.backend}.create",
    )


def test_set_state(benchmark: BenchmarkFixture, pair: Pair) -> None:
    """Passing every record into its next state, in random order, in one transaction."""
    pair.fill(RECORDS)
    steps = iter(range(1, len(PATH)))
    state = PATH[0]
    allowed = frozenset(EXECUTION_STATES.transitions)

    def next_step() -> None:
        nonlocal state
        state = PATH[next(steps)]

    def ours() -> None:
        set_state = pair.ours.set_state
        with pair.ours.database.transaction():
            for record_id in pair.our_ids:
                set_state(record_id, state)

    def by_hand() -> None:
        set_state = pair.hand.set_state
        pair.hand.begin()
        for record_id in pair.hand_ids:
            set_state(record_id, state, allowed)
        pair.hand.commit()

    race(
        benchmark,
        ours=ours,
        theirs=by_hand,
        operations=RECORDS,
        rounds=len(PATH) - 1,
        target=f"{pair.backend}.set_state",
        prepare=next_step,
    )


def test_durable_set_state(benchmark: BenchmarkFixture, durable: Pair) -> None:
    """One state change per transaction, each on the disk when the call returns."""
    durable.fill(RECORDS)
    allowed = frozenset(EXECUTION_STATES.transitions)
    part = 0

    def next_part() -> None:
        nonlocal part
        part += 100

    def ours() -> None:
        for record_id in durable.our_ids[part : part + 100]:
            durable.ours.set_state(record_id, "Running")

    def by_hand() -> None:
        for record_id in durable.hand_ids[part : part + 100]:
            durable.hand.begin()
            durable.hand.set_state(record_id, "Running", allowed)
            durable.hand.commit()

    race(
        benchmark,
        ours=ours,
        theirs=by_hand,
        operations=100,
        rounds=11,
        target=f"{durable.backend}.durable",
        prepare=next_part,
    )


def test_get(benchmark: BenchmarkFixture, pair: Pair) -> None:
    """Reading records by id in random order."""
    pair.fill(RECORDS)

    def ours() -> None:
        get = pair.ours.get
        for record_id in pair.our_ids:
            get(record_id)

    def by_hand() -> None:
        get = pair.hand.get
        for record_id in pair.hand_ids:
            get(record_id)

    race(
        benchmark,
        ours=ours,
        theirs=by_hand,
        operations=RECORDS,
        rounds=7,
        target=f"{pair.backend}.get",
    )


def test_find(benchmark: BenchmarkFixture, pair: Pair) -> None:
    """The first 1,000 records of a state, by time of creation."""
    pair.fill(RECORDS)
    race(
        benchmark,
        ours=lambda: pair.ours.find(state="Created", limit=1000),
        theirs=lambda: pair.hand.find("Created", 1000),
        operations=1000,
        rounds=31,
        target=f"{pair.backend}.find",
    )
