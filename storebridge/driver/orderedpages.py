"""Keys and index entries of a page of bodies at once, for `storebridge.driver.orderedcheck` and
`storebridge.driver.orderedload`.

Whoever looks at every body of a table spends more on making each of its index entries than the
engine does on reading them. So here nothing is done entry by entry: fields become bytes a column at
a time, and columns become entries, in loops that the interpreter runs in C.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import compress, repeat
from struct import pack, unpack
from typing import Any, NamedTuple

from storebridge.driver import keys
from storebridge.driver.contract import Field, Index, Table, Value
from storebridge.driver.pages import Columns

_DIGITS = 16
_hexadecimal = re.compile("[0-9a-f]*")
_join = b" ".join
_name = b"\0".join

Raws = Sequence[bytes]


class KeyPage(NamedTuple):
    """Keys, field by field, and their fields as the bytes that they are among several; none where
    those were not found on the way."""

    columns: Columns
    pieces: Sequence[Raws]


DecodeKeys = Callable[[Raws], KeyPage | None]
"""Keys out of their bytes; None if one of them is not what the encoder makes."""
Sums = Callable[[Raws, KeyPage, Columns], list[int]]
"""For each index the sum over the entries that bodies with these keys and values are to have in it,
as `sum_of` makes it."""


def sum_of(entries: Iterable[tuple[bytes, bytes]]) -> int:
    """A sum over entries that hardly any others have. (Python's hash of a pair is nearly linear in
    both: when two entries exchange the keys that they name, the sum is often the same.)"""
    return sum(map(hash, map(_name, entries)))


def keys_decoder(fields: Sequence[Field]) -> DecodeKeys:
    """What decodes a page of keys with these fields."""
    width, encode, decode = len(fields), keys.key_encoder(fields), keys.key_decoder(fields)
    integers = [i for i, field in enumerate(fields) if field.type == "integer"]

    def carefully(raws: Raws) -> KeyPage | None:
        found = list(map(decode, raws))
        if list(map(encode, found)) != list(raws):
            return None
        return KeyPage(list(zip(*found, strict=True)), [])

    def texts(raws: Raws) -> KeyPage:
        found = list(map(bytes.decode, raws))  # is its own UTF-8, and the most frequent
        return KeyPage([found], [raws] if keys.is_plain("".join(found)) else [])

    def several(raws: Raws) -> KeyPage | None:
        joined = _join(raws)
        text = joined.decode()
        if not keys.is_plain(text.replace(" ", "")):
            return carefully(raws)
        if set(map(bytes.count, raws, repeat(b" "))) != {width - 1}:
            return None
        parts, pieces = text.split(" "), joined.split(b" ")
        columns: list[Any] = [parts[i::width] for i in range(width)]
        for i in integers:
            columns[i] = _integers(columns[i])
        return KeyPage(columns, [pieces[i::width] for i in range(width)])

    some = several if width > 1 else carefully if integers else texts

    def decode_page(raws: Raws) -> KeyPage | None:
        try:
            return some(raws)
        except ValueError:
            return None

    return decode_page


def entry_sums(table: Table, indexes: Iterable[Index]) -> Sums:
    """What sums up the entries of a page of bodies, by index."""
    fields = table.key + table.columns
    orders = _orders(fields, indexes)

    def sums(raws: Raws, keys: KeyPage, values: Columns) -> list[int]:
        page = _Page(fields, [*keys.columns, *values], keys.pieces, raws)
        return [sum(map(hash, page.entries(order))) for order in orders]

    return sums


EncodeKeys = Callable[[Columns], tuple[list[bytes], KeyPage]]
"""Keys as bytes, and what `entries_maker` needs of them."""
Entries = Callable[[Raws, KeyPage, Columns], list[list[bytes]]]
"""For each index the entries that bodies with these keys and values are to have in it, each with
the key that it names behind a NUL."""


def keys_encoder(fields: Sequence[Field]) -> EncodeKeys:
    """What encodes a page of keys with these fields."""
    makers = [_from_texts if field.type == "text" else _from_integers for field in fields]

    def text(columns: Columns) -> tuple[list[bytes], KeyPage]:
        raws = list(map(str.encode, columns[0]))  # type: ignore[arg-type]
        is_plain = keys.is_plain("".join(columns[0]))  # type: ignore[arg-type]
        return raws, KeyPage(columns, [raws] if is_plain else [])

    def several(columns: Columns) -> tuple[list[bytes], KeyPage]:
        pieces = [make(column) for make, column in zip(makers, columns, strict=True)]
        return list(map(_join, zip(*pieces, strict=True))), KeyPage(columns, pieces)

    return text if [field.type for field in fields] == ["text"] else several


def entries_maker(table: Table, indexes: Iterable[Index]) -> Entries:
    """What makes the entries of a page of bodies, by index."""
    fields = table.key + table.columns
    orders = _orders(fields, indexes)

    def entries(raws: Raws, keys: KeyPage, values: Columns) -> list[list[bytes]]:
        page = _Page(fields, [*keys.columns, *values], keys.pieces, raws)
        return [list(page.entries(order)) for order in orders]

    return entries


def _orders(fields: Sequence[Field], indexes: Iterable[Index]) -> list[tuple[int, ...]]:
    places = {field.name: place for place, field in enumerate(fields)}
    return [tuple(places[name] for name in index.fields) for index in indexes]


class _Page:
    """The fields of a page, and as the bytes that they are in entries, each made once."""

    def __init__(
        self,
        fields: Sequence[Field],
        columns: Sequence[Sequence[Any]],
        pieces: Sequence[Raws],
        raws: Raws,
    ) -> None:
        self._fields = fields
        self._columns = columns
        self._pieces = dict(enumerate(pieces))
        self._raws = raws
        self._named: dict[tuple[int, ...], list[bytes]] = {}

    def entries(self, order: tuple[int, ...]) -> Iterable[bytes]:
        """The entries of an index with these fields, each with the key that it names."""
        entries: Iterable[bytes] = self._entries(order)
        absent = [
            self._columns[place]
            for place in order
            if self._fields[place].optional and None in self._columns[place]
        ]
        if absent:
            return compress(entries, [None not in each for each in zip(*absent, strict=True)])
        return entries

    def _entries(self, order: tuple[int, ...]) -> list[bytes]:
        if len(order) > 1 or self._fields[order[0]].type == "integer":
            return self._ends(order)
        texts = [(text or "").encode() for text in self._columns[order[0]]]
        return list(map(_name, zip(texts, self._raws, strict=True)))

    def _ends(self, order: tuple[int, ...]) -> list[bytes]:
        """What entries end in that end in these fields, with the key that they name. Most indexes
        end in the same ones."""
        named = self._named.get(order)
        if named is None:
            pieces = self._piece(order[0])
            if len(order) == 1:
                named = list(map(_name, zip(pieces, self._raws, strict=True)))
            else:
                named = list(map(_join, zip(pieces, self._ends(order[1:]), strict=True)))
            self._named[order] = named
        return named

    def _piece(self, place: int) -> Raws:
        """A field among several."""
        piece = self._pieces.get(place)
        if piece is None:
            is_text = self._fields[place].type == "text"
            make = _from_texts if is_text else _from_integers
            piece = self._pieces[place] = make(self._columns[place])
        return piece


def _integers(texts: Sequence[str]) -> list[int]:
    """ValueError unless all of them are what `_from_integers` makes."""
    joined = "".join(texts)
    if set(map(len, texts)) != {_DIGITS} or not _hexadecimal.fullmatch(joined):
        raise ValueError("not integers")
    return [each - keys.OFFSET for each in unpack(f">{len(texts)}Q", bytes.fromhex(joined))]


def _from_integers(values: Sequence[Value]) -> list[bytes]:
    """Each of them as it stands in keys; anything for None."""
    if None in values:
        values = [value or 0 for value in values]
    packed = pack(f">{len(values)}Q", *map(keys.OFFSET.__add__, values))  # type: ignore[arg-type]
    return packed.hex(" ", _DIGITS // 2).encode().split()


def _from_texts(texts: Sequence[Any]) -> list[bytes]:
    """Each of them as it stands among several fields; anything for None. What many have in common
    is encoded once."""
    distinct = set(texts)
    if None in distinct:
        distinct.discard(None)
        distinct.add("")
        texts = [text or "" for text in texts]
    encode = str.encode if keys.is_plain("".join(distinct)) else keys.escaped
    if 2 * len(distinct) > len(texts):
        return list(map(encode, texts))
    made = {text: encode(text) for text in distinct}
    return list(map(made.__getitem__, texts))
