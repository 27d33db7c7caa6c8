"""Ranges for engines that are asked in SQL: which comparisons a range comes to."""

from __future__ import annotations

from typing import NamedTuple

from storebridge.driver.contract import Range, Value


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
