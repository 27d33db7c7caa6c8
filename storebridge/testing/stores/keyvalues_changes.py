"""Key-value stores: changes that are one step, and what is told of them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest

from storebridge import (
    Change,
    Database,
    InvalidQueryError,
    InvalidRecordError,
    Job,
    JobStore,
    KeyNotFoundError,
    KeyValueStore,
    open_database,
)
from storebridge.testing.stores.base import (
    assert_sound,
    contents,
)
from storebridge.testing.stores.keyvalues import KeyValueStoreTests


class KeyValueChangeTests(KeyValueStoreTests):
    """Transactions, atomic changes, events, sections."""

    def test_keys_in_transactions(
        self, database: Database, store: KeyValueStore, jobs: JobStore
    ) -> None:
        """Changes take part in a transaction with those of other stores: all or none; a reader in
        it sees them, and one that is refused leaves the others as they are.
        """
        store["kept"] = 1
        kept = contents(database)
        with pytest.raises(ZeroDivisionError), database.transaction():
            jobs.create(Job(id="j"))
            store["a"] = 1
            store["kept"] = 2
            store.increment("n", 5)
            assert (len(store), store.pop("a"), store["n"]) == (3, 1, 5)
            raise ZeroDivisionError
        assert contents(database) == kept
        with database.transaction():
            store["a"] = 1
            with pytest.raises(InvalidRecordError):
                store.update({"b": 2, "c": {1}})
            with pytest.raises(KeyNotFoundError):
                del store["z"]
            with pytest.raises(InvalidRecordError):
                store.increment("a", "x")  # type: ignore[arg-type]
            store["d"] = 4
        assert store == {"a": 1, "d": 4, "kept": 1}
        assert_sound(database)

    def test_set_if_absent(self, store: KeyValueStore) -> None:
        """It sets a key once, and says who did."""
        assert store.set_if_absent("k", None)
        assert not store.set_if_absent("k", 1)
        assert store["k"] is None
        del store["k"]
        assert store.set_if_absent("k", 2)
        assert store["k"] == 2

    def test_compare_and_set(self, store: KeyValueStore) -> None:
        """It sets a key whose value is the same, types and signs included; members of dicts may be
        in any order.
        """
        assert not store.compare_and_set("k", None, 1)
        values: tuple[tuple[Any, tuple[Any, ...]], ...] = (
            (1, (True, 1.0, "1", 2, None, [1])),
            (True, (1, 1.0, False)),
            (0.0, (-0.0, 0, False)),
            (float("nan"), (None, float("inf"))),
            ((1, 2), ([1, 2], (1, 2.0), (1, 2, 3), (1,))),
            ({"a": 1, "b": [2]}, ({"a": 1}, {"a": True, "b": [2]}, {"a": 1, "b": (2,)})),
            ({1: "x"}, ({True: "x"}, {"1": "x"}, {1: "y"})),
            (b"", ("", None)),
            (datetime(2026, 1, 1, tzinfo=UTC), (datetime(2026, 1, 1),)),
        )
        for value, others in values:
            store["k"] = value
            for other in others:
                assert not store.compare_and_set("k", other, "changed"), (value, other)
            assert store.compare_and_set("k", store["k"], "changed"), value
            assert store["k"] == "changed"
        store["k"] = {"a": 1, "b": 2}
        assert store.compare_and_set("k", {"b": 2, "a": 1}, 3)

    def test_increment(self, store: KeyValueStore) -> None:
        """It adds to a number of any size, 0 if there is none, and only to a number."""
        assert store.increment("n") == 1
        assert store.increment("n", 2**70) == 2**70 + 1
        assert store.increment("n", -(2**70)) == 1
        assert repr(store.increment("n", 0.5)) == repr(store["n"]) == "1.5"
        assert repr(store.increment("f", 0.0)) == "0.0"
        for value in (True, "1", None, [1], b"1"):
            store["n"] = value
            with pytest.raises(InvalidRecordError, match="'n'"):
                store.increment("n")
        store["n"] = 10**400
        for by in (0.5, True, "1", None):
            with pytest.raises(InvalidRecordError):
                store.increment("n", by)  # type: ignore[arg-type]
        assert store["n"] == 10**400

    def test_entries_of_keys(self, store: KeyValueStore) -> None:
        """An entry tells its revision and times; being removed makes a key start anew."""
        store["k"] = b"a"
        store["k"] = b"b"
        entry = store.entry("k")
        assert (entry.key, entry.value, entry.revision, entry.expires_at) == ("k", b"b", 2, None)
        assert entry.created_at < entry.modified_at
        store[1, 2] = {}
        assert [(e.key, e.value) for e in store.entries()] == [((1, 2), {}), ("k", b"b")]
        del store["k"]
        store["k"] = 1
        assert store.entry("k").revision == 1

    def test_changes_of_keys(self, store: KeyValueStore, jobs: JobStore) -> None:
        """Each change is told once and in order, to those who ask for the prefix it has, and the
        history of a key outlives it.
        """
        store["led-1"] = 1
        jobs.create(Job(id="j"))
        store["led-1"] = 2
        store["led", 2] = 1
        store["other"] = 1
        del store["led-1"]
        told = [(change.key, change.kind, change.revision) for change in store.changes()]
        assert told == [
            ("led-1", "created", 1),
            ("led-1", "updated", 2),
            (("led", 2), "created", 1),
            ("other", "created", 1),
            ("led-1", "deleted", 2),
        ]
        everything = list(store.changes())
        assert list(store.changes(everything[1].sequence)) == everything[2:]
        assert [c.kind for c in store.changes(prefix="led")] == ["created", "updated", "deleted"]
        assert [c.key for c in store.changes(prefix=("led",))] == [("led", 2)]
        assert [c.kind for c in store.history("led-1")] == ["created", "updated", "deleted"]
        assert everything[-1].sequence == store.database.sequence()

    def test_watching_keys(self, store: KeyValueStore, jobs: JobStore) -> None:
        """Changes are told as they come, of the keys with a prefix and of those below a header, and
        a checkpoint says where to go on.
        """
        store["led-1"] = 1
        told: list[Change] = []
        watched = store.watch(store.database.sequence(), prefix="led", timeout=20)
        watching = threading.Thread(target=lambda: told.extend(islice(watched, 2)))
        watching.start()
        for key in ("led-2", "fan", ("led", 3), "led-4"):
            store[key] = 1
        jobs.create(Job(id="j"))
        watching.join()
        assert [change.key for change in told] == ["led-2", "led-4"]
        section = store.section("led")
        for kind in ("created", "updated"):
            read = section.watch(checkpoint="reader", timeout=0.01)
            assert [(change.key, change.kind) for change in read] == [(3, kind)]
            section[3] = kind
        for call in (store.watch, store.changes):
            with pytest.raises(InvalidQueryError):
                call(prefix=5)

    def test_sections_of_keys(self, store: KeyValueStore) -> None:
        """Below a header is a store of its own, of which no other section sees anything; all of
        them are one nested dict.
        """
        store.update({"plain": 0, ("led",): "the header alone", "led": 1})
        led, fan = store.section("led"), store.section(("fan", 1))
        led.update({"red": 0.5, 17: "x", ("a", "b"): []})
        fan["speed"] = 3
        assert store["led", "red"] == 0.5
        assert store["fan", 1, "speed"] == 3
        assert led == {"red": 0.5, 17: "x", ("a", "b"): []}
        assert (len(led), len(fan), len(store)) == (3, 1, 7)
        assert list(led.keys(prefix="r")) == ["red"]
        assert list(led.keys(prefix=("a",))) == list(led.keys(prefix=())) == [("a", "b")]
        assert list(led.keys(prefix="a")) == []
        assert [change.key for change in led.changes(prefix="r")] == ["red"]
        assert store.section("fan").section(1) == fan
        nested: dict[Any, dict[Any, Any]] = {
            "led": {"red": 0.5, 17: "x", ("a", "b"): []},
            "fan": {(1, "speed"): 3},
        }
        assert store.sections() == nested
        other = KeyValueStore(store.database, "copy")
        other.update_sections(nested)
        assert other.sections() == nested
        led.clear()
        assert (dict(led), len(store)) == ({}, 4)
        assert store["led",] == "the header alone"
        assert "red" not in led
        for key in (("red",), 1.5, ""):
            if key != "":
                with pytest.raises(InvalidRecordError):
                    led.set(key, 1)  # type: ignore[arg-type]
        with pytest.raises(InvalidRecordError):
            store.section(1.5)  # type: ignore[arg-type]
        with pytest.raises(KeyNotFoundError, match="red"):
            led["red"]

    def test_a_copy_in_memory(self, store: KeyValueStore) -> None:
        """The same layer serves in memory alone: filled from a stored one it holds the same."""
        store.update({"a": (1, b"x"), ("b", 2): None})
        with open_database(f"memory:copy-{id(store)}") as memory:
            cache = KeyValueStore(memory, "cache")
            cache.update(store)
            assert cache == store
