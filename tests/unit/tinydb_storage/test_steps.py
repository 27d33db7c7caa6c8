"""JSON in short steps is the standard library's JSON, and leaves the other threads their turns."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storebridge_tinydb.steps import Rest, decode, encode, pack, unpack

TEXT = st.text(st.characters(codec=None), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
TABLES = st.dictionaries(TEXT, st.dictionaries(TEXT, VALUES, max_size=5), max_size=4)
ODD_KEYS = st.dictionaries(st.integers() | st.booleans() | st.none() | st.floats(), VALUES)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "ensure_ascii": st.booleans(),
        "sort_keys": st.booleans(),
        "allow_nan": st.booleans(),
        "indent": st.sampled_from([None, 0, 2, "\t"]),
        "separators": st.sampled_from([None, (",", ":"), (" ;", " = ")]),
        "skipkeys": st.booleans(),
        "check_circular": st.booleans(),
        "default": st.just(str),
        "cls": st.just(json.JSONEncoder),
    },
)


def outcome(function: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    try:
        return "gives", repr(function(*arguments, **options))
    except (ValueError, TypeError) as error:
        return type(error).__name__, str(error)


@settings(max_examples=60)
@given(data=TABLES | VALUES | ODD_KEYS | st.dictionaries(TEXT, ODD_KEYS), options=OPTIONS)
def test_encodes_the_same(data: Any, options: dict[str, Any]) -> None:
    """Every character, with every option; and the errors are the same."""
    assert outcome(encode, data, **options) == outcome(json.dumps, data, **options)


@given(data=TABLES | VALUES, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_decodes_the_same(data: Any, indent: int | None, ascii_only: bool) -> None:
    """Every value, in whatever layout."""
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    assert outcome(decode, text) == outcome(json.loads, text)


@given(data=TABLES, place=st.integers(0, 200), damage=st.sampled_from('{}[],:"\\0x\n\x00'))
def test_refuses_the_same(data: Any, place: int, damage: str) -> None:
    """What is not JSON gives the error that `json.loads` gives, and what is, in spite of the
    damage, gives the same.
    """
    text = json.dumps(data)
    text = text[:place] + damage + text[place + 1 :]
    assert outcome(decode, text) == outcome(json.loads, text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"1": {"b": 1, "b": 2}}, "a": {"1": 3, "1": 4}}',
        '{"a": {"1": {"b": NaN}}}',
        '{"a": {"1": 123456789012345678901234567890, "2": 1e999}}',
        '\ufeff{"a": {}}',
        '{"a": {"1": {"b": "\\ud800"}}}',
        '{"a": {"\\ud800": {}}}',
        ' {"a" : { } } ',
        "",
        "{} {}",
    ],
)
def test_decodes_odd_files_the_same(text: str) -> None:
    assert outcome(decode, text) == outcome(json.loads, text)


@settings(max_examples=20)
@given(data=st.dictionaries(TEXT, st.dictionaries(TEXT, VALUES) | VALUES, max_size=4))
def test_packed_tables_come_back(data: dict[str, Any]) -> None:
    """Whatever they hold, also where they are no tables; and nobody else has them."""
    data["large"] = {str(number): [number] for number in range(1201)}
    before = repr(data)
    packed = pack(data)
    data["large"]["7"].append(8)
    assert repr(unpack(packed)) == before
    unpack(packed)["large"]["7"].append(9)
    assert repr(unpack(packed)) == before


DATA = {"_default": {str(number): {"a": ["x" * 50] * 10} for number in range(30_000)}}
WORK: dict[str, Callable[[], object]] = {
    "encode": partial(encode, DATA, Rest()),
    "decode": partial(decode, json.dumps(DATA), Rest()),
    "pack": partial(pack, DATA, Rest()),
    "unpack": partial(unpack, pack(DATA), Rest()),
}


@pytest.mark.parametrize("work", WORK)
def test_other_threads_get_their_turn(work: str) -> None:
    """Soon, while all documents are worked on, and not only now and then."""
    turns, stop = [0], threading.Event()

    def count() -> None:
        while not stop.wait(0.000_1):
            turns[0] += 1

    counter = threading.Thread(target=count)
    counter.start()
    try:
        before = turns[0]
        WORK[work]()
        assert turns[0] - before >= 10
    finally:
        stop.set()
        counter.join()
