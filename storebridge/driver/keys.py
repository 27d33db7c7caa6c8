"""Keys as bytes whose order is the order of the fields.

- A single text field is its UTF-8. UTF-8 sorts as code points do.
- Several fields are joined by one space. In their text every character up to `!` is written as `!`
  and two hex digits, so the space that ends a field sorts before anything a longer text goes on
  with.
- An integer is 16 hex digits of its value plus 2**63, so negative ones sort first.

All of it is printable, so that the engine's own tools show keys that people can read.

Encoders and decoders are compiled from generated source, one for each list of fields, as
`collections.namedtuple` does for its constructor: a key is built for every index entry of every
change, and a loop over the fields would cost more than the engine's own work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from storebridge.driver.contract import Field, Index, Key, Position, Table, Values

OFFSET = 2**63
_LOW = re.compile("[\x00-\x20!]")
_ESCAPED = re.compile("!([0-9a-f]{2})")

EncodeKey = Callable[[Key], bytes]
DecodeKey = Callable[[bytes], Position]
EncodeEntry = Callable[[Key, Values], bytes | None]


def join(values: Sequence[str | int], several: bool) -> bytes:
    """Encode these fields. `several`: they belong to a list of more than one.

    With the leading fields of a longer list, this is what every key with these fields starts with,
    but for the space behind them.
    """
    if not several:
        return b"".join(_text(value).encode() for value in values)
    return " ".join(_escaped[_text(value)] for value in values).encode()


def key_encoder(fields: Sequence[Field]) -> EncodeKey:
    """What makes the bytes of a key, or of a position in an index, with these fields."""
    parts = [(f"k[{i}]", field.type) for i, field in enumerate(fields)]
    encode: EncodeKey = _compile(f"lambda k: {_expression(parts)}")
    return encode


def key_decoder(fields: Sequence[Field]) -> DecodeKey:
    """The inverse of `key_encoder`. Raises ValueError for bytes that it cannot have made."""
    if len(fields) == 1:
        single: DecodeKey = _compile(f"lambda raw: ({_parse('raw.decode()', fields[0], '{}')},)")
        return single
    parts = [f"part{i}" for i in range(len(fields))]
    plain = [_parse(part, field, "{}") for part, field in zip(parts, fields, strict=True)]
    careful = [
        _parse(part, field, "unescape({})") for part, field in zip(parts, fields, strict=True)
    ]
    source = (
        f"def decode(raw):\n"
        f"    {', '.join(parts)} = raw.decode().split(' ')\n"
        f"    if b'!' in raw:\n"
        f"        return ({', '.join(careful)})\n"
        f"    return ({', '.join(plain)})\n"
    )
    decode: DecodeKey = _define(source, "decode")
    return decode


class EntrySource(NamedTuple):
    """Source that makes an index entry's bytes, for functions that are generated for a table."""

    expression: str
    present: str
    """The condition on which there is an entry at all; empty: always."""


def entry_source(table: Table, index: Index, values: str) -> EntrySource:
    """Source for an index entry out of the key's fields in the variables `k0`, `k1` … and the
    values in variables that begin with `values`. It runs in the namespace `entry_names`.
    """
    places = {field.name: (f"k{i}", field) for i, field in enumerate(table.key)}
    places |= {field.name: (f"{values}{i}", field) for i, field in enumerate(table.columns)}
    chosen = [places[name] for name in index.fields]
    present = [f"{place} is not None" for place, field in chosen if field.optional]
    expression = _expression([(place, field.type) for place, field in chosen])
    return EntrySource(expression, " and ".join(present))


def entry_encoder(table: Table, index: Index) -> EncodeEntry:
    """What makes an index entry's bytes out of a key and values; None where the entry is absent."""
    expression, present = entry_source(table, index, "v")
    source = (
        f"def encode(key, values):\n"
        f"    {unpacking('k', len(table.key), 'key')}\n"
        f"    {unpacking('v', len(table.columns), 'values')}\n"
        f"    return ({expression}) if {present or True} else None\n"
    )
    encode: EncodeEntry = _define(source, "encode")
    return encode


