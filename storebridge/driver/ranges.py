"""Ranges for engines that are asked in SQL: which comparisons a range comes to, and the statements
that ask them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from storebridge.driver.contract import Position, Range, Rows, Value


class Bound(NamedTuple):
    """A limit of a range in the direction of its order; `depth`: how many fields it compares."""

    operator: str
    depth: int


class Shape(NamedTuple):
    """What ranges have in common that one statement serves; `equal`: how many fields are equal to
    the prefix.
    """

    by: str | None
    equal: int
    bounds: tuple[Bound, ...]
    reverse: bool


def shape_of(range: Range, depth: int) -> tuple[Shape, list[Value]] | None:
    """The shape of a range over an order of `depth` fields, and its parameters: the prefix, then
    those of each bound. None: the range is empty.

    At most one bound at each end: two at one end would have the engine seek to the one and step
    from there to the other.
    """
    by, prefix, lower, upper, after, _, reverse = range
    equal = len(prefix)
    if after is not None:
        if after[:equal] != prefix:
            if (after[:equal] < prefix) == reverse:
                return None
            after = None
        elif equal == depth:
            return None
    if after is not None:
        near = upper if reverse else lower
        if near is not None and ((after[equal] >= near) if reverse else (after[equal] < near)):  # type: ignore[operator]
            after = None
    bounds: list[Bound] = []
    parameters: list[Value] = list(prefix)
    if after is not None:
        bounds.append(Bound("<" if reverse else ">", depth - equal))
        parameters += after[equal:]
    if lower is not None and (after is None or reverse):
        bounds.append(Bound(">=", 1))
        parameters.append(lower)
    if upper is not None and (after is None or not reverse):
        bounds.append(Bound("<", 1))
        parameters.append(upper)
    return Shape(by, equal, tuple(bounds), reverse), parameters


class Select(NamedTuple):
    """A statement with its parameters, without the limit."""

    sql: str
    parameters: list[Value]


class SqlOrder(NamedTuple):
    """An order of a table: how many fields it has, and where a row that was read has each."""

    depth: int
    places: tuple[int, ...]


class SqlScans(ABC):
    """The scans and counts of one table. A statement is made once for each shape of a range; its
    rows have `width` key fields, the body, and then the other fields of the order."""

    def __init__(self, width: int, orders: Mapping[str | None, SqlOrder]) -> None:
        self._width = width
        self._by = orders
        self._selects: dict[Shape, str] = {}
        self._counts: dict[Shape, str] = {}

    @abstractmethod
    def make_select(self, shape: Shape) -> str:
        """The statement for the ranges of a shape; its last parameter is the limit."""

    @abstractmethod
    def make_count(self, shape: Shape) -> str:
        """The statement that counts them."""

    def rows(self, found: list[tuple[Any, ...]]) -> Rows:
        """Keys and bodies out of the rows of a select."""
        width = self._width
        return [(row[:width], row[width]) for row in found]

    def select(self, range: Range) -> Select | None:
        """The statement for a range, to which the limit is the last parameter; None: the range is
        empty.
        """
        asked = shape_of(range, self._by[range.by].depth)
        if asked is None:
            return None
        shape, parameters = asked
        sql = self._selects.get(shape)
        if sql is None:
            sql = self._selects[shape] = self.make_select(shape)
        return Select(sql, parameters)

    def count(self, range: Range) -> Select:
        """The statement that counts a range."""
        asked = shape_of(range._replace(after=None, reverse=False), self._by[range.by].depth)
        assert asked is not None  # only `after` can make a range empty here
        shape, parameters = asked
        sql = self._counts.get(shape)
        if sql is None:
            sql = self._counts[shape] = self.make_count(shape)
        return Select(sql, parameters)

    def page(self, range: Range, found: list[tuple[Any, ...]]) -> tuple[Rows, Position | None]:
        """What a select found that was asked for one row more than the range's limit, and where to
        go on."""
        position: Position | None = None
        if len(found) > range.limit:
            del found[range.limit :]
            row = found[-1]
            position = tuple([row[place] for place in self._by[range.by].places])
        return self.rows(found), position
