"""The entries of a content whose bodies can be read, and what became of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from storebridge.driver import Key, Rows, Table, Values
from storebridge.errors import CorruptStoreError
from storebridge.transfer.content import Content, Pages, shown
from storebridge.transfer.digests import Digester, Tell
from storebridge.values import values_from_body


class Skipped(NamedTuple):
    """An entry that was left out, as its body cannot be read."""

    table: str
    key: Key


class Readable:
    """Reads contents for whoever needs the values of what is in them."""

    def __init__(self, skip: bool) -> None:
        """`skip`: leave out what cannot be read; else it is a CorruptStoreError."""
        self._skip = skip
        self.left_out: dict[tuple[str, Key], int] = {}
        """What was skipped, by table and key: the hash of the body."""

    def pages(
        self,
        table: Table,
        content: Content,
        digester: Digester,
        note: Callable[[Rows, list[Values]], None],
        tell: Tell,
    ) -> Pages:
        """The entries of a table. Each page goes through the digester, and with the values to
        `note`, before it is returned."""
        values_of = values_from_body(table)
        for rows in content.pages(table):
            found = [values_of(key, body) for key, body in rows]
            kept = rows
            if None in found:
                for (key, body), values in zip(rows, found, strict=True):
                    if values is None:
                        self._note_unreadable(table, key, body, content.name)
                kept = [row for row, values in zip(rows, found, strict=True) if values is not None]
            digester.add(kept)
            if kept:
                note(kept, [values for values in found if values is not None])
                yield kept
            tell(len(rows))

    def _note_unreadable(self, table: Table, key: Key, body: bytes, source: str) -> None:
        if not self._skip:
            raise CorruptStoreError(
                f"{source}: the body of {shown(key)} in table {table.name} cannot be read: mend it"
                " or take it out, or skip what is quarantined; a dry run lists all there is"
            )
        self.left_out[table.name, key] = hash(body)
