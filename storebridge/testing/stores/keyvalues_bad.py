"""Key-value stores: what is refused, what cannot be read, and who wrote it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from storebridge import (
    ConfigurationError,
    ConflictError,
    CorruptStoreError,
    Database,
    InvalidRecordError,
    JobStore,
    KeyValueStore,
    NewerRecordError,
    ReadOnlyError,
)
from storebridge.entries import Entry, entry_spec
from storebridge.keyspace import id_of
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import (
    Calls,
    all_rows,
    assert_sound,
    contents,
    edit_body,
    open_at,
)
from storebridge.testing.stores.keyvalues import NAME, KeyValueStoreTests

NO_KEYS: tuple[Any, ...] = (
    True, None, 1.0, b"a", "", (), [1], ("a", ("b",)), (True,), (1.5,), {"a"}, 2**63, "a\0",
    ("\0",), "\ud800", ("\ud800",), "x" * 129, "é" * 65, " " * 43, ("x" * 125,), ("#" * 42,),
    object(),
)  # fmt: skip


class _Text(str):
    """A text that would come back as another type."""

    __slots__ = ()


class _Number(int):
    """A number that would, too."""


NO_VALUES: tuple[Any, ...] = (
    {1}, frozenset(), object(), bytearray(b"a"), 1j, _Text("a"), _Number(1), [{1}], {"a": ({1},)},
    {"a": _Text("b")}, {_Text("a"): 1}, range(3), "\ud800", {"\ud800": 1}, NotImplemented, print,
)  # fmt: skip


class BadKeyValueTests(KeyValueStoreTests):
    """Nothing is coerced, dropped or overwritten."""

    def test_refused_keys(self, store: KeyValueStore) -> None:
        """What cannot be a key is refused by every call, reading ones too, and nothing changes."""
        store["a"] = 1
        kept = contents(store.database)
        for key in NO_KEYS:
            calls: tuple[Callable[[Any], object], ...] = (
                store.__getitem__,
                store.__contains__,
                store.get,
                store.pop,
                partial(store.set, value=1),
                partial(store.set_if_absent, value=1),
                partial(store.compare_and_set, old=1, new=2),
                store.increment,
                store.history,
            )
            for call in calls:
                with pytest.raises(InvalidRecordError, match="key"):
                    call(key)
        assert contents(store.database) == kept

    def test_refused_values(self, store: KeyValueStore) -> None:
        """A value that would come back as something else is refused, wherever it is nested, and
        nothing changes.
        """
        store["a"] = 1
        kept = contents(store.database)
        endless: list[Any] = []
        endless.append(endless)
        deep: Any = 1
        for _ in range(60):
            deep = (deep,)
        for value in (*NO_VALUES, endless, deep):
            calls: Calls = (
                partial(store.set, "a", value),
                partial(store.set_if_absent, "b", value),
                partial(store.compare_and_set, "a", 1, value),
                partial(store.setdefault, "b", value),
                partial(store.update, {"b": 1, "a": value}),
            )
            for call in calls:
                with pytest.raises(InvalidRecordError):
                    call()
        assert contents(store.database) == kept
        with pytest.raises(InvalidRecordError, match=r"value\['a'\]\[0\]: set"):
            store["a"] = {"a": [{1}]}

    def test_names_of_other_stores(self, database: Database, jobs: JobStore) -> None:
        """A name that another kind of store has is refused in words, and so is a bad lifetime."""
        KeyValueStore(database, "leds", lifetime="boot")
        for name, lifetime, said in (
            ("job", "persistent", "no key-value store"),
            ("leds", "persistent", "lifetime 'boot'"),
            ("new", "eternal", "persistent, boot"),
            ("Not a name", "persistent", "names are"),
            ("x" * 40, "persistent", "names are"),
        ):
            with pytest.raises(ConfigurationError, match=said):
                KeyValueStore(database, name, lifetime=lifetime)  # type: ignore[arg-type]

    def test_keys_after_reopening(self, harness: BackendHarness) -> None:
        """What was set is there after closing and opening, and can be read by who may only read."""
        harness.require_persistent()
        with open_at(harness) as database:
            KeyValueStore(database, NAME).update({"a": (1,), 5: b"x"})
        with open_at(harness) as database:
            assert KeyValueStore(database, NAME) == {"a": (1,), 5: b"x"}
        with open_at(harness, read_only=True) as database:
            store = KeyValueStore(database, NAME)
            assert store == {"a": (1,), 5: b"x"}
            assert len(store) == 2
            with pytest.raises(ReadOnlyError):
                store["a"] = 1

    def test_what_cannot_be_read(
        self, store: KeyValueStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A value that cannot be read is told, never taken for absent and never overwritten;
        iterating passes it with a warning, and it can be discarded.
        """
        broken = (b"{", b'{"v":1}', b'"x"', b"\xff", b"[" * 5000)
        tags = ('{"$none":1}', '{"$int":"x"}', '{"$bytes":"?"}', '{"$tuple":1}', '{"a":1,"$b":2}')
        for number in range(len(broken) + len(tags)):
            store[f"k{number}"] = "here"
        store["kept"] = 1
        for number, body in enumerate(broken):
            edit_body(store._records, f"k{number}", partial(_replaced, body))
        for number, tag in enumerate(tags, len(broken)):
            edit_body(store._records, f"k{number}", partial(_with_value, tag.encode()))
        for number in range(len(broken) + len(tags)):
            key = f"k{number}"
            calls: Calls = (
                partial(store.get, key),
                partial(store.__contains__, key),
                partial(store.set, key, 1),
                partial(store.set_if_absent, key, 1),
                partial(store.pop, key),
            )
            for call in calls:
                with pytest.raises(CorruptStoreError, match=key):
                    call()
        with caplog.at_level(logging.WARNING, "storebridge"):
            assert dict(store.items()) == {"kept": 1}
        assert "k0" in caplog.text
        assert [key for key, _ in store.quarantined()] == [
            f"k{number}" for number in range(len(broken) + len(tags))
        ]
        with pytest.raises(ConflictError):
            store.discard("kept")
        for number in range(len(broken) + len(tags)):
            store.discard(f"k{number}")
        assert store == {"kept": 1}
        assert len(store) == 1

    def test_ids_that_are_no_key(self, store: KeyValueStore) -> None:
        """An entry whose id is none of a key's, which somebody put in by hand, is passed by; and a
        section tells of its own keys only.
        """
        store["a"] = store["led", "red"] = store["fan", "speed"] = 1
        broken = id_of(("led", "red"))
        for record_id in ("#", "#zz", "#(x", "#b1"):
            store._records.create(Entry(id=record_id, key="x", value=1))
        assert store == {"a": 1, ("led", "red"): 1, ("fan", "speed"): 1}
        assert [change.key for change in store.changes()] == ["a", ("led", "red"), ("fan", "speed")]
        edit_body(store._records, broken, partial(_replaced, b"{"))
        assert [key for key, _ in store.section("led").quarantined()] == ["red"]
        assert list(store.section("fan").quarantined()) == []
        assert [change.key for change in store.section("fan").changes()] == ["speed"]

    def test_of_a_newer_version(self, store: KeyValueStore) -> None:
        """What a newer version wrote is read as far as possible, and not overwritten."""
        store["k"] = (1,)
        body = edit_body(store._records, "k", lambda body: body.replace(b'"v":1', b'"v":2', 1))
        assert store["k"] == (1,)
        assert dict(store.items()) == {"k": (1,)}
        for call in (partial(store.set, "k", 2), partial(store.pop, "k")):
            with pytest.raises(NewerRecordError):
                call()
        assert store.database.get(NAME, ("k",)) == body

    def test_edited_by_hand(self, store: KeyValueStore) -> None:
        """Values that people write into a file are read: laid out with spaces, in any order."""
        store["k"] = 1
        for written, value in (
            (b'{ "b" : 1,\n "a": [ ] }', {"b": 1, "a": []}),
            (b'{\n  "$tuple": [1, { "$bytes": "AA==" }]\n}', (1, b"\0")),
            (b'"$5"', "$5"),
            (b"1e3", 1000.0),
        ):
            edit_body(store._records, "k", partial(_with_value, written))
            assert repr(store["k"]) == repr(value)

    def test_times_are_those_of_the_clock(self, harness: BackendHarness) -> None:
        """On whole seconds, too, bodies have times of the same length."""
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        with open_at(harness, harness.fresh(), clock=lambda: moment) as database:
            store = KeyValueStore(database, NAME)
            store.set("k", 1, expires_in=timedelta(seconds=1))
            ((_, body),) = all_rows(database, NAME)
            members = msgspec.json.decode(body)
            assert members["created_at"] == "2026-01-01T00:00:00.000000Z"
            assert members["expires_at"] == "2026-01-01T00:00:01.000000Z"
            assert store.entry("k").expires_at == moment + timedelta(seconds=1)
            assert_sound(database)

    def test_names_in_views(self, store: KeyValueStore) -> None:
        """The name of the view that engines with a query language show is that of the entries."""
        view = store._records.layout.record.view
        assert view is not None
        assert view.name == f"{NAME}-entries"
        assert {"key", "value", "expires_at"} <= set(view.fields)
        assert entry_spec(NAME, "persistent").plural == view.name


def _replaced(new: bytes, body: bytes) -> bytes:
    return new


def _with_value(value: bytes, body: bytes) -> bytes:
    """The body with another value: the only member that is `"here"` or a number."""
    head, _, tail = body.partition(b'"value":')
    return head + b'"value":' + value + tail[tail.index(b',"expires_at"') :]