def unpacking(variable: str, count: int, values: str) -> str:
    """Source that puts the items of a tuple into numbered variables."""
    return f"[{', '.join(f'{variable}{i}' for i in range(count))}] = {values}"


def index_fields(table: Table, index: Index) -> tuple[Field, ...]:
    """The fields that an index names, in its order."""
    fields = {field.name: field for field in table.key + table.columns}
    return tuple(fields[name] for name in index.fields)


class Span(NamedTuple):
    """A stretch of ordered bytes: from `start` on, up to and without `stop`; None: to the end."""

    start: bytes
    stop: bytes | None


def span(
    fields: int,
    prefix: Position,
    lower: str | int | None,
    upper: str | int | None,
) -> Span:
    """Where the keys are that begin with `prefix` and whose next field is within the bounds."""
    several = fields > 1
    head = join(prefix, several)
    if len(prefix) == fields:
        return Span(head, after(head))
    base = head + b" " if prefix else b""
    start = base if lower is None else base + join((lower,), several)
    if upper is not None:
        return Span(start, base + join((upper,), several))
    return Span(start, head + b"!" if prefix else None)


def after(encoded: bytes) -> bytes:
    """The smallest bytes behind these."""
    return encoded + b"\0"


def is_plain(text: str) -> bool:
    """Whether nothing in a text has to be escaped. False for some texts of which that is true."""
    # To look at each character by a pattern takes three times as long as to see that there is none
    # to look for.
    return text.isprintable() and " " not in text and "!" not in text


def escaped(text: str) -> bytes:
    """A text as it stands among several fields."""
    return _escaped[text].encode()


def _expression(parts: Sequence[tuple[str, str]]) -> str:
    """Source that encodes these parts: (source of the value, its type)."""
    if len(parts) == 1:
        place, kind = parts[0]
        return f"{place}.encode()" if kind == "text" else f"b'%016x' % ({place} + {OFFSET})"
    # Nearly always no integer is negative: then its 16 digits need no padding, which would cost
    # more than all the rest.
    joined = " ".join(
        f"{{escaped[{place}]}}" if kind == "text" else f"{{{place} + {OFFSET}:x}}"
        for place, kind in parts
    )
    usual = " and ".join(f"{place} >= 0" for place, kind in parts if kind == "integer")
    encode = f"f'{joined}'.encode()"
    if not usual:
        return encode
    return f"{encode} if {usual} else join(({', '.join(place for place, _ in parts)}), True)"


class _Escaped(dict[str, str]):
    """Text by text: as it is written among several fields.

    One change of a record asks for its id half a dozen times and for a state that a thousand others
    are in, and to look for what must be escaped takes ten times as long as a lookup.
    """

    _MOST = 4096

    def __missing__(self, text: str) -> str:
        if len(self) >= self._MOST:
            self.clear()
        escaped = self[text] = text if is_plain(text) else _LOW.sub(_escape, text)
        return escaped


def _parse(part: str, field: Field, text: str) -> str:
    """Source that makes the value of a field out of its part; `text`: how a text is made."""
    return text.format(part) if field.type == "text" else f"int({part}, 16) - {OFFSET}"


def _text(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value + OFFSET:016x}"


def _escape(match: re.Match[str]) -> str:
    return f"!{ord(match[0]):02x}"


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


_escaped = _Escaped()


def entry_names() -> dict[str, Any]:
    """What generated source may name."""
    return {"join": join, "escaped": _escaped, "unescape": _unescape}


# Tables of a kind have the same keys, and a database may be opened often.
@lru_cache(maxsize=512)
def _compile(source: str) -> Any:
    return eval(source, entry_names())


@lru_cache(maxsize=512)
def _define(source: str, name: str) -> Any:
    namespace = entry_names()
    exec(source, namespace)
    return namespace[name]
