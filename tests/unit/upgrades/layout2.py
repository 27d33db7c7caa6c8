"""A layout 2 that exists only in tests: jobs can be found by version, and every event says in its
body what layout it was written in. Run as a program it opens a database with that layout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec

from storebridge import histories, meta, opening, recordwriter, store
from storebridge.canonical import encoder
from storebridge.driver import Field, Index, Table
from storebridge.events import encode_event
from storebridge.spec import StoreLayout, layout_of
from storebridge.transfer import upgrading
from storebridge.transfer.content import Content, Pages

_MARK = b'"layout":2,'


class Layout2Content:
    """What a database of layout 1 holds, as layout 2 has it."""

    def __init__(self, old: Content) -> None:
        self.name = old.name
        self._old = old
        self._by_name = {table.name: table for each in old.layouts for table in each.tables}
        self.layouts = [with_versions(layout) for layout in old.layouts]

    def pages(self, table: Table) -> Pages:
        old = self._by_name.get(table.name, table)
        for rows in self._old.pages(old):
            if table is meta.META:
                yield [self._store(key, body) for key, body in rows]
            elif table.name.endswith("-history"):
                yield [(key, _marked(body)) for key, body in rows]
            else:
                yield rows

    def _store(self, key: Any, body: bytes) -> tuple[Any, bytes]:
        layout = next((each for each in self.layouts if key[0] == f"store {each.name}"), None)
        return key, body if layout is None else encoder.encode(layout)

    def totals(self) -> dict[str, int]:
        return self._old.totals()


def _marked(body: bytes) -> bytes:
    return b"{" + _MARK + body[1:]


def with_versions(layout: StoreLayout) -> StoreLayout:
    """The table of jobs with a column and an index more."""
    record = layout.record
    if record.name != "job":
        return layout
    table = Table(
        record.name,
        record.key,
        (*record.columns, Field("version", "integer")),
        (*record.indexes, Index("version", ("version", "id"))),
        record.view,
    )
    return msgspec.structs.replace(layout, record=table)


def install(replace: Callable[[object, str, object], None] = setattr) -> None:
    """Make this process one of a storebridge whose layout is 2."""
    replace(meta, "LAYOUT", 2)
    replace(upgrading, "UPGRADES", {1: Layout2Content})
    replace(store, "layout_of", lambda spec: with_versions(layout_of(spec)))
    for module in (recordwriter, histories):
        replace(module, "encode_event", lambda *what, **more: _marked(encode_event(*what, **more)))


if __name__ == "__main__":
    install()
    if sys.argv[1].startswith("postgresql"):
        # Loaded before the word, so that what is behind it is the upgrade.
        import_module("storebridge_sqlalchemy.replacing")
        import_module("storebridge_sqlalchemy.driver")
    print(flush=True)
    opening.open_database(sys.argv[1]).close()
