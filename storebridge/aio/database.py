"""An opened location, for tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import storebridge.database
from storebridge.aio.writer import Writer
from storebridge.events import Event
from storebridge.watching import POLL_SECONDS, Watcher

T = TypeVar("T")
_READERS = 4


class Database:
    """Made by `open_database`; used by the tasks of the event loop that opened it."""

    def __init__(self, database: storebridge.database.Database, writer: Writer) -> None:
        self.sync = database
        """The database itself, for what is not here; its calls block."""
        self._writer = writer
        self._pool = ThreadPoolExecutor(_READERS, "storebridge reader")
        self._loop = asyncio.get_running_loop()
        writer.use(database)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function(*args)` in the writer's thread, as one transaction: all that it changes
        takes effect or nothing. It shares the commit with other calls, and is made again should
        that fail, so it must not do anything else than change this database."""
        return await self._writer.call(self._in_transaction, function, args)

    def _in_transaction(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        with self.sync.transaction():
            return function(*args)

    async def write(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """One method of a store that changes something."""
        return await self._writer.call(partial(function, *args, **kwargs))

    async def alone(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A call that cannot be in a transaction, such as `compact` of the database, in the
        writer's thread; other writes wait meanwhile."""
        return await self._writer.call(partial(function, *args, **kwargs), alone=True)

    async def read(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A call that only reads, beside the writer."""
        call = partial(function, *args, **kwargs)
        return await self._loop.run_in_executor(self._pool, call)

    async def sequence(self) -> int:
        """See the database's own."""
        return await self.read(self.sync.sequence)

    async def checkpoint(self, name: str) -> int | None:
        """See the database's own."""
        return await self.read(self.sync.checkpoint, name)

    async def set_checkpoint(self, name: str, sequence: int) -> None:
        """See the database's own."""
        await self.write(self.sync.set_checkpoint, name, sequence)

    async def watch(
        self,
        after: int | None = None,
        *,
        stores: Iterable[str] | None = None,
        states: Iterable[str] | None = None,
        checkpoint: str | None = None,
    ) -> AsyncIterator[Event]:
        """See the database's own: every event once and in order, and those to come."""
        watcher = Watcher(self.sync, after, stores, states, checkpoint)
        news = asyncio.Event()
        wake = partial(self._loop.call_soon_threadsafe, news.set)
        await self.read(watcher.begin)
        self.sync.on_events(wake)
        try:
            while True:
                news.clear()
                for event in await self.read(watcher.next_events):
                    yield event
                    watcher.note_seen(event)
                if watcher.has_progress:
                    await self.write(watcher.save)
                if watcher.at_end:
                    await _wait(news)
        finally:
            self.sync.off_events(wake)

    async def close(self) -> None:
        """Do what waits, then close."""
        await self._writer.close(self.sync.close)
        self._pool.shutdown(wait=False)

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _wait(news: asyncio.Event) -> None:
    with suppress(TimeoutError):  # another process may have written
        await asyncio.wait_for(news.wait(), POLL_SECONDS)
