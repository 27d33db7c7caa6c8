"""Canonical JSON: everything that JSON can hold comes back exactly, in one form only."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from storebridge import InvalidRecordError, from_json, to_json
from storebridge.canonical import canonical_raw, check_integers

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([2**63 - 1, -(2**63), 10**18, -(10**18)])
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type all the way down: 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@given(values)
def test_comes_back_exactly(value: Any) -> None:
    """Whatever JSON can hold comes back as it went in."""
    assert same(from_json(to_json(value)), value)


@given(values)
def test_is_a_fixpoint(value: Any) -> None:
    """Parsing and writing canonical JSON gives the same bytes, as text of the caller's too."""
    raw = bytes(to_json(value))
    assert bytes(to_json(from_json(raw))) == raw
    assert canonical_raw(raw) == raw
    assert b"\n" not in raw


@given(values, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_any_writing_becomes_canonical(value: Any, ascii_only: bool, indent: Any) -> None:
    """JSON text of any layout, escapes included, becomes the one form."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert canonical_raw(text) == bytes(to_json(value))


@given(st.dictionaries(texts, st.integers(0, 3), min_size=2))
def test_members_are_sorted(value: dict[str, int]) -> None:
    """The order in which members were given does not show."""
    backwards = dict(reversed(value.items()))
    assert bytes(to_json(value)) == bytes(to_json(backwards))


@given(st.integers())
def test_integers_have_64_bits(value: int) -> None:
    """An integer is kept exactly or refused, alone, inside, and as text of the caller's."""
    for inside in (value, [value], {"a": value}, {"a": f"{value}", "b": [1.5, value]}):
        text = json.dumps(inside)
        if -(2**63) <= value < 2**63:
            assert from_json(to_json(inside)) == inside == from_json(canonical_raw(text))
            check_integers(text.encode())
        else:
            with pytest.raises(InvalidRecordError, match="64 bits"):
                to_json(inside)
            with pytest.raises(InvalidRecordError, match="64 bits"):
                canonical_raw(text)
            if abs(value) < 2**64:
                with pytest.raises(InvalidRecordError, match="64 bits"):
                    check_integers(text.encode())


@pytest.mark.parametrize(
    "text", ["9" * 30, "-" + "9" * 19, f'"{"9" * 30}"', "é" + "1" * 40, '\\":' + "1" * 25]
)
def test_long_digits_in_text(text: str) -> None:
    """Digits in text are no integer, however many."""
    for value in (text, [text], {text: text}, {"a": {"b": text}}):
        assert from_json(to_json(value)) == value
        assert canonical_raw(json.dumps(value)) == bytes(to_json(value))


def test_errors_say_where() -> None:
    """An error names the place inside the value."""
    with pytest.raises(InvalidRecordError, match=r"\$\.a\[1\]\.b"):
        to_json({"a": [1, {"b": math.nan}]})
    with pytest.raises(InvalidRecordError, match=r"^\$\.a: member name 1 is not text$"):
        to_json({"a": {1: 2}})
    with pytest.raises(InvalidRecordError, match=r"^\$\.a: object is not a JSON type$"):
        to_json({"a": object()})
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRecordError, match="not JSON"):
        to_json({"a": deep, 1: 2})
    with pytest.raises(InvalidRecordError, match=r"member 'b' is named twice"):
        canonical_raw(b'{"a":{"b":1,"c":2,"b":1}}')


def test_depth() -> None:
    """Brackets in text are no levels, nor are those side by side."""
    many = ["[" * 200, {"{" * 200: "}"}, [[1]] * 200]
    assert from_json(to_json(many)) == many
    assert canonical_raw(json.dumps(many)) == bytes(to_json(many))
    with pytest.raises(InvalidRecordError, match="100 levels"):
        canonical_raw("[" * 101 + "]" * 101)


@pytest.mark.parametrize("text", [b"", b"{", b"nan", Raw(b'{"a":}')])
def test_reading_what_is_no_json(text: bytes | Raw) -> None:
    """`from_json` of what is no JSON is our error."""
    with pytest.raises(InvalidRecordError, match="not JSON"):
        from_json(text)
