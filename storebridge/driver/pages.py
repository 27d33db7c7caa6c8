"""Values of many bodies at once, for drivers that look at every body of a table.

A call for each, and a tuple for each, cost more than reading them: so whoever knows the values may
offer them a page at a time, and column by column, as the loops that the interpreter runs in C need
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from storebridge.driver.contract import Key, Value, Values, ValuesOf

Columns = Sequence[Sequence[Value]]
"""The fields of some entries: for each field what it is in every one of them, in their order."""
PageOf = Callable[[Columns, Sequence[bytes]], Columns | None]


@runtime_checkable
class PagedValues(Protocol):
    """A `ValuesOf` that can be asked for many at once."""

    def __call__(self, key: Key, body: bytes) -> Values | None:
        """See `ValuesOf`."""

    def page(self, keys: Columns, bodies: Sequence[bytes]) -> Columns | None:
        """The values that belong to these bodies. None where they have to be asked for one by one:
        some are unusual, or cannot be read.
        """


def page_of(values_of: ValuesOf) -> PageOf:
    """What gives the values of a page, or None; always None if they can only be asked for one by
    one.
    """
    return values_of.page if isinstance(values_of, PagedValues) else _never


def _never(keys: Columns, bodies: Sequence[bytes]) -> None:
    return None


def all_equal(some: Columns, others: Columns) -> bool:
    """Whether two say the same of the same entries."""
    return len(some) == len(others) and all(
        list(one) == list(other) for one, other in zip(some, others, strict=True)
    )
