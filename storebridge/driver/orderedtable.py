"""A declared table, compiled for `storebridge.driver.ordered`.

What touches the index entries of one table is generated source: which fields an index has is known
when it is declared, and finding it out again for every change would cost as much as the engine's
own work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from storebridge.driver import keys
from storebridge.driver.contract import DriverError, ErrorKind, Key, Table, Values

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

    name: str
    unique: bool
    columns: tuple[int, ...]
    """Which of the values are in it."""
    space: Any
    entry: keys.EncodeEntry


@dataclass(frozen=True, slots=True)
class OrderedTable(Generic[S]):
    """What a transaction needs of a table, one attribute access each."""

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
    columns = {field.name: number for number, field in enumerate(table.columns)}
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
        used = tuple(columns[name] for name in index.fields if name in columns)
        entry = keys.entry_encoder(table, index)
        indexes.append(OrderedIndex(index.name, index.unique, used, place, entry))
    return OrderedTable(
        table.name, space, encode, decode, tuple(indexes), paths, **_functions(indexes)
    )


def _functions(indexes: Sequence[OrderedIndex]) -> dict[str, Any]:
    """The functions that touch a table's index entries.

    For an index, its space and encoder in `space0` and `entry0`, over the first column:

        def move(put, delete, encoded, key, old, new):
            if old[0] != new[0]:
                if (entry := entry0(key, old)) is not None:
                    delete(space0, entry)
                if (entry := entry0(key, new)) is not None:
                    put(space0, entry, encoded)
    """
    add, move, drop, clash = "", "", "", ""
    namespace: dict[str, Any] = {}
    for number, index in enumerate(indexes):
        namespace |= {f"space{number}": index.space, f"entry{number}": index.entry}
        old = f"if (entry := entry{number}(key, old)) is not None:"
        new = f"if (entry := entry{number}(key, new)) is not None:"
        put, delete = f"put(space{number}, entry, encoded)", f"delete(space{number}, entry)"
        add += f"    {new}\n        {put}\n"
        drop += f"    {old}\n        {delete}\n"
        if index.columns:
            changed = " or ".join(f"old[{column}] != new[{column}]" for column in index.columns)
            move += f"    if {changed}:\n"
            move += f"        {old}\n            {delete}\n        {new}\n            {put}\n"
        if index.unique:
            clash += f"    {new}\n        if get(space{number}, entry) not in (None, encoded):\n"
            clash += f"            return {index.name!r}\n"
    source = (
        f"def add(put, encoded, key, new):\n{add}    return\n"
        f"def move(put, delete, encoded, key, old, new):\n{move}    return\n"
        f"def drop(delete, key, old):\n{drop}    return\n"
        f"def clash(get, encoded, key, new):\n{clash}    return None\n"
    )
    exec(source, namespace)
    functions = {name: namespace[name] for name in ("add", "move", "drop")}
    return functions | {"clash": namespace["clash"] if clash else None}
