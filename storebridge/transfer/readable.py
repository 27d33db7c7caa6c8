"""The entries of a content whose bodies can be read, and what became of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from storebridge.driver import Key, Rows, Table, ValuesOf
from storebridge.driver.pages import Columns
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

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The same, in order."""
        return tuple(Skipped(table, key) for table, key in self.left_out)

    def pages(
        self,
        table: Table,
        content: Content,
        digester: Digester,
        note: Callable[[Rows, Columns], None],
        tell: Tell,
    ) -> Pages:
        """The entries of a table. Each page goes through the digester, and with the values to
        `note`, before it is returned."""
        values_of = values_from_body(table)
        for rows in content.pages(table):
            kept, values = rows, values_of.page((), [body for _, body in rows])
            if values is None:
                kept, values = self._one_by_one(table, rows, values_of, content.name)
            digester.add(kept)
            if kept:
                note(kept, values)
                yield kept
            tell(len(rows))

    def _one_by_one(
        self, table: Table, rows: Rows, values_of: ValuesOf, source: str
    ) -> tuple[Rows, Columns]:
        kept, found = [], []
        for key, body in rows:
            values = values_of(key, body)
            if values is None:
                self._note_unreadable(table, key, body, source)
            else:
                kept.append((key, body))
                found.append(values)
        return kept, list(zip(*found, strict=True))

    def _note_unreadable(self, table: Table, key: Key, body: bytes, source: str) -> None:
        if not self._skip:
            raise CorruptStoreError(
                f"{source}: the body of {shown(key)} in table {table.name} cannot be read: mend it"
                " or take it out, or skip what is quarantined; a dry run lists all there is"
            )
        self.left_out[table.name, key] = hash(body)
