"""An opened location, for tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, TypeVar

import storebridge.database
from storebridge.aio.writer import Writer
from storebridge.errors import StoreClosedError
from storebridge.events import Event
from storebridge.recount import RecountReport
from storebridge.watching import POLL_SECONDS, Watcher

if TYPE_CHECKING:
    from storebridge.compaction.report import CompactionReport
    from storebridge.compaction.retention import Retention

T = TypeVar("T")
_READERS = 4
_AT_ONCE = 100


class Database:
    """Made by `open_database`; used by the tasks of the event loop that opened it."""

    def __init__(self, database: storebridge.database.Database, writer: Writer) -> None:
        self.sync = database
        """The database itself, for what is not here; its calls block."""
        self._writer = writer
        self._pool = _readers()
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
        """A call that changes something and cannot be in a transaction with others, in the writer's
        thread; other writes wait meanwhile."""
        return await self._writer.call(partial(function, *args, **kwargs), alone=True)

    async def read(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A call that only reads, beside the writer."""
        self._writer.check()
        call = partial(function, *args, **kwargs)
        try:
            reading = self._loop.run_in_executor(self._pool, call)
        except RuntimeError:  # it is shut: what was asked for before is being read to its end
            raise StoreClosedError(f"{self.sync.location.text}: the database is closed") from None
        return await reading

    async def beside(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A call that takes its time and writes in transactions of its own, such as `compact`:
        other writes go on between them."""
        return await self.read(function, *args, **kwargs)

    async def compact(
        self, retention: Retention | Iterable[Retention] | None = None, **options: Any
    ) -> CompactionReport:
        """See the database's own; other writes go on meanwhile."""
        return await self.beside(self.sync.compact, retention, **options)

    async def recount(self, **options: Any) -> tuple[RecountReport, ...]:
        """See the database's own; other writes go on meanwhile."""
        return await self.beside(self.sync.recount, **options)

    async def events(
        self, after: int | None = None, *, stores: Iterable[str] | None = None
    ) -> AsyncIterator[Event]:
        """See the database's own."""
        names = None if stores is None else list(stores)
        async for event in iterated(self, await self.read(self.sync.events, after, stores=names)):
            yield event

    async def sequence(self) -> int:
        """See the database's own."""
        return await self.read(self.sync.sequence)

    async def checkpoint(self, name: str) -> int | None:
        """See the database's own."""
        return await self.read(self.sync.checkpoint, name)

    async def set_checkpoint(self, name: str, sequence: int) -> None:
        """See the database's own."""
        await self.write(self.sync.set_checkpoint, name, sequence)

    async def delete_checkpoint(self, name: str) -> None:
        """See the database's own."""
        await self.write(self.sync.delete_checkpoint, name)

    async def watch(
        self,
        after: int | None = None,
        *,
        stores: Iterable[str] | None = None,
        states: Iterable[str] | None = None,
        checkpoint: str | None = None,
    ) -> AsyncIterator[Event]:
        """See the database's own: every event once and in order, and those to come. Without `after`
        it begins where the loop over it does."""
        watcher = Watcher(self.sync, after, stores, states, checkpoint)
        news = asyncio.Event()
        wake = partial(_wake, self._loop, news)
        await self.read(watcher.begin)
        self.sync.on_events(wake)
        try:
            while True:
                news.clear()
                for event in await self.read(watcher.next_events):
                    yield event
                    watcher.note_seen(event)
                if watcher.note_page_seen():
                    await self.write(watcher.save)
                if watcher.at_end:
                    await _wait(news)
        finally:
            self.sync.off_events(wake)
            if watcher.has_progress:
                with suppress(StoreClosedError):
                    await self.write(watcher.save)

    async def close(self) -> None:
        """Do what waits, then close. Again: no-op.

        Calls that were made before come to their ends, reads, too; then it waits as the database's
        own does, and raises what that raises. Unless it is then still open, its threads have ended;
        where the call is cancelled, they do so soon. Close it before its event loop ends: the
        thread of one that is forgotten stays until the process ends.
        """
        if not self._writer.is_closed:
            await self._writer.close(self._close)

    def _close(self) -> None:
        """In the writer's thread."""
        self._pool.shutdown()
        try:
            self.sync.close()
        except BaseException:
            if not self.sync.closed:
                self._pool = _readers()
            raise

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def iterated(database: Database, items: Iterator[T]) -> AsyncIterator[T]:
    """What an iterator that reads yields, some at a time."""
    while some := await database.read(_some, items):
        for item in some:
            yield item


def _some(items: Iterator[T]) -> list[T]:
    return list(islice(items, _AT_ONCE))


def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_READERS, "storebridge reader")


def _wake(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop was closed, and its watchers left where they were
        loop.call_soon_threadsafe(news.set)


async def _wait(news: asyncio.Event) -> None:
    with suppress(TimeoutError):  # another process may have written
        await asyncio.wait_for(news.wait(), POLL_SECONDS)


class InDatabase:
    """What an awaited store is besides: closed with its database, at the end of `async with`."""

    database: Database

    async def close(self) -> None:
        """Close the database, when all that waits is done."""
        await self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
