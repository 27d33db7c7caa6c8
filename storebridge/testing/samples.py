"""The tables, texts, integers and entries that the suite uses."""

from __future__ import annotations

import json
from typing import Any

from storebridge.driver import Field, Index, Key, Table, Value, Values, View

LAYOUT = 7

ENTRY = Table(
    "suite-entry",
    key=(Field("id"),),
    columns=(
        Field("state"),
        Field("created_at", "integer", time=True),
        Field("node", optional=True),
        Field("size", "integer", optional=True),
        Field("namespace"),
        Field("name", optional=True),
    ),
    indexes=(
        Index("state", ("state", "created_at", "id")),
        Index("created", ("created_at", "id")),
        Index("node", ("node", "created_at", "id")),
        Index("size", ("size", "id")),
        Index("name", ("namespace", "name"), unique=True),
    ),
    view=View("suiteentries", ("id", "state")),
)
PAIR = Table(
    "suite-pair",
    key=(Field("owner"), Field("number", "integer")),
    columns=(Field("sequence", "integer"), Field("label", optional=True)),
    indexes=(
        Index("sequence", ("sequence",), unique=True),
        Index("label", ("label", "owner", "number")),
    ),
)
LABEL = Table("suite-label", key=(Field("name"), Field("value"), Field("id")))
LOG = Table(
    "suite-log",
    key=(Field("number", "integer"),),
    columns=(Field("worker"),),
    indexes=(Index("worker", ("worker", "number")),),
)
TABLES = (ENTRY, PAIR, LABEL, LOG)
BY_NAME = {table.name: table for table in TABLES}

INTEGERS = (-(2**63), -(2**63) + 1, -(2**32), -256, -1, 0, 1, 255, 2**32, 2**63 - 2, 2**63 - 1)

LONGEST_ID = 128
LONGEST_FIELDS = 300


def encoded_size(text: str) -> int:
    """What a text counts for against the limits: each character up to `!` is written as three."""
    return len(text.encode()) + 2 * sum(character <= "!" for character in text)


def longest(character: str, size: int) -> str:
    """As many of this character as the size allows, filled up with `z`."""
    text = character * (size // encoded_size(character))
    return text + "z" * (size - encoded_size(text))


TEXTS = (
    " ",
    "  ",
    "!",
    "! ",
    "!!",
    "!20",
    '"',
    "#",
    "a",
    "a ",
    "a  b",
    "a b",
    "a!",
    "a!b",
    "a!20b",
    'a"',
    "a0",
    "aa",
    "ab",
    "b",
    "A",
    "B",
    "%",
    "_",
    "'",
    "\\",
    "/",
    "0012",
    "12",
    "1e3",
    "nan",
    "null",
    "~",
    "\x01",
    "\x01\x01",
    "a\x01",
    "\x02",
    "\t",
    "\n",
    "\x1f",
    "\x7f",
    "\x80",
    "é",
    "e\u0301",
    "z",
    "éa",
    "ß",
    "中",
    "\ud7ff",
    "\ue000",
    "\ufeff",
    "\ufffd",
    "\uffff",
    "\U00010000",
    "😀",
    "😀a",
    "\U0010ffff",
    "\U0010ffff\U0010ffff",
)
LONG_TEXTS = tuple(longest(character, LONGEST_ID) for character in ("a", "!", "\x01", "é", "😀"))


def body_of(key: Key, values: Values, note: Any = None) -> bytes:
    """A body as the layer above would write it, from which `values_of` reads the values again."""
    members = {"id": key[0], "key": key, "values": values, "note": note}
    if values:
        members["state"] = values[0]
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def values_of(key: Key, body: bytes) -> Values | None:
    return tuple(json.loads(body)["values"])


def entry(
    state: str = "new",
    created_at: int = 0,
    node: str | None = None,
    size: int | None = None,
    namespace: str = "default",
    name: str | None = None,
) -> Values:
    """The values of an entry of the table ENTRY."""
    return (state, created_at, node, size, namespace, name)


def position_of(table: Table, by: str | None, key: Key, values: Values) -> tuple[Value, ...] | None:
    """Where an entry stands in an order; None: it is absent from that index."""
    if by is None:
        return key
    fields = dict(zip((f.name for f in table.key + table.columns), key + values, strict=True))
    index = next(index for index in table.indexes if index.name == by)
    position = tuple(fields[name] for name in index.fields)
    return None if None in position else position


def orders(table: Table) -> tuple[str | None, ...]:
    """The order by key, and the name of each index."""
    return (None, *(index.name for index in table.indexes))


def order_fields(table: Table, by: str | None) -> tuple[Field, ...]:
    """The fields that a position in this order has."""
    if by is None:
        return table.key
    named = {field.name: field for field in table.key + table.columns}
    index = next(index for index in table.indexes if index.name == by)
    return tuple(named[name] for name in index.fields)
