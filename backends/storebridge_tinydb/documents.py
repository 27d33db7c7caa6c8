"""What a table's entry looks like as a TinyDB document:

    {"id": "j-17", "state": "Running", "created_at": 1700000000000000, …, "body": {…}}

the key fields, the columns that are not None, and the body. A body that is compact JSON, as all
bodies of storebridge are, stands there as it is. Tools that write the file anew change its white
space, its escapes and how its numbers are written; from compact JSON alone can be told what it was
before, so any other body is put in quotes: `{"$text": "…"}`, or `{"$base64": "…"}` if it is not
even text. So every body comes back byte for byte, also after TinyDB has written the file.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Raw

from storebridge.driver import Field, Key, Values

BODY = "body"
_MAX_DEPTH = 100
"""Deeper bodies are put in quotes: the file's other readers, too, need stack for each level."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_TYPES: dict[str, Any] = {
    "text": str,
    "integer": Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)],
}
_strings = re.compile(rb'"(?:[^"\\]|\\.)*"')
_brackets = re.compile(rb"[\[\]{}]")


class _Quoted(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    text: str | None = msgspec.field(default=None, name="$text")
    base64: str | None = msgspec.field(default=None, name="$base64")


_decode_quoted = msgspec.json.Decoder(_Quoted).decode


class Row(NamedTuple):
    """A document but for its body, which is kept once, in the table's map."""

    number: int
    """The document id."""
    head: bytes
    """The document up to the body, or all of it if the body is quoted."""
    embedded: bool
    """Whether the body stands in it as it is."""
    extras: bytes
    """Members that somebody else has added, as they are in the text: `,"note":"mine"`."""
    size: int
    """Bytes that it takes in the file."""

    def text(self, body: bytes) -> bytes:
        """The document's JSON."""
        return self.head + body + b"}" if self.embedded else self.head


class Document(NamedTuple):
    """What a document says."""

    key: Key
    values: Values
    body: bytes
    row: Row


class Stranger(ValueError):
    """A document that is no entry of its table, and why."""


class DocumentFormat:
    """Entries with these fields as documents, and back."""

    def __init__(self, key_fields: tuple[Field, ...], columns: tuple[Field, ...]) -> None:
        self._key = [field.name for field in key_fields]
        # Whatever the declaration says: a column that somebody took out is for `check` to report.
        self._columns = {field.name: _TYPES[field.type] | None for field in columns}
        key: list[Any] = [(f"k{n}", _TYPES[field.type]) for n, field in enumerate(key_fields)]
        others: list[Any] = [(f"c{n}", t, None) for n, t in enumerate(self._columns.values())]
        rename = {f"k{n}": name for n, name in enumerate(self._key)}
        rename |= {f"c{n}": name for n, name in enumerate(self._columns)}
        self._places = list(rename)
        self._head = msgspec.defstruct("Head", key + others, rename=rename, omit_defaults=True)
        whole = [*key, (BODY, Raw), *others]
        self._decode: Callable[[Raw | bytes], Any] = msgspec.json.Decoder(
            msgspec.defstruct("Whole", whole, rename=rename, forbid_unknown_fields=True)
        ).decode

    def row(self, number: int, key: Key, values: Values, body: bytes, extras: bytes = b"") -> Row:
        """The document of an entry."""
        return self._row(number, key, values, body, extras, is_compact(body))

    def _row(
        self, number: int, key: Key, values: Values, body: bytes, extras: bytes, embedded: bool
    ) -> Row:
        head = _encode(self._head(*key, *values))[:-1] + extras + b',"body":'
        if not embedded:
            head += _encode(_quote(body)) + b"}"
        size = len(head) + (len(body) + 1 if embedded else 0) + len(f'"{number}":,\n')
        return Row(number, head, embedded, extras, size)

    def parse(self, number: int, text: Raw) -> Document:
        """What a document says. Stranger if it has no key and body as our documents have."""
        try:
            found, extras = self._decode(text), b""
        except (ValueError, RecursionError):
            found, extras = self._parse_slowly(text)
        fields = [getattr(found, place) for place in self._places]
        key, values = tuple(fields[: len(self._key)]), tuple(fields[len(self._key) :])
        if any(type(value) is str and (not value or "\0" in value) for value in key):
            raise Stranger("text in its key is empty or holds NUL")
        body, embedded = _body(found.body)
        return Document(key, values, body, self._row(number, key, values, body, extras, embedded))

    def _parse_slowly(self, text: Raw) -> tuple[Any, bytes]:
        """A document with further members in it, or none of ours."""
        try:
            members = msgspec.json.decode(text, type=dict[str, Raw])
            ours = {name: members.pop(name) for name in (*self._key, BODY) if name in members}
            for name, type_ in self._columns.items():
                if name in members and _is(type_, value := members.pop(name)):
                    ours[name] = value
            found = self._decode(_encode(ours))
        except (ValueError, RecursionError) as error:
            raise Stranger(" ".join(str(error).split())) from None
        extras = b"," + _encode(members)[1:-1] if members else b""
        # A document is one line here: line ends can only stand between its members.
        return found, extras.replace(b"\n", b" ").replace(b"\r", b" ")


format_of = lru_cache(maxsize=512)(DocumentFormat)
"""The format of entries with these key fields and columns."""


def _is(type_: Any, value: Raw) -> bool:
    try:
        msgspec.json.decode(value, type=type_)
    except ValueError:
        return False
    return True


def is_compact(body: bytes) -> bool:
    """Whether a body is JSON in the one form that can be told from any other form of it."""
    return _compact(body) == body and _may_be_embedded(body)


def _compact(text: bytes) -> bytes | None:
    """The compact form of JSON; None for what is none, or cannot be understood."""
    try:
        return _encode(_decode(text))
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None


def _may_be_embedded(body: bytes) -> bool:
    return not body.startswith(b'{"$') and not _is_deep(body)


def _is_deep(body: bytes) -> bool:
    if body.count(b"[") + body.count(b"{") <= _MAX_DEPTH:
        return False
    depth = 0
    for bracket in _brackets.findall(_strings.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _MAX_DEPTH:
            return True
    return False


def _quote(body: bytes) -> _Quoted:
    try:
        return _Quoted(text=body.decode())
    except UnicodeDecodeError:
        return _Quoted(base64=base64.b64encode(body).decode())


def _body(raw: Raw) -> tuple[bytes, bool]:
    """The body that stands in a document, as it was, whoever has written the file since; and
    whether it may stand there as it is.
    """
    text = _compact(bytes(raw))
    if text is None:  # somebody else's, and not for us to understand
        return bytes(raw), False
    if not text.startswith(b'{"$'):
        return text, not _is_deep(text)
    body = _unquote(text)
    return text if body is None else body, False


def _unquote(text: bytes) -> bytes | None:
    try:
        quoted = _decode_quoted(text)
        if quoted.base64 is not None:
            return base64.b64decode(quoted.base64, validate=True)
        return None if quoted.text is None else quoted.text.encode()
    except ValueError:
        return None
