"""The block of `with database.transaction()`."""

from __future__ import annotations

from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING

from storebridge.transaction import Mark, Unit

if TYPE_CHECKING:
    from storebridge.database import Database

blocks: dict[int, Database] = {}
"""By thread: the database whose `transaction()` it is in."""


class TransactionBlock:
    """The block of `with database.transaction()`."""

    # Of the class, so that they are there wherever an exception out of a signal handler strikes.
    _unit: Unit | None = None
    _mark: Mark | None = None
    _is_left = False

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Database:
        database = self._database
        unit = database._own_unit()
        if unit is None:
            database._check_no_other_block()
            database._turn.check_not_mine()
            try:
                self._unit = unit = database.begin()
                blocks[get_ident()] = database
                unit.busy = False
            except BaseException:
                database.rollback()
                raise
        elif unit.busy:
            raise database._turn.in_between()
        else:
            self._unit = unit
            self._mark = unit.mark()
            unit.keep_undo += 1
        return database

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        unit = self._unit
        if unit is None:
            self._database._check_open()
            return
        if self._mark is not None:
            self._unit = None
            unit.keep_undo -= 1
            if kind is not None and self._database._unit is unit:
                unit.busy = True
                try:
                    unit.undo_to(self._mark)
                finally:
                    unit.busy = False
            return
        unit.busy = True
        try:
            if kind is not None:
                self._database.rollback()
            else:
                self._database.commit(unit)
        finally:
            self._database.rollback()  # what an exception out of a signal handler left
            blocks.pop(get_ident(), None)
            self._unit = None

    def __del__(self) -> None:
        # Such an exception can strike before the first step of `__exit__`; and here, too.
        try:
            if self._unit is not None:
                self._end_if_left(self._unit)
        finally:
            if self._unit is not None:
                self._end_if_left(self._unit)

    def _end_if_left(self, unit: Unit) -> None:
        if self._mark is None and (self._is_left or self._database._own_unit() is unit):
            self._is_left = True
            blocks.pop(get_ident(), None)
            self._database.rollback()
