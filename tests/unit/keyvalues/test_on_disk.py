"""What a key-value store is for those who look at the file, and what it costs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storebridge import InvalidRecordError, KeyValueStore, open_database
from storebridge.keyreading import key_value_stores
from storebridge.keyspace import id_of

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.time = BEGAN

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[KeyValueStore]:
    with open_database(f"sqlite://{tmp_path}/kv.db?durability=off", clock=clock) as database:
        yield KeyValueStore(database, "calibrations")


def test_read_with_sqlite3(store: KeyValueStore, tmp_path: Path) -> None:
    """Keys and values can be queried with SQL, and edited."""
    store["pump-1"] = {"curve": [1.5, 2], "by": "hand"}
    store["led", "red"] = 0.5
    store.set("token", b"secret", expires_in=60)
    connection = sqlite3.connect(tmp_path / "kv.db")
    shown = connection.execute(
        "select key, value, revision, expires_at from calibrations_entries order by created_at, id"
    ).fetchall()
    assert sorted(row[:3] for row in shown) == [
        ('["led","red"]', 0.5, 1),
        ("pump-1", '{"curve":[1.5,2],"by":"hand"}', 1),
        ("token", '{"$bytes":"c2VjcmV0"}', 1),
    ]
    (expires,) = (row[3] for row in shown if row[0] == "token")
    assert expires == "2026-01-01T00:01:00.000000Z"
    by = "json_set(body, '$.value.by', 'robot')"
    connection.execute(f"update calibrations set body = {by} where id = 'pump-1'")
    connection.commit()
    connection.close()
    assert store["pump-1"] == {"curve": [1.5, 2], "by": "robot"}


@pytest.mark.parametrize(
    ("key", "record_id"),
    [
        ("gpio-17", "gpio-17"), ("a b", "a b"), ("#1", "##1"), (17, "#b17"), (-17, "#Y82"),
        (0, "#a0"), (2**63 - 1, "#s9223372036854775807"), (-(2**63), "#H0776627963145224191"),
        (("led", 17), "#('led#b17#"), ((1, 5, 42), "#(a1#a5#b42#"), (("a b#",), "#('a$20b$23#"),
    ],
)  # fmt: skip
def test_ids(key: Any, record_id: str) -> None:
    """Files hold these ids, and will be read by later versions."""
    assert id_of(key) == record_id


def test_how_long_a_key_may_be() -> None:
    """As an id: 128 bytes, spaces counted thrice."""
    for longest in ("x" * 128, "é" * 64, " " * 42 + "xx", ("x" * 124,), "#" * 127):
        id_of(longest)
    for longer in ("x" * 129, "é" * 64 + "x", " " * 43, ("x" * 125,), "#" * 128):
        with pytest.raises(InvalidRecordError, match="counts"):
            id_of(longer)


def test_purging_reads_only_what_has_expired(
    store: KeyValueStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither purging nor counting reads the entries that stay."""
    store.update((f"stays-{number}", number) for number in range(3000))
    store.update({f"later-{number}": number for number in range(500)}, expires_in=3600)
    store.update({f"soon-{number}": number for number in range(5)}, expires_in=1)
    clock.time += timedelta(seconds=2)
    read: list[bytes] = []

    def counted(read_value: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def reader(body: bytes) -> Any:
            read.append(body)
            return read_value(body)

        return reader

    codec, values = store._records.codec, store._reader
    monkeypatch.setattr(codec, "decode_current", counted(codec.decode_current))
    monkeypatch.setattr(values, "value", counted(values.value))
    assert len(store) == 3500
    assert read == []
    assert store.purge() == 5
    assert len(read) == 5
    store.set("soon", 1, expires_in=1)
    clock.time += timedelta(seconds=2)
    read.clear()
    store.set("new", 1, expires_in=1)
    assert len(read) <= 2


def test_which_stores_there_are(store: KeyValueStore) -> None:
    """Key-value stores are told from others, with their lifetimes, by their tables."""
    KeyValueStore(store.database, "leds", lifetime="boot")
    with store.lock("pin"):
        pass
    assert key_value_stores(store.database) == {"calibrations": "persistent", "leds": "boot"}
