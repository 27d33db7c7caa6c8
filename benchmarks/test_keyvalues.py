"""Key-value stores beside a dict on sqlite3 written by hand, diskcache and sqlitedict: the same
settings, each durable when the call returns (a write-ahead log, `synchronous` FULL)."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from diskcache import Cache
from pytest_benchmark.fixture import BenchmarkFixture
from sqlitedict import SqliteDict

from benchmarks.contenders.base import setting
from benchmarks.race import race
from storebridge import KeyValueStore, open_database

KEYS = [f"setting-{number:05}" for number in range(5000)]
SETS = 10
Peer = MutableMapping[str, Any]


class ByHand(dict[str, Any]):
    """A table of keys and JSON, and the two statements."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute("create table kv (key text primary key, value text) without rowid")

    def __getitem__(self, key: str) -> Any:
        row = self._connection.execute("select value from kv where key = ?", (key,)).fetchone()
        return json.loads(row[0])

    def __setitem__(self, key: str, value: Any) -> None:
        self._connection.execute("replace into kv values (?, ?)", (key, json.dumps(value)))

    def pragma(self, name: str) -> Any:
        return self._connection.execute(f"pragma {name}").fetchone()[0]

    def close(self) -> None:
        self._connection.close()


def by_hand(folder: Path) -> tuple[Any, Callable[[str], Any]]:
    made = ByHand(folder / "hand.db")
    return made, made.pragma


def diskcache(folder: Path) -> tuple[Any, Callable[[str], Any]]:
    made = Cache(str(folder / "diskcache"), eviction_policy="none", sqlite_synchronous=2)
    return made, lambda name: made._sql(f"pragma {name}").fetchone()[0]


def sqlitedict(folder: Path) -> tuple[Any, Callable[[str], Any]]:
    made = SqliteDict(str(folder / "sqlitedict.db"), autocommit=True, journal_mode="WAL")
    # It is OFF else.
    made.conn.execute("pragma synchronous = full")
    return made, lambda name: made.conn.select_one(f"pragma {name}")[0]


PEERS = {"by hand": by_hand, "diskcache": diskcache, "sqlitedict": sqlitedict}


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[KeyValueStore]:
    with open_database(f"sqlite://{tmp_path}/ours.db?durability=full") as database:
        yield KeyValueStore(database, "settings")


@pytest.fixture(params=PEERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def theirs(name: str, tmp_path: Path) -> Iterator[Peer]:
    peer, pragma = PEERS[name](tmp_path)
    print(f"\n{name}: journal {pragma('journal_mode')}, synchronous {pragma('synchronous')}")
    yield peer
    peer.close()


def shuffled(count: int) -> list[str]:
    keys = KEYS[:count]
    random.Random(count).shuffle(keys)
    return keys


def test_get(benchmark: BenchmarkFixture, ours: KeyValueStore, theirs: Peer, name: str) -> None:
    """Reading all settings, one by one, in random order."""
    given = {key: setting(number) for number, key in enumerate(KEYS[:1000])}
    ours.update(given)
    for key, each in given.items():
        theirs[key] = each
    assert ours["setting-00007"] == theirs["setting-00007"] == setting(7)
    keys = shuffled(1000)

    def get(store: Any) -> None:
        for key in keys:
            store[key]

    race(
        benchmark,
        ours=lambda: get(ours),
        theirs=lambda: get(theirs),
        operations=len(keys),
        rounds=31,
        target=f"kv.get.{name}",
        than=name,
    )


def test_set(benchmark: BenchmarkFixture, ours: KeyValueStore, theirs: Peer, name: str) -> None:
    """Setting one key after another, each on the disk when the call returns."""
    turn = 0

    def prepare() -> None:
        nonlocal turn
        turn += 1

    def fill(store: Any) -> None:
        for number in range(SETS):
            store[KEYS[number]] = setting(number + turn)

    race(
        benchmark,
        ours=lambda: fill(ours),
        theirs=lambda: fill(theirs),
        operations=SETS,
        rounds=101,
        target=f"kv.set.{name}",
        than=name,
        prepare=prepare,
    )
