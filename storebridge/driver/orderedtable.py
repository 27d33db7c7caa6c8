"""A declared table, compiled for `storebridge.driver.ordered`.

What touches the index entries of one table is generated source: which fields an index has is known
when it is declared, and finding it out again for every change would cost as much as the engine's
own work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any, Generic, NamedTuple, TypeVar

from storebridge.driver import keys
from storebridge.driver.contract import DriverError, ErrorKind, Index, Key, Table, Values

S = TypeVar("S")
Get = Callable[[S, bytes], bytes | None]
Put = Callable[[S, bytes, bytes], None]
Delete = Callable[[S, bytes], None]


class OrderedPath(NamedTuple):
    """An order to scan by: its space, how many fields it has, a position as bytes and back."""

    space: Any
    fields: int
    encode: keys.EncodeKey
    decode: keys.DecodeKey


class OrderedIndex(NamedTuple):
    """An index, for those who go through all of a table's."""

    declared: Index
    name: str
    space: Any
    entry: keys.EncodeEntry


@dataclass(frozen=True, slots=True)
class OrderedTable(Generic[S]):
    """What a transaction needs of a table, one attribute access each."""

    declared: Table
    name: str
    space: S
    encode: keys.EncodeKey
    decode: keys.DecodeKey
    indexes: tuple[OrderedIndex, ...]
    paths: Mapping[str | None, OrderedPath]
    add: Callable[[Put[S], bytes, Key, Values], None]
    """Put the index entries of a new table entry."""
    move: Callable[[Put[S], Delete[S], bytes, Key, Values, Values], None]
    """Put and delete the index entries that differ between old and new values."""
    drop: Callable[[Delete[S], Key, Values], None]
    """Delete the index entries of a table entry."""
    clash: Callable[[Get[S], bytes, Key, Values], str | None] | None
    """The unique index where another key has these values; None: the table has no unique index."""

    def path(self, by: str | None) -> OrderedPath:
        """The order of the key, or of the index of this name."""
        path = self.paths.get(by)
        if path is None:
            raise DriverError(
                ErrorKind.READ_ONLY,
                f"table {self.name} has no index {by} yet: open the database for writing once",
            )
        return path


def compile_table(table: Table, space: S, index_spaces: Mapping[str, S | None]) -> OrderedTable[S]:
    """Compile a table that is in these spaces. Indexes without a space are left out: they are not
    in the file, and it cannot be written.
    """
    encode, decode = keys.key_encoder(table.key), keys.key_decoder(table.key)
    paths: dict[str | None, OrderedPath] = {
        None: OrderedPath(space, len(table.key), encode, decode)
    }
    indexes = []
    for index in table.indexes:
        place = index_spaces[index.name]
        if place is None:
            continue
        fields = keys.index_fields(table, index)
        paths[index.name] = OrderedPath(
            place, len(fields), keys.key_encoder(fields), keys.key_decoder(fields)
        )
        indexes.append(OrderedIndex(index, index.name, place, keys.entry_encoder(table, index)))
    present = [index for index in table.indexes if index.name in paths]
    functions = _functions(table, present, index_spaces)
    return OrderedTable(
        table, table.name, space, encode, decode, tuple(indexes), paths, **functions
    )


@lru_cache(maxsize=512)
def _code(source: str) -> CodeType:
    return compile(source, "<table>", "exec")


def _functions(
    table: Table, indexes: Sequence[Index], spaces: Mapping[str, S | None]
) -> dict[str, Any]:
    """The functions that touch a table's index entries.

    For a key of one field and an index over the first column, whose space is `space0`:

        def move(put, delete, encoded, key, old, new):
            [k0] = key
            [o0, o1] = old
            [n0, n1] = new
            if o0 != n0:
                if True:
                    delete(space0, f'{escaped[o0]} {escaped[k0]}'.encode())
                if True:
                    put(space0, f'{escaped[n0]} {escaped[k0]}'.encode(), encoded)
    """
    columns = {field.name: number for number, field in enumerate(table.columns)}
    add, move, drop, clash = "", "", "", ""
    namespace = keys.entry_names()
    for number, index in enumerate(indexes):
        namespace[f"space{number}"] = spaces[index.name]
        old = keys.entry_source(table, index, "o")
        new = keys.entry_source(table, index, "n")
        put = f"if {new.present or True}: put(space{number}, {new.expression}, encoded)\n"
        delete = f"if {old.present or True}: delete(space{number}, {old.expression})\n"
        add += f"    {put}"
        drop += f"    {delete}"
        used = [columns[name] for name in index.fields if name in columns]
        if used:
            changed = " or ".join(f"o{column} != n{column}" for column in used)
            move += f"    if {changed}:\n        {delete}        {put}"
        if index.unique:
            found = f"get(space{number}, {new.expression})"
            clash += f"    if {new.present or True} and {found} not in (None, encoded):\n"
            clash += f"        return {index.name!r}\n"
    key = f"    {keys.unpacking('k', len(table.key), 'key')}\n"
    was = f"    {keys.unpacking('o', len(table.columns), 'old')}\n"
    becomes = f"    {keys.unpacking('n', len(table.columns), 'new')}\n"
    source = (
        f"def add(put, encoded, key, new):\n{key}{becomes}{add}"
        f"def move(put, delete, encoded, key, old, new):\n{key}{was}{becomes}{move}"
        f"def drop(delete, key, old):\n{key}{was}{drop}"
        f"def clash(get, encoded, key, new):\n{key}{becomes}{clash}"
    )
    exec(_code(source), namespace)
    functions = {name: namespace[name] for name in ("add", "move", "drop")}
    return functions | {"clash": namespace["clash"] if clash else None}
