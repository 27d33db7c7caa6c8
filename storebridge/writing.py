"""Writing to an opened location: whose turn it is, and the transaction that a thread has begun."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import get_ident, main_thread
from time import perf_counter
from typing import Any, TypeVar

from storebridge import meta
from storebridge.blocks import blocks
from storebridge.driver import (
    Driver,
    DriverError,
    ErrorKind,
    Notifier,
    Pipelined,
    UniqueClash,
)
from storebridge.errors import (
    ConfigurationError,
    ConflictError,
    ReadOnlyError,
    StorebridgeError,
    StoreClosedError,
    another,
)
from storebridge.location import Location
from storebridge.owner import Owner, this_process
from storebridge.reading import Reading
from storebridge.statistics import Statistics
from storebridge.transaction import PipelinedUnit, Unit
from storebridge.turns import Job, Turn

logger = logging.getLogger("storebridge")
_WAITED = 0.001
_WRITE_ATTEMPTS = 5
_MOST_TOGETHER = 256
"""Writes of other threads that share one commit: so many that its cost hardly counts, so few that
the first of them does not wait for long."""
T = TypeVar("T")


class Writing(Reading):
    """The writing half of a database. One thread writes at a time; a step of a write is part of the
    thread's transaction, or a transaction of its own.
    """

    def __init__(self, driver: Driver, location: Location) -> None:
        super().__init__(driver, location)
        self.statistics = Statistics()
        self._turn = Turn(location.text, location.options.lock_timeout, self.statistics)
        self._pipelined = driver if isinstance(driver, Pipelined) else None
        self._opener: Owner | None = None
        # A list, changed in one step: a lock could be held where the garbage collector ends a
        # watcher, or by a thread that a forked child does not have.
        self._listeners: list[Callable[[], object]] = []

    def write(self, operation: Callable[..., T], *args: Any) -> T:
        """Run `operation(unit, *args)` in the thread's transaction, or in one of its own.

        TransactionError in the midst of another write of the thread, as out of a signal handler or
        a finaliser: this one could be acknowledged, and then be undone with that one."""
        unit = self._unit
        if unit is None or unit.thread != get_ident():
            if blocks:
                self._check_no_other_block()
            return self._write_alone(operation, args)
        if unit.busy:
            raise self._turn.in_between()
        unit.busy = True
        try:
            return unit.step(operation, args)  # type: ignore[no-any-return]
        except StorebridgeError:
            raise
        except BaseException as error:
            self._raise(error)
        finally:
            unit.busy = False

    def _write_alone(self, operation: Callable[..., T], args: tuple[Any, ...]) -> T:
        """In a transaction of its own, or in that of the thread which writes at this moment: each
        step is undone alone if it fails, and told of after the one commit that they share."""
        turn = self._turn
        turn.check_not_mine()
        try:
            if turn.try_take():
                return self._lead(operation, args)
            self._check_writable()
            job = Job(operation, args)
            if turn.stand_in_line(job):
                return self._lead(operation, args, along=job.may_be_shared)
        except BaseException:
            self.rollback()  # the turn, where an exception out of a signal handler left it
            raise
        if job.error is not None:
            self._raise(job.error)
        return job.result  # type: ignore[no-any-return]

    def write_apart(self, operation: Callable[..., T], *args: Any) -> T:
        """As `write`, in a transaction that no other write shares: for what counts what is there,
        where a neighbour's records would be seen and their counters not yet."""
        if blocks:
            self._check_no_other_block()
        self._check_writable()
        self._turn.check_not_mine()
        try:
            self._turn.take()
            return self._lead(operation, args, along=False)
        except BaseException:
            self.rollback()
            raise

    @property
    def is_in_a_write(self) -> bool:
        """Whether the thread is in the midst of a write, where a signal handler or a finaliser may
        find it: another one is refused there."""
        unit = self._own_unit()
        return self._turn.is_busy_here if unit is None else unit.busy

    def _lead(self, operation: Callable[..., T], args: tuple[Any, ...], *, along: bool = True) -> T:
        """For who has the turn, which it gives back."""
        attempts = _WRITE_ATTEMPTS
        others: list[Job] = []
        again = self._start
        while True:
            commits = False
            try:
                start, again = again, self.begin  # which takes the turn that was given back
                unit = start()
                result = operation(unit, *args)
                # Signal handlers raise in the main thread, which a fork may change: they must not
                # strike in somebody else's write.
                if along and self._turn.line and get_ident() != main_thread().ident:
                    others += self._turn.take_along(_MOST_TOGETHER - len(others))
                broken = _run(unit, others)
                if broken is None:
                    commits = True
                    self.commit(unit)
                    break
                if attempts > 1 and broken.error is not None and self.lost_a_race(broken.error):
                    attempts -= 1  # nothing is wrong with it: all are done again, as one alone is
                    self.rollback()
                    continue
                # It may have come out of the middle of a change: the transaction is lost, and the
                # others are done again without it.
                self.rollback()
                if self.may_be_anothers(broken.error):
                    along, others = False, self._set_apart(others)
                    continue
                others.remove(broken)
                broken.ready.release()
            except BaseException as error:
                self.rollback()
                attempts -= 1
                if attempts and self.lost_a_race(error):
                    continue
                if others and commits and self.may_be_anothers(error):
                    along, others = False, self._set_apart(others)
                    attempts = _WRITE_ATTEMPTS
                    continue
                if commits:
                    for job in others:
                        job.end(another(error))
                else:
                    self._turn.put_back(others)
                self._raise(error)
        for job in others:
            job.ready.release()
        return result

    def lost_a_race(self, error: BaseException) -> bool:
        """Whether the engine gave a transaction up for another one's sake: nothing of it was kept,
        and the same work may succeed if done again. A caller's own expectation that is not met is
        no such thing."""
        cause = error.__cause__ if isinstance(error, ConflictError) else error
        return cause is not None and self.driver.kind(cause) is ErrorKind.CONFLICT

    def may_be_anothers(self, error: BaseException | None) -> bool:
        """Whether the error of a transaction that several writes share may be that of another one
        than the one that met it: where what was sent before is not answered at once. Nothing of the
        transaction was kept."""
        cause = error.__cause__ if isinstance(error, StorebridgeError) else error
        return self._pipelined is not None and isinstance(cause, DriverError) and not cause.of_all

    def _set_apart(self, jobs: list[Job]) -> list[Job]:
        """Have each of them done alone, by its own thread: so each has the outcome that is its own.
        Returns those that are left."""
        for job in jobs:
            job.error, job.may_be_shared = None, False
        self._turn.put_back(jobs)
        return []

    def _check_no_other_block(self) -> None:
        other = blocks.get(get_ident())
        if other is not None and other is not self:
            raise ConfigurationError(
                f"{self.location.text} cannot take part in a transaction of {other.location.text}:"
                " stores that share one must be at one location"
            )

    def begin(self) -> Unit:
        """Start the thread's write transaction. `write` and `transaction` are its users.

        Whatever it raises, nothing is left begun: also where an exception out of a signal handler
        strikes in the middle.
        """
        self._check_writable()
        try:
            self._turn.take()
            return self._start()
        except BaseException as error:
            self.rollback()
            self._raise(error)

    def _start(self) -> Unit:
        """Start a transaction, for who has the turn and will clean up."""
        self._check_writable()
        unit = self._unit = self._begin_unit()
        if self._opener is None:
            # It rides the first write's commit: an fsync of its own would slow every opening.
            meta.write_opener(unit, this_process())
        return unit

    def _begin_unit(self) -> Unit:
        asked = perf_counter()
        unit: Unit
        try:
            if self._pipelined is None:
                unit = Unit(self.driver.begin(True), asked)
            else:
                unit = PipelinedUnit(self._pipelined.begin_pipelined(), asked)
        finally:
            started = perf_counter()
            if started - asked > _WAITED:
                self._turn.note_wait(started - asked, "another process")
        unit.started = started
        return unit

    def commit(self, unit: Unit) -> None:
        """Commit and end the thread's transaction."""
        if self._unit is not unit:
            raise StoreClosedError(str(self._unusable))
        try:
            unit.commit()
            if self._opener is None:
                self._opener = this_process()
            self.statistics.transactions += 1
            self._end(unit)
        except BaseException as error:
            self.rollback()
            self._raise(error)
        if self._listeners and unit.has_events:
            for listener in tuple(self._listeners):
                listener()

    def on_events(self, listener: Callable[[], object]) -> None:
        """Call `listener()` after each commit of this process that has events, in the thread that
        committed, and, where the engine tells, after those of others. It must be quick and not
        raise."""
        self._listeners.append(listener)
        if isinstance(self.driver, Notifier):
            self.driver.add_listener(listener)

    def off_events(self, listener: Callable[[], object]) -> None:
        """Call it no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if isinstance(self.driver, Notifier):
            self.driver.remove_listener(listener)

    def rollback(self) -> None:
        """Roll back and end what the thread has begun, if anything."""
        if not self._turn.is_mine:
            return
        unit = self._unit
        try:
            if unit is not None:
                self.statistics.rollbacks += 1
                unit.rollback()
        finally:
            self._end(unit)

    def _end(self, unit: Unit | None) -> None:
        try:
            if unit is not None:
                self._note_duration(perf_counter() - unit.started)
        finally:
            self._unit = None
            self._turn.give()

    def _note_duration(self, took: float) -> None:
        statistics = self.statistics
        if took > statistics.longest_transaction_seconds:
            statistics.longest_transaction_seconds = took
        if took > statistics.slow_after:
            statistics.slow_transactions += 1
            logger.warning("%s: a transaction took %.1f s", self.location.text, took)

    def _check_writable(self) -> None:
        if self._unusable is not None:
            raise StoreClosedError(self._unusable)
        if self.read_only:
            raise ReadOnlyError(f"{self.location.text}: opened read-only")
        if self._snapshots and get_ident() in self._snapshots:
            raise ReadOnlyError(f"{self.location.text}: a write inside a snapshot")

    def engine_check(self) -> list[str]:
        problems = super().engine_check()
        if not problems:
            return problems
        if self.is_in_a_write:
            raise self._turn.in_between()
        if self._turn.is_mine:
            return problems
        # A thread may have written while an engine without snapshots looked at its files.
        return self._turn.hold(super().engine_check)


def _run(unit: Unit, jobs: list[Job]) -> Job | None:
    """Do jobs one after the other, each undone alone if it fails. Returns the one, if any, whose
    error leaves it open what it has done."""
    for job in jobs:
        job.error = None
        try:
            job.result = unit.step(job.operation, job.args)
        except (StorebridgeError, UniqueClash) as error:
            job.error = error
        except BaseException as error:
            job.error = error
            return job
    return None
