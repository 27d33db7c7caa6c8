"""Locks of a key-value store, awaited."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Self

import storebridge.locks
from storebridge.aio.database import Database
from storebridge.errors import StoreLockedError
from storebridge.owner import Owner
from storebridge.times import Seconds

_SHORTEST_SLEEP, _LONGEST_SLEEP = 0.002, 0.02


class Lock:
    """A lock, made by `KeyValueStore.lock`; for one task. What the lock of the same name promises
    holds here, between tasks, threads, processes and machines; whoever waits blocks nobody."""

    def __init__(self, database: Database, make: Callable[[], storebridge.locks.Lock]) -> None:
        self._database = database
        self._make = make
        self._lock: storebridge.locks.Lock | None = None
        self._background: set[asyncio.Future[None]] = set()
        """What gives it back although nobody waits for that."""

    @property
    def token(self) -> int | None:
        """Greater than those of all who held the lock before; None: not taken."""
        return None if self._lock is None else self._lock.token

    async def owner(self) -> Owner:
        """The process that it is for."""
        return (await self._made()).owner

    async def held(self) -> bool:
        """Whether this still holds it, asked of the database."""
        lock = await self._made()
        return await self._database.read(lambda: lock.held)

    async def acquire(self, timeout: float | None = None) -> int:
        """Wait for the lock and take it; returns the token. StoreLockedError, as the lock's own; at
        once if the task has it already. A task that is cancelled does not have it."""
        lock = await self._made()
        task = asyncio.current_task()
        lock._asks = lambda: task
        deadline = monotonic() + lock._patience(timeout)
        await self._database.read(lock._prepare)
        while (refusal := await self._attempt(lock)) is not None:
            left = deadline - monotonic()
            if left <= 0:
                raise refusal
            await asyncio.sleep(min(left, random.uniform(_SHORTEST_SLEEP, _LONGEST_SLEEP)))
        assert lock.token is not None
        return lock.token

    async def _attempt(self, lock: storebridge.locks.Lock) -> StoreLockedError | None:
        call = asyncio.ensure_future(self._database.alone(lock._try_once))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            call.add_done_callback(partial(self._give_back, lock))
            raise

    def _give_back(
        self, lock: storebridge.locks.Lock, call: asyncio.Future[StoreLockedError | None]
    ) -> None:
        if not call.cancelled() and call.exception() is None and call.result() is None:
            ending = asyncio.ensure_future(self._database.alone(lock._give_up))
            self._background.add(ending)
            ending.add_done_callback(self._background.discard)

    async def renew(self, lease: Seconds | None = None) -> None:
        """Extend the lease from now. ConflictError if this does not hold the lock any more."""
        await self._database.write((await self._made()).renew, lease)

    async def release(self) -> None:
        """Give it back. ConflictError if this does not hold it, or not any more."""
        await self._database.alone((await self._made()).release)

    async def _made(self) -> storebridge.locks.Lock:
        if self._lock is None:
            # The first lock of a store makes their table.
            self._lock = await self._database.alone(self._make)
        return self._lock

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._lock is not None
        ending = asyncio.ensure_future(
            self._database.alone(self._lock.__exit__, type(error), error, None)
        )
        self._background.add(ending)
        ending.add_done_callback(self._background.discard)
        await asyncio.shield(ending)  # also where the task is cancelled meanwhile
