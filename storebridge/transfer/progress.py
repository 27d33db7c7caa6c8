"""How far a transfer has come, and what each begins with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from storebridge.database import Database
from storebridge.driver import Range, Transaction
from storebridge.errors import CorruptStoreError
from storebridge.transfer.digests import Tell

Stage = Literal["check", "copy", "verify"]


class Progress(NamedTuple):
    """How far a transfer has come."""

    stage: Stage
    done: int
    """Entries."""
    total: int | None
    """How many there are; None where that is not known before the end."""


Watch = Callable[[Progress], None]


class Counter:
    """Tells whoever watches how far it has come."""

    def __init__(self, source: Database | None, watch: Watch) -> None:
        """`source`: whose entries these are, where they can be counted."""
        self._watch = watch
        self._total = None if source is None else source.read(_count, source)
        self._stage: Stage = "check"
        self._done = 0

    def begin(self, stage: Stage) -> Tell:
        """Begin a stage; what is returned is to be told of its entries."""
        self._stage, self._done = stage, 0
        self._watch(Progress(stage, 0, self._total))
        return self._tell

    def _tell(self, entries: int) -> None:
        self._done += entries
        self._watch(Progress(self._stage, self._done, self._total))


def _count(transaction: Transaction, source: Database) -> int:
    return sum(transaction.count(table.name, Range()) for table in source.tables())


def require_sound(source: Database) -> None:
    """CorruptStoreError where the engine finds its file damaged: what it cannot read any more it
    may pass over in silence."""
    problems = source.engine_check()
    if problems:
        raise CorruptStoreError(
            f"{source.location.text}: damaged, so that entries may be missing: {problems[0]}"
        )
