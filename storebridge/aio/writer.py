"""The thread that writes for an event loop: whatever waits goes into one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from storebridge.database import Database
from storebridge.errors import ConfigurationError, StoreClosedError, another

T = TypeVar("T")
_MOST_TOGETHER = 256
_MOST_WAITING = 1024
"""Calls that may wait to be begun; whoever comes then waits to be let in."""


class _Call:
    """A call, the future of its outcome, whether it must be in no transaction, and whether it may
    be the last one."""

    __slots__ = ("alone", "args", "begun", "closes", "error", "function", "future", "result")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        future: asyncio.Future[Any],
        alone: bool,
        closes: bool,
    ) -> None:
        self.function = function
        self.args = args
        self.future = future
        self.alone = alone
        self.closes = closes
        self.begun = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        self.begun = True
        self.error = None
        try:
            self.result = self.function(*self.args)
        except BaseException as error:
            self.error = error


class Writer:
    """Runs calls that write, in the order in which they come, in a thread of its own."""

    def __init__(self, name: str) -> None:
        """For the running event loop."""
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._room = asyncio.Semaphore(_MOST_WAITING)
        self._database: Database | None = None
        self._closing = False
        self._thread = Thread(target=self._work, name=f"storebridge {name}", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Whether `close` has come to its end, or nearly so."""
        return self._closing

    async def call(
        self, function: Callable[..., T], *args: Any, alone: bool = False, closes: bool = False
    ) -> T:
        """Call a function in the thread, in a transaction with others that wait, each undone alone
        if it raises; `alone`: in none. If the commit fails all of them raise its error. If the
        transaction is lost before, by what one of them raised out of the middle of a change, or
        because the engine gave it up for another process's sake, or cannot say which of them has
        failed, they are made again one by one. `closes`: it is the last one, and the thread ends,
        if it does not raise, or closes the database all the same.
        """
        self.check()
        await self._room.acquire()
        try:
            self.check()  # it may have been closed meanwhile, and the thread have ended
            call = _Call(function, args, self._loop.create_future(), alone, closes)
        except BaseException:
            self._room.release()
            raise
        self._calls.put(call)
        return await call.future  # type: ignore[no-any-return]

    def check(self) -> None:
        """StoreClosedError if it was closed or is its parent's, ConfigurationError if the caller
        runs in another event loop: it could not be answered there."""
        if self._closing:
            raise StoreClosedError(f"{self._name}: the database is closed")
        if asyncio.get_running_loop() is not self._loop:
            if self._database is not None:
                self._database._check_open()  # in a forked child it is its parent's
            raise ConfigurationError(
                f"{self._name}: was opened in another event loop; open it in the one that uses it"
            )

    def use(self, database: Database) -> None:
        """From now on calls share this database's transactions."""
        self._database = database
        self._name = database.location.text

    async def close(self, last: Callable[[], None]) -> None:
        """Do what waits, then `last`, and end the thread. Whatever `last` raises is raised; the
        thread goes on if the database is then still open."""
        try:
            await self.call(last, alone=True, closes=True)
        finally:
            while self._closing and self._thread.is_alive():
                await asyncio.sleep(0.001)

    # --- in the thread ---

    def _work(self) -> None:
        waiting: list[_Call | None] = []
        while True:
            batch = waiting or [self._calls.get()]
            waiting = []
            with suppress(Empty):
                while len(batch) < _MOST_TOGETHER:
                    batch.append(self._calls.get_nowait())
            together = _until_alone(batch)
            waiting = batch[len(together) or 1 :]
            calls = [call for call in together or batch[:1] if call is not None]
            self._run([call for call in calls if not call.future.cancelled()])
            if calls:
                with suppress(RuntimeError):  # the loop was closed, nobody waits for the outcome
                    self._loop.call_soon_threadsafe(self._deliver, calls)
            if batch[0] is None:
                return

    def _run(self, calls: list[_Call]) -> None:
        if len(calls) < 2 or self._database is None:
            for call in calls:
                call.run()
        else:
            _run_together(self._database, calls)

    # --- in the loop ---

    @property
    def _is_database_closed(self) -> bool:
        return self._database is not None and self._database.closed

    def _deliver(self, calls: list[_Call]) -> None:
        for call in calls:
            # Only now: of a call that was cancelled, too, the memory was taken up until now.
            self._room.release()
            if call.closes and call.begun and (call.error is None or self._is_database_closed):
                # Here, so that no call comes behind it that the thread would not see.
                self._closing = True
                self._calls.put(None)
            if call.future.cancelled():
                continue
            if call.error is None:
                call.future.set_result(call.result)
            elif isinstance(call.error, StopIteration):  # a future cannot carry it
                call.future.set_exception(RuntimeError("the call raised StopIteration"))
            else:
                call.future.set_exception(call.error)


def _run_together(database: Database, calls: list[_Call]) -> None:
    begun = is_committing = False
    try:
        with database.transaction():
            begun = True
            for call in calls:
                _run_undoable(database, call)
                database.check_transaction()
            is_committing = True
    except BaseException as error:
        # Where it could not begin, as somebody else has the database locked, they have waited.
        if (is_committing or not begun) and not (
            database.lost_a_race(error) or (begun and database.may_be_anothers(error))
        ):
            for call in calls:
                call.error = another(error)
            return
        for call in calls:
            call.run()


def _run_undoable(database: Database, call: _Call) -> None:
    call.error = None
    try:
        with database.transaction():
            call.result = call.function(*call.args)
    except BaseException as error:
        call.error = error


def _until_alone(batch: list[_Call | None]) -> list[_Call | None]:
    for index, call in enumerate(batch):
        if call is None or call.alone:
            return batch[:index]
    return batch
