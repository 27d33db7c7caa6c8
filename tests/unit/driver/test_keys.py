"""Keys as bytes: their order is the order of the fields, and nothing is lost on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storebridge.driver.contract import Field, Index, Table
from storebridge.driver.keys import (
    Span,
    entry_encoder,
    index_fields,
    join,
    key_decoder,
    key_encoder,
    span,
)

TEXT, INTEGER = Field("t"), Field("n", "integer")
SHAPES = [
    (TEXT,),
    (INTEGER,),
    (TEXT, TEXT),
    (TEXT, INTEGER),
    (INTEGER, TEXT),
    (INTEGER, INTEGER),
    (TEXT, INTEGER, TEXT),
    (TEXT, TEXT, TEXT, INTEGER),
]
AWKWARD = [
    "!",
    "!!",
    " ",
    "  ",
    "a",
    "a ",
    "a!",
    "a b",
    "a!20b",
    "é",
    "😀",
    "\uffff",
    "\x01",
    "\x1f",
]
AWKWARD += ["\x1f", "\t", "\n", '"', "\x7f", "\x85", "\u2028", "z" * 128, "\U0010ffff", "!" * 128]
EDGES = [-(2**63), -(2**63) + 1, -1, 0, 1, 2**63 - 2, 2**63 - 1]

texts = st.sampled_from(AWKWARD) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30
)
integers = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1)
shapes = st.sampled_from(SHAPES)


def keys_of(fields: tuple[Field, ...]) -> st.SearchStrategy[tuple[str | int, ...]]:
    return st.tuples(*(texts if field.type == "text" else integers for field in fields))


@given(st.data(), shapes)
def test_decoding_gives_back_what_was_encoded(
    data: st.DataObject, fields: tuple[Field, ...]
) -> None:
    key = data.draw(keys_of(fields))
    assert key_decoder(fields)(key_encoder(fields)(key)) == key


@given(st.data(), shapes)
def test_bytes_sort_as_the_fields_do_and_equal_only_for_equal_fields(
    data: st.DataObject, fields: tuple[Field, ...]
) -> None:
    one, other = data.draw(keys_of(fields)), data.draw(keys_of(fields))
    encode = key_encoder(fields)
    assert (encode(one) < encode(other)) == (one < other)
    assert (encode(one) == encode(other)) == (one == other)


@given(st.data(), shapes)
def test_a_span_holds_exactly_the_keys_with_the_prefix_and_within_the_bounds(
    data: st.DataObject, fields: tuple[Field, ...]
) -> None:
    some, key = data.draw(keys_of(fields)), data.draw(keys_of(fields))
    length = data.draw(st.integers(0, len(fields)))
    prefix, bound = some[:length], data.draw(keys_of(fields))
    lower = bound[length] if length < len(fields) and data.draw(st.booleans()) else None
    upper = some[length] if length < len(fields) and data.draw(st.booleans()) else None
    if data.draw(st.booleans()):
        key = prefix + key[length:]
    start, stop = span(len(fields), prefix, lower, upper)
    encoded = key_encoder(fields)(key)
    inside = start <= encoded and (stop is None or encoded < stop)
    expected = (
        key[:length] == prefix
        and (lower is None or key[length] >= lower)  # type: ignore[operator]
        and (upper is None or key[length] < upper)  # type: ignore[operator]
    )
    assert inside == expected


@given(st.data(), shapes.filter(lambda fields: len(fields) > 1))
def test_keys_of_several_fields_are_printable_where_their_text_is(
    data: st.DataObject, fields: tuple[Field, ...]
) -> None:
    encoded = key_encoder(fields)(data.draw(keys_of(fields)))
    assert min(encoded) >= 0x20
    assert encoded.count(b" ") == len(fields) - 1


@given(st.data(), shapes.filter(lambda fields: len(fields) > 1))
def test_the_compiled_encoder_agrees_with_the_plain_one(
    data: st.DataObject, fields: tuple[Field, ...]
) -> None:
    key = data.draw(keys_of(fields))
    assert key_encoder(fields)(key) == join(key, several=True)


def test_keys_read_well() -> None:
    assert key_encoder((TEXT,))(("job 1!",)) == b"job 1!"
    assert key_encoder((INTEGER,))((-1,)) == b"7fffffffffffffff"
    encoded = key_encoder((TEXT, INTEGER, TEXT))(("Running", 10, "job 1!"))
    assert encoded == b"Running 800000000000000a job!201!21"
    assert span(1, (), None, None) == Span(b"", None)


JOB = Table(
    "job",
    (Field("id"),),
    (Field("state"), Field("created_at", "integer", time=True), Field("owner", optional=True)),
    (Index("state", ("state", "created_at", "id")), Index("owner", ("owner",), unique=True)),
)


def test_an_index_entry_takes_its_fields_from_key_and_values() -> None:
    by_state, by_owner = JOB.indexes
    values = ("Running", 5, "me you")
    assert entry_encoder(JOB, by_state)(("j",), values) == b"Running 8000000000000005 j"
    assert entry_encoder(JOB, by_owner)(("j",), values) == b"me you"
    assert [field.name for field in index_fields(JOB, by_state)] == ["state", "created_at", "id"]


def test_an_entry_with_none_in_a_field_is_absent() -> None:
    assert entry_encoder(JOB, JOB.indexes[1])(("j",), ("Running", 5, None)) is None


@pytest.mark.parametrize("raw", [b"", b"one", b"a b c", b"\xff a", b"a xyz", b"a "])
def test_bytes_that_no_key_has_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        key_decoder((TEXT, INTEGER))(raw)
