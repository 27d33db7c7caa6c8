"""Key-value stores: what comes back is what went in, to its type."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from storebridge import KeyValueStore, from_json
from storebridge.keyspace import id_of
from storebridge.testing.harness import BackendHarness
from storebridge.testing.randomly import check_randomly
from storebridge.testing.stores.base import assert_sound, open_at
from storebridge.testing.stores.keyvalues import NAME, KeyValueStoreTests
from storebridge.typedvalues import dumps, loads

EXAMPLES = 12
BERLIN = ZoneInfo("Europe/Berlin")
AWKWARD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7e308,
    2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**400, 0.1, 1e22, 1e16, 1.789,
    "", "0012", "nan", "null", "1", "$", "$int", "a\0b", "\n\t\x7f\u2028", "é", "e\u0301", "😀",
    b"", b"\0\xff", b"text", [], (), {}, [[]], [()], ([],), ({},), {"": {}}, {"a": ()},
    {1: "int", "1": "text", (1,): "tuple", 1.5: "float", None: "none", b"1": "bytes"},
    {True: "bool"}, {1.0: "float"}, {"$int": "0x5"}, {"$": 1}, {"$dict": []}, {"a": 1, "$b": 2},
    {"b": 1, "a": 2}, {"a": 2, "b": 1}, [1, "1", 1.0, True], {"$tuple": ({"$tuple": [1]},)},
    date(2026, 2, 28), date.min, date.max, time(), time(23, 59, 59, 999999), time(1, fold=1),
    time(1, tzinfo=UTC), timedelta(0), timedelta.max, timedelta(-1, 5, 7), datetime.min,
    datetime.max, datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, 0, 0, 0, 1, timezone(timedelta(hours=-11, minutes=-30))),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=1, microseconds=1))),
    datetime(2026, 10, 25, 2, 30, fold=1), datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
    datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN), datetime(2026, 1, 1, fold=1, tzinfo=BERLIN),
    datetime(1850, 1, 1, tzinfo=BERLIN),
)  # fmt: skip

texts = st.text(max_size=8)
scalars = st.one_of(
    st.sampled_from(AWKWARD).filter(lambda value: not isinstance(value, list | dict | tuple)),
    texts,
    st.integers(),
    st.floats(),
    st.binary(max_size=8),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from((UTC, BERLIN, timezone(timedelta(hours=5))))),
    st.dates(),
    st.times(),
    st.timedeltas(),
)
hashable = scalars | st.tuples(scalars, texts)
values: st.SearchStrategy[Any] = st.recursive(
    scalars | st.sampled_from(AWKWARD),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(texts, inner, max_size=4),
        st.dictionaries(texts.map(lambda text: f"${text}"), inner, max_size=2),
        st.dictionaries(hashable, inner, max_size=4),
    ),
    max_leaves=8,
)
elements = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5) | st.integers(
    -(2**63), 2**63 - 1
)
keys = st.one_of(
    elements.filter(lambda key: key != ""),
    st.lists(elements, min_size=1, max_size=3).map(tuple),
    st.text("#$'a!", min_size=1, max_size=4),
)


class KeyValueTypeTests(KeyValueStoreTests):
    """Values and keys that Hypothesis draws, and those where encodings go wrong."""

    def test_awkward_values(self, store: KeyValueStore) -> None:
        """Each value comes back as it was, type, sign, order and time zone; written again it is the
        same text, and JSON that is nobody else's is left as it is.
        """
        for number, value in enumerate(AWKWARD):
            store[number] = value
        for number, value in enumerate(AWKWARD):
            for found in (store[number], store.entry(number).value):
                assert repr(found) == repr(value)
                assert dumps(found) == dumps(value)
        assert [repr(value) for value in store.values()] == [repr(value) for value in AWKWARD]
        plain = {"b": [1, 2.5, None, True, "é"], "a": {"": {}}}
        assert from_json(dumps(plain)) == plain

    def test_every_value_comes_back(self, harness: BackendHarness) -> None:
        """Whatever is set, under whatever key, is got and listed as it was, and again after the
        database was closed and opened.
        """

        def check(drawn: list[tuple[Any, Any]]) -> None:
            target = harness.fresh()
            with open_at(harness, target) as database:
                store = KeyValueStore(database, NAME)
                expected = {}
                with database.transaction():
                    for key, value in drawn:
                        store[key] = value
                        expected[repr(key)] = repr(value)
                        assert repr(store[key]) == repr(value)
                _check(store, expected)
                assert_sound(database)
            if database.driver.traits.persistent:
                with open_at(harness, target, read_only=True) as database:
                    _check(KeyValueStore(database, NAME), expected)

        check_randomly(check, st.lists(st.tuples(keys, values), max_size=40), EXAMPLES)

    def test_encoding_is_a_fixpoint(self) -> None:
        """What was read, written again, is the same text; so copies and digests agree."""

        def check(value: Any) -> None:
            text = dumps(value)
            found = loads(text)
            assert repr(found) == repr(value)
            assert dumps(found) == text

        check_randomly(check, values, 10 * EXAMPLES)

    def test_ids_are_of_one_key(self) -> None:
        """Two keys have one id if they are one key; ids of texts, of whole numbers and of tuples of
        either are in the order of the keys.
        """

        def check(pair: tuple[Any, Any]) -> None:
            one, other = pair
            ids = id_of(one), id_of(other)
            assert (ids[0] == ids[1]) == (repr(one) == repr(other))
            if _comparable(one, other):
                assert (ids[0] < ids[1]) == (one < other)

        check_randomly(check, st.tuples(keys, keys), 10 * EXAMPLES)


def _check(store: KeyValueStore, expected: dict[str, str]) -> None:
    assert len(store) == len(expected)
    assert {repr(key): repr(value) for key, value in store.items()} == expected


def _comparable(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(type(a) is type(b) for a, b in zip(one, other, strict=False))
    return type(one) is type(other)
