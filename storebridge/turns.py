"""Turns of the threads of one process: one of them writes at a time, and what others want to write
meanwhile it may take along."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Lock, RLock, get_ident
from time import perf_counter
from typing import Any, TypeVar

from storebridge.errors import StoreLockedError, TransactionError
from storebridge.statistics import Statistics

logger = logging.getLogger("storebridge")
T = TypeVar("T")
_LOOK = 0.1
"""Seconds after which who waits looks whether it was forgotten: an exception out of a signal
handler may have struck whoever was about to call it."""


class Job:
    """A write that waits for somebody to take it along, or to call its own thread to the turn; or,
    without an operation, a thread that waits for the turn itself."""

    __slots__ = (
        *("args", "called", "error", "is_gone", "may_be_shared", "operation", "ready", "result"),
    )

    def __init__(
        self, operation: Callable[..., Any] | None = None, args: tuple[Any, ...] = ()
    ) -> None:
        self.operation: Any = operation
        self.args = args
        self.result: Any = None
        self.error: BaseException | None = None
        self.may_be_shared = operation is not None
        """Whether somebody else can do it, with writes of his own."""
        self.called = False
        """Whether its thread is to take the turn itself; else, once it is ready, it was done."""
        self.is_gone = False
        """Whether its thread waits no longer."""
        self.ready = Lock()
        self.ready.acquire()

    @property
    def is_waiting(self) -> bool:
        """Whether it may be called, or be done by somebody else."""
        return not self.called and not self.is_gone

    def end(self, error: BaseException | None = None) -> None:
        """Let its thread go on, with this error or the result."""
        self.error = error
        self.ready.release()


class Turn:
    """The right to write, held by one thread at a time, and by all in the order in which they came.

    A lock that knows its owner: an exception out of a signal handler may strike between any two
    steps, and whoever cleans up has to tell how far the interrupted ones had come.
    """

    def __init__(self, name: str, timeout: float, statistics: Statistics) -> None:
        self._name = name
        self._timeout = timeout
        self._statistics = statistics
        self._lock = RLock()
        self._owned: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]
        self._mutex = RLock()  # the line and where its jobs are, for moments
        self.line: deque[Job] = deque()
        """Who waits, first come first: a job a thread, and a thread that waits makes no more of
        them, so it is as long as there are threads."""
        self._expected: set[Job] = set()
        """Whose threads have been called to the turn and have not come yet."""
        self._waiting: set[int] = set()
        """The threads that stand in line."""

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread holds it."""
        return self._owned()

    @property
    def is_busy_here(self) -> bool:
        """Whether the calling thread holds it or waits for it: then what asks is something that
        Python has put in between."""
        return self.is_mine or get_ident() in self._waiting

    def check_not_mine(self) -> None:
        """TransactionError if the calling thread holds it."""
        if self._owned():
            raise self.in_between()

    def in_between(self) -> TransactionError:
        """What to say to who wants to write in the midst of another write of the same thread."""
        return TransactionError(
            f"{self._name}: a write in the midst of another one of this thread, as out of a signal"
            " handler or a finaliser: make a note of it, and write when that one has returned"
        )

    def try_take(self) -> bool:
        """Take the turn if nobody has it or was called to it: whoever writes without a pause must
        not come before those who wait, who would then never share a commit."""
        return not self._expected and self._lock.acquire(blocking=False)

    def take(self) -> None:
        """Wait for the turn. StoreLockedError after the timeout, TransactionError if the thread has
        it or waits for it already."""
        if self._owned():
            raise self.in_between()
        if not self.try_take():
            self.stand_in_line(Job())

    def hold(self, call: Callable[..., T], *args: Any) -> T:
        """Call something while the turn is the thread's. Errors as of `take`.

        The turn is taken within what gives it back: an exception out of a signal handler may strike
        as soon as it is taken. It may also strike while it is given back, so that is done again.
        """
        self.check_not_mine()
        try:
            try:
                self.take()
                return call(*args)
            finally:
                self.give()
        finally:
            if self._owned():
                self.give()

    def give(self) -> None:
        """Let the next thread write, if this one was writing."""
        if self._owned():
            self._lock.release()
            if self.line:
                self._call_next()

    # --- the line ---

    def stand_in_line(self, job: Job) -> bool:
        """Wait until somebody has done the job: False; or until the turn is the caller's, who then
        does it himself: True. StoreLockedError after the timeout, the job is then not done; nor is
        it where the thread stands in line already, which is a TransactionError."""
        thread = get_ident()
        if thread in self._waiting:
            raise self.in_between()  # the turn may be that one's, who cannot come
        started = perf_counter()
        try:
            self._waiting.add(thread)
            with self._mutex:
                self.line.append(job)
            # Whoever had the turn may have given it before he could see the job.
            if self.try_take():
                return self._is_mine_to_do(job)
            is_mine = self._wait(job, started + self._timeout)
            self.note_wait(perf_counter() - started, "another thread")
            return is_mine
        except BaseException:
            self._give_up(job)
            raise
        finally:
            self._waiting.discard(thread)

    def _wait(self, job: Job, deadline: float) -> bool:
        in_line = True
        while not job.ready.acquire(timeout=_LOOK):
            if job.called:
                break
            if self.try_take():
                return self._is_mine_to_do(job)
            if in_line and perf_counter() > deadline:
                in_line = self._leave(job)
                if in_line:
                    self.note_wait(self._timeout, "another thread")
                    raise self._timed_out()
                # Somebody is doing it.
        if job.called:
            self._come(job)
        return job.called

    def _come(self, job: Job) -> None:
        try:
            if not self.is_mine and not self._lock.acquire(timeout=self._timeout):
                raise self._timed_out()
        finally:
            self._note_arrival(job)

    def _note_arrival(self, job: Job) -> None:
        with self._mutex:
            self._expected.discard(job)

    def _is_mine_to_do(self, job: Job) -> bool:
        """For who has the turn: whether the job is still his to do. Else it is done, or whoever
        took it along is between two tries and needs the turn: so it is given back first."""
        in_line = self._leave(job)
        if in_line and not job.called:
            return True
        if not job.called:
            self.give()
            job.ready.acquire()
        if job.called:
            self._come(job)
        return job.called

    def _leave(self, job: Job) -> bool:
        """Whether the job was still in line; it is no more."""
        with self._mutex:
            try:
                self.line.remove(job)
            except ValueError:
                return False
            return True

    def _give_up(self, job: Job) -> None:
        """For a thread that an exception keeps from waiting: nobody is to wait for it."""
        with self._mutex:
            job.is_gone = True
        self._leave(job)
        if job.called:
            self._note_arrival(job)
            self._call_next()

    def take_along(self, most: int) -> list[Job]:
        """The first jobs of the line that somebody else can do, for who has the turn: to be ended,
        each of them, or put back."""
        with self._mutex:
            taken = [job for job in self.line if job.may_be_shared and job.is_waiting]
            del taken[most:]
            for job in taken:
                self.line.remove(job)
        return taken

    def put_back(self, jobs: list[Job]) -> None:
        """Put jobs that were taken along and not done where they came from."""
        with self._mutex:
            self.line.extendleft(reversed(jobs))
        if jobs:
            self._call_next()

    def _call_next(self) -> None:
        # In this order: wherever an exception out of a signal handler strikes, the job is in line
        # yet, or its thread finds that it was called; and nobody is expected who does not come.
        with self._mutex:
            while self.line:
                job = self.line[0]
                if job.is_waiting:
                    job.called = True
                    self._expected.add(job)
                    job.ready.release()
                    self.line.popleft()
                    return
                self.line.popleft()

    def _timed_out(self) -> StoreLockedError:
        return StoreLockedError(
            f"{self._name}: another thread of this process wrote for {self._timeout:g} s"
        )

    def note_wait(self, seconds: float, whom: str) -> None:
        """Count a wait for somebody else's writing; log a long one."""
        self._statistics.lock_waits += 1
        self._statistics.lock_wait_seconds += seconds
        if seconds > self._statistics.slow_after:
            logger.warning("%s: waited %.1f s for %s", self._name, seconds, whom)
