"""Watching: the events of a database as they come, each once and in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Event as Signal
from time import monotonic
from typing import TYPE_CHECKING

from storebridge.errors import ConfigurationError, InvalidQueryError
from storebridge.events import Event

if TYPE_CHECKING:
    from storebridge.database import Database

POLL_SECONDS = 0.25
"""How often is looked for what other processes have written, whether or not it is told of."""
_PAGE = 500
_PASSED_OVER = 500
"""So many events that are not asked for move a checkpoint on: not each, it would cost as many
commits as those cost that made them."""


class Watcher:
    """How far a reader of events has come, and what is next."""

    def __init__(
        self,
        database: Database,
        after: int | None,
        stores: Iterable[str] | None,
        states: Iterable[str] | None,
        checkpoint: str | None,
    ) -> None:
        if after is not None and checkpoint is not None:
            raise ConfigurationError("watch: give either `after` or a checkpoint")
        if isinstance(stores, str) or isinstance(states, str):
            raise InvalidQueryError("watch: stores and states are collections of names")
        self._database = database
        self._after = after
        self._stores = None if stores is None else list(stores)
        self._states = None if states is None else frozenset(states)
        self._checkpoint = checkpoint
        self._saved = 0
        self._seen = 0
        self.at_end = False
        """Whether there was nothing more than what was given last."""

    def begin(self) -> None:
        """Find out where to begin: at the checkpoint, else with what comes from now on; and whether
        there is what is asked for, which would else be waited for in vain."""
        if self._stores is not None or self._states is not None:
            self._check_asked_for()
        if self._checkpoint is not None:
            self._after = self._database.checkpoint(self._checkpoint) or 0
        if self._after is None:
            self._after = self._database.sequence()
        self._saved = self._seen = self._after

    def _check_asked_for(self) -> None:
        layouts = self._database.layouts_of(self._stores)
        known = {state for layout in layouts for state in layout.states}
        for state in self._states or ():
            if state not in known:
                raise InvalidQueryError(
                    f"watch: no record can be in the state {state!r}; there are:"
                    f" {', '.join(sorted(known)) or 'none'}"
                )

    def next_events(self) -> list[Event]:
        """Some of the events behind those that were given, perhaps none. EventsExpiredError where
        some have been removed unread."""
        assert self._after is not None
        found: list[Event] = []
        last = self._database.sequence()
        self.at_end = True
        if last == self._after:
            return found
        for event in self._database.events(self._after, stores=self._stores):
            found.append(event)
            if len(found) == _PAGE:
                self.at_end = False
                break
        # Events that are not asked for need not be looked at again.
        self._after = found[-1].sequence if found else last
        return [event for event in found if self._is_wanted(event)]

    def _is_wanted(self, event: Event) -> bool:
        return self._states is None or event.state in self._states

    def note_seen(self, event: Event) -> None:
        """The reader has done with an event."""
        self._seen = event.sequence

    def note_page_seen(self) -> bool:
        """The reader has done with all that it was given. Whether to save that now: not for the
        sake of a few events that it did not ask for."""
        assert self._after is not None
        if self._seen == self._saved and self._after - self._saved < _PASSED_OVER:
            return False
        self._seen = self._after
        return self.has_progress

    @property
    def has_progress(self) -> bool:
        """Whether the checkpoint is behind what was seen."""
        return self._checkpoint is not None and self._seen > self._saved

    def save(self) -> None:
        """Set the checkpoint to what was seen."""
        assert self._checkpoint is not None
        self._database.set_checkpoint(self._checkpoint, self._seen)
        self._saved = self._seen


def follow(database: Database, watcher: Watcher, timeout: float | None) -> Iterator[Event]:
    """See `Database.watch`. The watcher has begun."""
    news = Signal()
    database.on_events(news.set)
    quiet_since = monotonic()
    try:
        while True:
            database._check_open()
            news.clear()
            for event in watcher.next_events():
                yield event
                watcher.note_seen(event)
                quiet_since = monotonic()
            if watcher.note_page_seen():
                watcher.save()
            if not watcher.at_end:
                continue
            left = POLL_SECONDS
            if timeout is not None:
                left = min(left, quiet_since + timeout - monotonic())
                if left <= 0:
                    return
            # In a child that was forked while this was left, nobody tells, nor gives a lock back.
            database._check_open()
            news.wait(left)
    finally:
        database.off_events(news.set)
        # Where it is the garbage collector that ends this, it may be in the midst of a write of the
        # thread: then some events are met again.
        if watcher.has_progress and not database.closed and not database.is_in_a_write:
            watcher.save()
