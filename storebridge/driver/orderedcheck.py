"""Index entries against bodies, for `storebridge.driver.ordered`: a page at a time, so that memory
does not grow with the table.

Nearly always all is well, and to look up each entry of each index would take many times as long as
to read them: so first the entries that the bodies call for are compared with those that there are
by a sum over their hashes. Only where those differ does anybody look for what is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from operator import add
from typing import TYPE_CHECKING, Any

from storebridge.driver import keys
from storebridge.driver.contract import Fault, Key, Values, ValuesOf
from storebridge.driver.orderedpages import entry_sums, keys_decoder, sum_of
from storebridge.driver.pages import page_of

if TYPE_CHECKING:
    from storebridge.driver.ordered import Engine
    from storebridge.driver.orderedtable import OrderedIndex, OrderedTable

_PAGE = 500
_BODIES = 250
"""In a page that is looked at column by column: what is made of it is to stay in the cache."""
_ENTRIES = 1000


def faults(engine: Engine[Any], table: OrderedTable[Any], values_of: ValuesOf) -> Iterator[Fault]:
    """See `Transaction.faults`."""
    if not _add_up(engine, table, values_of):
        yield from _named(engine, table, values_of)


def _add_up(engine: Engine[Any], table: OrderedTable[Any], values_of: ValuesOf) -> bool:
    """Whether the indexes hold what the bodies call for, and nothing else."""
    due = [0] * len(table.indexes)
    unreadable: set[bytes] = set()
    values_of_page, keys_of_page = page_of(values_of), keys_decoder(table.declared.key)
    sums = entry_sums(table.declared, [index.declared for index in table.indexes])
    for page in _whole_pages(engine, table.space, _BODIES):
        raws, bodies = zip(*page, strict=True)
        keys = keys_of_page(raws)
        if keys is None:
            return False
        values = values_of_page(keys.columns, bodies)
        if values is None:
            found = list(map(values_of, zip(*keys.columns, strict=True), bodies))
            unreadable.update(raw for raw, each in zip(raws, found, strict=True) if each is None)
            raws = tuple(raw for raw in raws if raw not in unreadable)
            keys = keys_of_page(raws)
            values = list(zip(*filter(None, found), strict=True))
        if raws and keys is not None:
            due = list(map(add, due, sums(raws, keys, values)))
    return all(
        _sum_of(engine, index.space, unreadable) == sum_due
        for index, sum_due in zip(table.indexes, due, strict=True)
    )


def _sum_of(engine: Engine[Any], space: Any, unreadable: Collection[bytes]) -> int:
    """The sum over an index's entries, but for those that name an unreadable body."""
    total = 0
    for page in _whole_pages(engine, space, _ENTRIES):
        if unreadable:
            page = [pair for pair in page if pair[1] not in unreadable]
        total += sum_of(page)
    return total


def _named(engine: Engine[Any], table: OrderedTable[Any], values_of: ValuesOf) -> Iterator[Fault]:
    """What is wrong, entry by entry."""
    for raw, body in _pages(engine, table.space):
        key = _key(table, raw)
        if key is None:
            yield Fault(table.name, None, f"a key that cannot be read: {raw!r}")
            continue
        values = values_of(key, body)
        if values is not None:
            problems = _missing(engine, table, raw, key, values)
            yield from (Fault(table.name, key, problem) for problem in problems)
    for index in table.indexes:
        for entry, raw in _pages(engine, index.space):
            problem = _stray(engine, table, index, entry, raw, values_of)
            if problem is not None:
                yield Fault(table.name, _key(table, raw), f"index {index.name}: {problem}")


def rebuild(engine: Engine[Any], table: OrderedTable[Any], values_of: ValuesOf) -> None:
    """See `Transaction.rebuild`."""
    # Strays first: in a unique index one may sit where a body's own entry belongs.
    for index in table.indexes:
        for entry, raw in _pages(engine, index.space):
            if _stray(engine, table, index, entry, raw, values_of) is not None:
                engine.delete(index.space, entry)
    for raw, body in _pages(engine, table.space):
        key = _key(table, raw)
        values = None if key is None else values_of(key, body)
        if key is not None and values is not None:
            _add_missing(engine, table, raw, key, values)


def forget(engine: Engine[Any], table: OrderedTable[Any], raw: bytes) -> None:
    """Delete the index entries of a key whose values nobody knows, by looking at all of them."""
    for index in table.indexes:
        for entry, named in _pages(engine, index.space):
            if named == raw:
                engine.delete(index.space, entry)


def _add_missing(
    engine: Engine[Any], table: OrderedTable[Any], raw: bytes, key: Key, values: Values
) -> None:
    for index in table.indexes:
        entry = index.entry(key, values)
        # Of two bodies that claim one entry of a unique index, the first keeps it; `faults` goes
        # on reporting the other.
        if entry is not None:
            engine.put_new(index.space, entry, raw)


def _missing(
    engine: Engine[Any], table: OrderedTable[Any], raw: bytes, key: Key, values: Values
) -> Iterator[str]:
    """Which of a body's index entries are not as they should be."""
    for index in table.indexes:
        entry = index.entry(key, values)
        found = raw if entry is None else engine.get(index.space, entry)
        if found is None:
            yield f"index {index.name}: its entry is missing"
        elif found != raw:
            yield f"index {index.name}: its entry names {found!r}"


def _stray(
    engine: Engine[Any],
    table: OrderedTable[Any],
    index: OrderedIndex,
    entry: bytes,
    raw: bytes,
    values_of: ValuesOf,
) -> str | None:
    """What is wrong with an index entry, if its body can be read and says otherwise."""
    body = engine.get(table.space, raw) if raw else None
    if body is None:
        return f"the entry {entry!r} names an entry that is not there"
    key = _key(table, raw)
    values = None if key is None else values_of(key, body)
    if key is None or values is None or index.entry(key, values) == entry:
        return None
    return f"the entry {entry!r} does not belong to it"


def _pages(engine: Engine[Any], space: Any) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of a space. What is deleted meanwhile does no harm: each page is found by key."""
    for page in _whole_pages(engine, space, _PAGE):
        yield from page


def _whole_pages(engine: Engine[Any], space: Any, size: int) -> Iterator[list[tuple[bytes, bytes]]]:
    start = b""
    while True:
        page = engine.items(space, start, None, False, size)
        if page:
            yield page
        if len(page) < size:
            return
        start = keys.after(page[-1][0])


def _key(table: OrderedTable[Any], raw: bytes) -> Key | None:
    """The key, unless it is not what the encoder makes."""
    try:
        key = table.decode(raw)
        if len(key) == 1 and type(key[0]) is str:
            return key  # is its own UTF-8, and the most frequent
        return key if table.encode(key) == raw else None
    except ValueError:
        return None
