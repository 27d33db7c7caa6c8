"""The thread that writes for an event loop: whatever waits goes into one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from storebridge.database import Database
from storebridge.errors import StoreClosedError

T = TypeVar("T")
_MOST_TOGETHER = 256
_MOST_WAITING = 1024
"""Calls that may wait to be begun; whoever comes then waits to be let in."""


class _Call:
    """A call, the future of its outcome, and whether it must be in no transaction."""

    __slots__ = ("alone", "args", "error", "function", "future", "result")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        future: asyncio.Future[Any],
        alone: bool,
    ) -> None:
        self.function = function
        self.args = args
        self.future = future
        self.alone = alone
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
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

    async def call(self, function: Callable[..., T], *args: Any, alone: bool = False) -> T:
        """Call a function in the thread, in a transaction with others that wait, each undone alone
        if it raises; `alone`: in none. If a transaction cannot be committed its calls are made
        again, one by one.
        """
        if self._closing:
            raise StoreClosedError(f"{self._name}: the database is closed")
        async with self._room:
            call = _Call(function, args, self._loop.create_future(), alone)
            self._calls.put(call)
            return await call.future  # type: ignore[no-any-return]

    def use(self, database: Database) -> None:
        """From now on calls share this database's transactions."""
        self._database = database

    async def close(self, last: Callable[[], None]) -> None:
        """Do what waits, then `last`, and end the thread. Whatever `last` raises is raised, and the
        thread then goes on."""
        await self.call(last, alone=True)
        self._closing = True
        self._calls.put(None)
        while self._thread.is_alive():
            await asyncio.sleep(0.001)

    # --- in the thread ---

    def _work(self) -> None:
        waiting: list[_Call | None] = []
        while True:
            batch = waiting or [self._calls.get()]
            waiting = []
            try:
                while len(batch) < _MOST_TOGETHER:
                    batch.append(self._calls.get_nowait())
            except Empty:
                pass
            together = _until_alone(batch)
            waiting = batch[len(together) or 1 :]
            calls = [call for call in together or batch[:1] if call is not None]
            self._run([call for call in calls if not call.future.cancelled()])
            if batch[0] is None:
                return

    def _run(self, calls: list[_Call]) -> None:
        if len(calls) < 2 or self._database is None:
            for call in calls:
                call.run()
        else:
            self._run_together(self._database, calls)
        if calls:
            with suppress(RuntimeError):  # the loop was closed, nobody waits for the outcome
                self._loop.call_soon_threadsafe(_deliver, calls)

    def _run_together(self, database: Database, calls: list[_Call]) -> None:
        try:
            with database.transaction():
                for call in calls:
                    _run_undoable(database, call)
        except BaseException:
            # One of them, or the commit, took the others along.
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


def _deliver(calls: list[_Call]) -> None:
    for call in calls:
        if call.future.cancelled():
            continue
        if call.error is None:
            call.future.set_result(call.result)
        elif isinstance(call.error, StopIteration):  # a future cannot carry it
            call.future.set_exception(RuntimeError("the call raised StopIteration"))
        else:
            call.future.set_exception(call.error)
