"""Whether two databases hold the same, and where they first differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from storebridge.database import Database
from storebridge.driver import Key, Table
from storebridge.transfer.content import Content, Pages, content_of, differences, tables_of
from storebridge.transfer.digests import Digest, Digester, Tell

What = Literal["missing in A", "missing in B", "body differs", "total differs"]


class Difference(NamedTuple):
    """Where two databases are not the same."""

    table: str
    """Empty for a total: the sequence, or a counter."""
    key: Key
    what: What
    a: int | None = None
    """The total in A; else the length of the body, None where there is none."""
    b: int | None = None


@dataclass(frozen=True)
class Verification:
    """What comparing two databases found."""

    a: str
    b: str
    digest_a: Digest
    digest_b: Digest
    count: int = 0
    """How many differences there are."""
    differences: tuple[Difference, ...] = field(default=())
    """The first of them, by table and key."""

    @property
    def equal(self) -> bool:
        """Whether both hold the same."""
        return not self.count and self.digest_a == self.digest_b


def verify(
    a: Database, b: Database, *, most: int = 10, tell: Tell = lambda entries: None
) -> Verification:
    """Compare what two databases of any backends hold, in bounded memory.

    Each is read in a snapshot of its own. `most`: so many differences are listed; all are counted.
    """
    with content_of(a) as one, content_of(b) as other:
        return compare(one, other, most=most, tell=tell)


def compare(a: Content, b: Content, *, most: int = 10, tell: Tell = lambda _: None) -> Verification:
    """As `verify`, of two contents."""
    walk = _Walk(a, b, tell)
    listed, count = [], 0
    for difference in walk.differences():
        count += 1
        if count <= most:
            listed.append(difference)
    return Verification(a.name, b.name, *walk.digests(), count, tuple(listed))


class _Walk:
    """Both contents, side by side."""

    def __init__(self, a: Content, b: Content, tell: Tell) -> None:
        self._a, self._b = a, b
        self._totals: tuple[dict[str, int], dict[str, int]] = {}, {}
        self._digesters: tuple[dict[str, Digester], dict[str, Digester]] = {}, {}
        self._tell = tell

    def differences(self) -> Iterator[Difference]:
        ours, theirs = _named(self._a), _named(self._b)
        for name in _in_order(self._a, self._b):
            left = self._pages(0, ours.get(name))
            right = self._pages(1, theirs.get(name))
            for key, one, other in differences(left, right):
                lengths = tuple(None if body is None else len(body) for body in (one, other))
                yield Difference(name, key, _what(one, other), *lengths)
        yield from self._of_totals()

    def _pages(self, side: int, table: Table | None) -> Pages:
        if table is None:
            return
        digester = self._digesters[side][table.name] = Digester()
        for rows in (self._a, self._b)[side].pages(table):
            digester.add(rows)
            self._tell(len(rows))
            yield rows

    def _of_totals(self) -> Iterator[Difference]:
        self._totals = ours, theirs = self._a.totals(), self._b.totals()
        for name in sorted({**ours, **theirs}):
            one, other = ours.get(name, 0), theirs.get(name, 0)
            if one != other:
                yield Difference("", (name,), "total differs", one, other)

    def digests(self) -> tuple[Digest, Digest]:
        """Of both, once all differences were asked for."""
        sides = zip(self._digesters, self._totals, strict=True)
        one, other = (Digest({n: d.result() for n, d in of.items()}, t) for of, t in sides)
        return one, other


def _named(content: Content) -> dict[str, Table]:
    return {table.name: table for table in tables_of(content.layouts)}


def _in_order(a: Content, b: Content) -> dict[str, None]:
    """The names of the tables of both, in the order that each has them in."""
    layouts = sorted([*a.layouts, *b.layouts], key=lambda layout: layout.name)
    return dict.fromkeys(table.name for table in tables_of(layouts))


def _what(one: bytes | None, other: bytes | None) -> What:
    if one is None:
        return "missing in A"
    return "missing in B" if other is None else "body differs"
