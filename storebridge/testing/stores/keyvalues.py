"""Key-value stores: keys, values, and what a dict does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from storebridge import (
    Database,
    InvalidQueryError,
    KeyNotFoundError,
    KeyValueStore,
    ReadOnlyError,
    RecordNotFoundError,
)
from storebridge.keyspace import Key
from storebridge.testing.stores.base import (
    Calls,
    StoreTests,
    all_rows,
    assert_sound,
)

NAME = "calibrations"
DISTINCT: tuple[Key, ...] = (
    1, "1", (1,), ("1",), -1, "-1", ("1", 1), (1, "1"), ("1", "1"), "#", "##", "#a1", "#('1#",
    "a1", ("#",), ("$",), ("$23",), ("a#", "b"), ("a", "#b"), ("a", ""), ("a",), "a", (0, 5, 42),
    "é", "😀", 2**63 - 1, -(2**63), "a b", "A", ("a", "b"), ("ab",), "\x01", "'",
    ("'",),
)  # fmt: skip


class KeyValueStoreTests(StoreTests):
    """What they share."""

    @pytest.fixture
    def store(self, database: Database) -> KeyValueStore:
        return KeyValueStore(database, NAME)


class KeyValueTests(KeyValueStoreTests):
    """A dict that is stored."""

    def test_it_is_a_dict(self, store: KeyValueStore) -> None:
        """Setting, getting, removing and asking do what they do with a dict."""
        store["a"] = 1
        store["b"] = [1.5, "x"]
        store["a"] = {"nested": True}
        store.update({"c": None}, d=b"\0")
        store.update([("e", (1, 2))])
        expected = {"a": {"nested": True}, "b": [1.5, "x"], "c": None, "d": b"\0", "e": (1, 2)}
        assert store == expected
        assert len(store) == 5
        assert list(store) == list(store.keys()) == list(expected)
        assert list(store.values()) == list(expected.values())
        assert list(store.items()) == list(expected.items())
        assert "c" in store
        assert "z" not in store
        assert store.get("c", 5) is None
        assert store.get("z") is None
        assert store.get("z", 5) == 5
        assert store.setdefault("a", 7) == {"nested": True}
        assert store.setdefault("f", 7) == 7
        assert store.pop("f") == 7
        assert store.pop("f", None) is None
        assert store.popitem() == ("a", {"nested": True})
        del store["b"]
        assert store == {"c": None, "d": b"\0", "e": (1, 2)}
        store.clear()
        assert (len(store), dict(store)) == (0, {})
        assert_sound(store.database)

    def test_what_is_not_there(self, store: KeyValueStore) -> None:
        """A key that is not there is a KeyError, as with a dict, and one of storebridge's errors;
        the message names store and key.
        """
        calls: Calls = (
            lambda: store["z"],
            lambda: store.pop("z"),
            lambda: store.popitem(),
            lambda: store.__delitem__("z"),
            lambda: store.entry("z"),
            lambda: store.expire("z", 5),
        )
        for call in calls:
            with pytest.raises(KeyNotFoundError, match=NAME) as caught:
                call()
            assert isinstance(caught.value, KeyError)
            assert isinstance(caught.value, RecordNotFoundError)
            assert str(caught.value)[0] != "'"

    def test_keys_are_distinct(self, store: KeyValueStore) -> None:
        """Keys of different types never meet, whatever characters are in them; they come back as
        they were.
        """
        store.update((key, repr(key)) for key in DISTINCT)
        assert len(store) == len(DISTINCT)
        found = dict(store.items())
        assert {repr(key): value for key, value in found.items()} == {
            repr(key): repr(key) for key in DISTINCT
        }
        for key in DISTINCT:
            assert store[key] == repr(key)
            del store[key]
            assert key not in store
        assert len(store) == 0

    def test_order_of_keys(self, store: KeyValueStore) -> None:
        """Texts come by code point, whole numbers by value, tuples element by element."""
        numbers = [-(2**63), -1000, -999, -11, -10, -9, -1, 0, 1, 9, 10, 99, 100, 2**63 - 1]
        texts = ["\x01", " ", "!", "#", "#a", "$", "A", "a", "a b", "aa", "é", "\uffff", "😀"]
        tuples = [(*pair,) for pair in (["", "z"], ["a"], ["a", ""], ["a", "#"], ["a", "a"], ["b"])]
        wanted: tuple[list[Any], ...] = (numbers, texts, tuples)
        store.update((key, None) for keys in wanted for key in reversed(keys))
        for keys in wanted:
            assert [key for key in store if type(key) is type(keys[0])] == keys

    def test_text_is_its_own_id(self, store: KeyValueStore) -> None:
        """What people read in the file: a text is the id of its entry, and the body has key, value
        and times as they would be written by hand; ordinary JSON as it is, in its order.
        """
        store["gpio-17"] = {"z": 1, "a": [True, None, 0.5, "é"]}
        store["led", 17] = {"": b"\0"}
        rows = {key[0]: msgspec.json.decode(b) for key, b in all_rows(store.database, NAME)}
        body = rows["gpio-17"]
        assert (body["key"], body["revision"]) == ("gpio-17", 1)
        assert list(body["value"].items()) == [("z", 1), ("a", [True, None, 0.5, "é"])]
        (other,) = rows.keys() - {"gpio-17"}
        assert rows[other]["key"] == ["led", 17]
        assert rows[other]["value"] == {"": {"$bytes": "AA=="}}
        assert str(other).isprintable()

    def test_a_value_is_the_callers_own(self, store: KeyValueStore) -> None:
        """Changing what was given or returned changes nothing that is stored."""
        given = {"a": [1]}
        store["k"] = given
        given["a"].append(2)
        store["k"]["a"].append(3)
        next(iter(store.values()))["a"].append(4)
        store.entry("k").value["a"].append(5)
        assert store["k"] == {"a": [1]}

    def test_prefixes_of_keys(self, store: KeyValueStore) -> None:
        """A text finds the texts that begin with it, a tuple the tuples that begin with its
        elements, exactly; both over more than a page.
        """
        keys: list[Any] = [f"led-{number:03}" for number in range(450)]
        keys += [
            "le",
            "lee",
            "led",
            "leE",
            "#led",
            5,
            ("led",),
            ("led", 1),
            ("led", "a"),
            ("leds",),
        ]
        keys += ["\U0010ffff", "\U0010ffffa", ("a", "b", "c"), ("a", "b"), ("a",), ("a", "bc")]
        store.update((key, str(key)) for key in keys)
        texts = [key for key in keys if isinstance(key, str)]
        for prefix in ("led", "led-1", "l", "#", "#l", "x", "\U0010ffff"):
            wanted = sorted(key for key in texts if key.startswith(prefix))
            assert list(store.keys(prefix=prefix)) == wanted
            assert list(store.values(prefix=prefix)) == wanted
            assert len(store.items(prefix=prefix)) == len(wanted)
        for tuple_prefix in ((), ("led",), ("a",), ("a", "b"), ("a", "b", "c"), ("x",)):
            size = len(tuple_prefix)
            expected = {k for k in keys if isinstance(k, tuple) and k[:size] == tuple_prefix}
            assert set(store.keys(prefix=tuple_prefix)) == expected
        assert list(store.keys(prefix="")) == list(store)
        assert "led-001" in store.keys(prefix="led")
        assert "lee" not in store.keys(prefix="led")
        refused: tuple[Any, ...] = (5, 1.5, b"a", "a\0", ("a", 1.5), True)
        for none in refused:
            with pytest.raises(InvalidQueryError):
                store.keys(prefix=none)
        store.clear(prefix="led-")
        assert len(store) == len(keys) - 450
        assert_sound(store.database)

    def test_iterating_while_keys_change(self, store: KeyValueStore) -> None:
        """Iterating goes on while keys come, change and go, gives each that stays, and ends."""
        store.update((f"k{number:04}", number) for number in range(300))
        seen = []
        for key, number in store.items():
            seen.append(key)
            if number % 2:
                del store[key]
            store[f"a{number:04}"] = number
            store[key if number % 2 == 0 else "zz"] = number
        assert [key for key in seen if key != "zz"] == [f"k{number:04}" for number in range(300)]
        assert len(store) == 300 + 150 + 1

    def test_keys_in_a_snapshot(self, store: KeyValueStore) -> None:
        """In a snapshot, keys and values are of one moment."""
        store.update((f"k{number}", number) for number in range(300))
        with store.database.snapshot():
            assert sum(store.values()) == sum(range(300))
            assert len(store) == 300
            with pytest.raises(ReadOnlyError):
                store["k0"] = 1
