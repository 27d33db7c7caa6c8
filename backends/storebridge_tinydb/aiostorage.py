"""A storage for people who use `AIOTinyDB`."""

from __future__ import annotations

import asyncio
import json
import locale
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from aiotinydb.exceptions import DatabaseNotReady
from aiotinydb.storage import AIOStorage

from storebridge_tinydb.sharedfile import LOCK_TIMEOUT, LONGEST_POLL, SharedFile
from storebridge_tinydb.steps import Packed, Rest, decode, encode, pack, unpack

Tables = dict[str, dict[str, Any]]
Result = TypeVar("Result")

_TURN = 0.02
_PAUSE = LONGEST_POLL * 1.2


class AtomicAIOJSONStorage(AIOStorage):
    """`AIOTinyDB(path, storage=AtomicAIOJSONStorage)`: a block takes effect whole or not at all.

    What an `async with` block changed is written, durably, when it ends; if it ends with an
    exception, or is cancelled, the file stays as it was. The file is replaced, as
    `AtomicJSONStorage` does, so it is whole at every moment.

    One block at a time has the file, here and in other processes, whether they use this storage,
    `AtomicJSONStorage` or aiotinydb's own. The others wait, in a thread of their own and in turn;
    they can be cancelled, and after `lock_timeout` seconds get a StoreLockedError that names the
    holder.

    Files, locks and JSON are worked on in that thread, in steps too short to hold up the event
    loop. Within the block TinyDB works on the loop, on a copy in memory. A value that JSON does not
    know is refused when it is inserted or, where memory has a place for it (`bytes`, `set`), at the
    end of the block; a tuple is a list only after the block.

    `AIOTinyDB` keeps a lock of its own that it does not give back where entering or leaving a block
    fails: make a new `AIOTinyDB` then, or one for each block.

    `kwargs` are those of `json.dumps`. Missing folders are made.
    """

    def __init__(
        self,
        filename: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *args: object,
        lock_timeout: float = LOCK_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        self.kwargs = kwargs
        self._path = filename
        self._lock_timeout = lock_timeout
        self._encoding = locale.getpreferredencoding(False)
        self._block: _Block | None = None
        self._snapshot: Packed | None = None
        self._copies: list[Tables] = []
        self._is_changed = False

    async def __aenter__(self) -> AtomicAIOJSONStorage:
        if self._block is not None:
            return self
        deadline = time.monotonic() + self._lock_timeout
        file = SharedFile(self._path)
        turns = _turns_at(str(file.path))
        try:
            async with asyncio.timeout(self._lock_timeout):
                await turns.acquire()
        except TimeoutError:
            raise file.locked_by_other(self._lock_timeout) from None
        # A thread of its own: the loop's default ones may all be waiting for aiotinydb's lock.
        worker = ThreadPoolExecutor(1, "storebridge-tinydb")
        give_up = threading.Event()
        try:
            await turns.give_way()
            left = deadline - time.monotonic()
            loop = asyncio.get_running_loop()
            begin = loop.run_in_executor(worker, self._begin, file, left, give_up)
            self._snapshot, self._copies = await begin
        except BaseException:
            give_up.set()
            worker.submit(file.unlock)  # where the lock was had, but nobody waited for it any more
            worker.shutdown(wait=False)
            turns.release()
            raise
        self._block, self._is_changed = _Block(file, turns, worker), False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if self._block is None:
            return
        block, snapshot = self._block, self._snapshot
        self._block = self._snapshot = None
        if exc_type is not None or not self._is_changed:
            snapshot = None
        try:
            await _to_the_end(block.worker, lambda: self._finish(block.file, snapshot))
        finally:
            block.worker.shutdown(wait=False)
            block.turns.release()

    def read(self) -> Tables | None:
        """What the block sees: its own copy, which TinyDB may change."""
        self._refuse_outside()
        if self._copies and not self._is_changed:
            return self._copies.pop()
        return None if self._snapshot is None else unpack(self._snapshot)

    def write(self, data: Tables) -> None:
        """Keep a copy of what the block has made of it."""
        self._refuse_outside()
        try:
            self._snapshot = pack(data)
        except ValueError:  # a value that only the options for JSON know, if any
            self._snapshot = pack(json.loads(json.dumps(data, **self.kwargs)))
        self._is_changed = True

    def _begin(
        self, file: SharedFile, timeout: float, give_up: threading.Event
    ) -> tuple[Packed | None, list[Tables]]:
        """Lock the file. What it holds, in a form that copies quickly, and the first two copies:
        TinyDB reads twice for the first document that is inserted.
        """
        file.create(folders=True)
        file.lock(timeout, give_up)
        try:
            content = file.read()
            if not content:
                return None, []
            rest = Rest()
            data = decode(content.decode(self._encoding), rest)
            snapshot = pack(data, rest)
            return snapshot, [data, unpack(snapshot, rest)]
        except BaseException:
            file.unlock()
            raise

    def _finish(self, file: SharedFile, snapshot: Packed | None) -> None:
        try:
            self._copies.clear()  # here, as that takes time, too
            if snapshot is not None:
                rest = Rest()
                text = encode(unpack(snapshot, rest), rest, **self.kwargs)
                file.replace(text.encode(self._encoding))
        finally:
            file.unlock()

    def _refuse_outside(self) -> None:
        if self._block is None:
            raise DatabaseNotReady("The file is not open. Use `async with AIOTinyDB(...):`")


async def _to_the_end(worker: ThreadPoolExecutor, function: Callable[[], Result]) -> Result:
    """Call a function in the worker. Cancelling takes effect when the function is done."""
    future = asyncio.get_running_loop().run_in_executor(worker, function)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    result = future.result()
    if cancelled is not None:
        raise cancelled
    return result


class _Turns:
    """Who on this event loop may wait for a file's lock: one at a time, in the order of coming."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self.loop = loop  # so that no later loop has its id
        self._path = path
        self._lock = asyncio.Lock()
        self._began = 0.0

    async def acquire(self) -> None:
        await self._lock.acquire()

    async def give_way(self) -> None:
        """Leave the file's lock free after a long row of blocks.

        Between two of them it is free for so short a time that other processes would hardly ever
        find it so. Now it is until each of them has looked once.
        """
        now = time.monotonic()
        began, ended = _rows.get(self._path, (now, now))
        if now - ended > _PAUSE:
            began = now
        elif now - began > _TURN:
            await asyncio.sleep(_PAUSE)
            began = time.monotonic()
        self._began = began

    def release(self) -> None:
        now = time.monotonic()
        for path, (_, ended) in list(_rows.items()):
            if now - ended > _PAUSE:
                _rows.pop(path, None)
        _rows[self._path] = self._began, now
        self._lock.release()


_all_turns: WeakValueDictionary[tuple[int, str], _Turns] = WeakValueDictionary()
_rows: dict[str, tuple[float, float]] = {}
"""When the present row of blocks on a file began, and when its last one ended."""


def _turns_at(path: str) -> _Turns:
    loop = asyncio.get_running_loop()
    return _all_turns.setdefault((id(loop), path), _Turns(loop, path))


class _Block(NamedTuple):
    file: SharedFile
    turns: _Turns
    worker: ThreadPoolExecutor
