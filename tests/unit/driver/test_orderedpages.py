"""Keys and index entries of a page at once are those that are made one by one, whatever is in them;
and whatever is wrong with an index, the quick look at it sees."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storebridge_memory.driver import MemoryDriver

from storebridge.driver import keys, orderedcheck
from storebridge.driver.contract import Field, Index, Key, Table, Values
from storebridge.driver.mapengine import MapEngine
from storebridge.driver.orderedpages import (
    entries_maker,
    entry_sums,
    keys_decoder,
    keys_encoder,
    sum_of,
)
from storebridge.driver.pages import Columns, all_equal, page_of

TEXT, NUMBER = Field("id"), Field("number", "integer")
FIELDS = ((TEXT,), (NUMBER,), (TEXT, NUMBER), (NUMBER, TEXT), (TEXT, NUMBER, Field("value")))
TABLE = Table(
    "thing",
    (Field("id"), Field("part", "integer")),
    (Field("state"), Field("size", "integer", optional=True), Field("name", optional=True)),
    (
        Index("size", ("size", "id", "part")),
        Index("state", ("state", "size", "id", "part")),
        Index("part", ("part", "id")),
        Index("name", ("name",), unique=True),
        Index("only", ("size",), unique=True),
        Index("both", ("name", "state"), unique=True),
    ),
)
plain = st.text("ab", min_size=1, max_size=4)
texts = plain | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
integers = st.integers(0, 3) | st.integers(-(2**63), 2**63 - 1)
# Few together: then something is shared, as states are, and something is not.
entries = st.lists(
    st.tuples(
        st.tuples(texts, integers),
        st.tuples(texts, st.none() | integers, st.none() | texts),
    ),
    min_size=1,
    max_size=12,
)


@given(st.sampled_from(FIELDS), st.data())
def test_a_page_of_keys(fields: tuple[Field, ...], data: st.DataObject) -> None:
    """Keys are decoded as one by one, and their pieces are what entries hold."""
    key = st.tuples(*(texts if field.type == "text" else integers for field in fields))
    page = data.draw(st.lists(key, min_size=1, max_size=9))
    found = keys_decoder(fields)(list(map(keys.key_encoder(fields), page)))
    assert found is not None
    assert list(zip(*found.columns, strict=True)) == page
    for column, pieces in zip(zip(*page, strict=True), found.pieces, strict=False):
        assert list(pieces) == [keys.join((each,), True) for each in column]


@given(st.sampled_from(FIELDS), st.data())
def test_a_page_of_keys_as_bytes(fields: tuple[Field, ...], data: st.DataObject) -> None:
    """And encoded as one by one."""
    key = st.tuples(*(texts if field.type == "text" else integers for field in fields))
    page = data.draw(st.lists(key, min_size=1, max_size=9))
    raws, made = keys_encoder(fields)(list(zip(*page, strict=True)))
    assert raws == list(map(keys.key_encoder(fields), page))
    assert list(zip(*made.columns, strict=True)) == page
    for column, pieces in zip(zip(*page, strict=True), made.pieces, strict=False):
        assert list(pieces) == [keys.join((each,), True) for each in column]


@given(entries)
def test_entries(page: list[tuple[Key, Values]]) -> None:
    """The entries of each index, and the keys that they name."""
    encode = keys.key_encoder(TABLE.key)
    raws, made = keys_encoder(TABLE.key)(list(zip(*[key for key, _ in page], strict=True)))
    columns = list(zip(*[values for _, values in page], strict=True))
    found = entries_maker(TABLE, TABLE.indexes)(raws, made, columns)
    for index, pairs in zip(TABLE.indexes, found, strict=True):
        entry = keys.entry_encoder(TABLE, index)
        due = [(entry(key, values), encode(key)) for key, values in page]
        assert [tuple(pair.split(b"\0")) for pair in pairs] == [
            pair for pair in due if pair[0] is not None
        ]


@given(st.sampled_from(FIELDS), st.lists(texts, min_size=1, max_size=3), st.data())
def test_bytes_that_are_no_key(fields: tuple[Field, ...], words: list[str], data: object) -> None:
    """A page with one of these is told from those of the encoder, as one by one."""
    encode, decode = keys.key_encoder(fields), keys.key_decoder(fields)
    raw = " ".join(words).encode()
    good = encode(tuple("a" if field.type == "text" else 1 for field in fields))
    try:
        is_one = encode(decode(raw)) == raw
    except ValueError:
        is_one = False
    assert (keys_decoder(fields)([good, raw, good]) is not None) == is_one


@pytest.mark.parametrize(
    "raw",
    [b"a 000000000000004e", b"a 800000000000004E", b"a  800000000000004", b"a b 80000000000004e",
     b"a 80000000000000_1", b"a", b"\xff 800000000000004e", b"a!41 800000000000004e",
     b"\x01 800000000000004e"],
)  # fmt: skip
def test_nearly_a_key(raw: bytes) -> None:
    """What a hand may have made of a key is seen, also where a page has as many parts as it
    should."""
    decode = keys_decoder((TEXT, NUMBER))
    good = b"a 8000000000000000"
    assert (decode([good, raw]) is not None) == (raw == b"a 000000000000004e")
    assert decode([b"a", b"b c 8000000000000000"]) is None
    assert keys_decoder((TEXT,))([b"\xff"]) is None


@given(entries)
def test_sums_over_a_page(page: list[tuple[Key, Values]]) -> None:
    """The sums are over the very bytes that the entries have in the indexes, if any."""
    encode = keys.key_encoder(TABLE.key)
    raws = [encode(key) for key, _ in page]
    found = keys_decoder(TABLE.key)(raws)
    assert found is not None
    columns = list(zip(*(values for _, values in page), strict=True))
    expected = []
    for index in TABLE.indexes:
        entry = keys.entry_encoder(TABLE, index)
        pairs = [(entry(key, values), encode(key)) for key, values in page]
        expected.append(sum_of((found, raw) for found, raw in pairs if found is not None))
    assert entry_sums(TABLE, TABLE.indexes)(raws, found, columns) == expected


class _Paged:
    """Values of bodies that are their `repr`; a page at a time unless one of them is unreadable."""

    def __call__(self, key: Key, body: bytes) -> Values | None:
        return None if body == b"?" else eval(body)

    def page(self, keys: Columns, bodies: Sequence[bytes]) -> Columns | None:
        values = [self((), body) for body in bodies]
        return None if None in values else list(zip(*filter(None, values), strict=True))


JOB = Table(
    "job",
    (Field("id"),),
    (Field("state"), Field("size", "integer", optional=True)),
    (Index("state", ("state", "id")), Index("size", ("size", "id"))),
)


@pytest.mark.parametrize("seed", range(80))
@pytest.mark.parametrize("paged", [True, False], ids=["paged", "one by one"])
def test_the_quick_look_sees_what_the_thorough_one_names(seed: int, paged: bool) -> None:
    """After any one thing is done to an index, both find fault, or neither."""
    chance = random.Random(seed)
    driver = MemoryDriver()
    driver.create_tables([JOB], 1)
    changes = driver.begin(True)
    for number in range(chance.choice((1, 3, 600))):
        values = (chance.choice(("Running", "Not yet!", "é")), chance.choice((None, 1, number)))
        changes.insert("job", (f"{number:03}",), values, repr(values).encode())
    if seed % 4 == 0:
        changes.replace("job", ("000",), (), (), b"?")
    changes.commit()
    engine, table = driver._engine(True), driver._tables["job"]
    values_of = _Paged() if paged else lambda key, body: _Paged()(key, body)
    assert orderedcheck._add_up(engine, table, values_of)
    _spoil(engine, table.indexes[chance.randrange(2)].space, chance)
    named = list(orderedcheck._named(engine, table, values_of))
    assert orderedcheck._add_up(engine, table, values_of) == (not named)


def _spoil(engine: MapEngine, space: str, chance: random.Random) -> None:
    """Lose, add or change an entry of an index, or have two of them name each other's key."""
    there = engine.items(space, b"", None, False, 9999)
    if not there:
        return
    (one, its), (other, others) = chance.choice(there), chance.choice(there)
    what = chance.randrange(5)
    if what == 0:
        engine.delete(space, one)
    elif what == 1:
        engine.put(space, one + b"0", its)
    elif what == 2:
        engine.put(space, one, b"999")
    elif what == 3:
        engine.put(space, one, others)
        engine.put(space, other, its)
    else:
        state, _, rest = one.partition(b" ")
        engine.delete(space, one)
        engine.put(space, state[:-1] + b" " + rest, its)


def test_no_exchange_goes_unseen() -> None:
    """Entries that name each other's keys have another sum, whichever two they are."""
    pairs = [(b"state %03d" % number, b"%03d" % number) for number in range(200)]
    for one in range(0, 200, 2):
        (first, its), (second, others) = pairs[one : one + 2]
        assert sum_of([(first, its), (second, others)]) != sum_of([(first, others), (second, its)])
        assert sum_of([(first, its)]) != sum_of([(first + its, b"")])


def test_values_that_know_no_pages() -> None:
    """They are asked for one by one."""
    assert page_of(lambda key, body: ())([["a"]], [b""]) is None
    assert page_of(_Paged())([["a", "b"]], [b"(1, 2)", b"(3, 4)"]) == [(1, 3), (2, 4)]


def test_columns_are_compared_as_a_whole() -> None:
    assert all_equal([(1, 2), ["a", None]], [[1, 2], ("a", None)])
    assert all_equal((), [])
    assert not all_equal([(1, 2)], [(1, 3)])
    assert not all_equal([(1, 2)], [])
