"""The pace of a long piece of work: small transactions, and time for others between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from storebridge.database import Database

STEP_SECONDS = 0.05
"""What a step takes, its commit included, however much there is left."""
STEP_ENTRIES = 500
_LEAST_SHARE = 0.3
"""Of a step is for its work, however long its commit takes: else a slow disk would see little but
commits."""
_SHORTEST_PAUSE = 0.001
_LONGEST_PAUSE = 0.1
T = TypeVar("T")


class Pace:
    """Takes the writer's turn for a step, and leaves it to others for as long as the step took, a
    tenth of a second at the most: so that they wait for one step, and have half of the time where
    steps are as short as they are meant to be."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._taken = 0.0
        self.longest = 0.0
        """Seconds for which others had to wait at the most."""
        self.allowed = STEP_SECONDS * _LEAST_SHARE
        """Seconds that the next step may work for: what it does is still to be committed, which
        takes as large a share of the whole as it did in the last one."""

    def write(self, operation: Callable[..., T], *args: Any) -> T:
        """As `Database.write`, then a pause."""
        with self._database.transaction():
            self._taken = perf_counter()
            result = self._database.write(operation, *args)
            worked = perf_counter() - self._taken
        share = worked / self._pause()
        self.allowed = STEP_SECONDS * max(_LEAST_SHARE, share)
        return result

    def hold(self, call: Callable[..., T], *args: Any) -> T:
        """Call something that has the turn, and may `breathe`."""
        turn = self._database._turn
        return turn.hold(partial(self._timed, call, *args))

    def _timed(self, call: Callable[..., T], *args: Any) -> T:
        self._taken = perf_counter()
        try:
            return call(*args)
        finally:
            self._note()

    def breathe(self) -> None:
        """Give the turn away, and take it again when others have had time to take it."""
        self._database._turn.give()
        self._pause()
        self._database._turn.take()
        self._taken = perf_counter()

    def _pause(self) -> float:
        """Returns how long others have waited for what was done."""
        held = self._note()
        time.sleep(min(max(held, _SHORTEST_PAUSE), _LONGEST_PAUSE))
        return held

    def _note(self) -> float:
        held = perf_counter() - self._taken
        self.longest = max(self.longest, held)
        return held
