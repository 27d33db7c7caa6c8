"""Opening for asyncio: as `storebridge.open_database` and its kin, without blocking the loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import storebridge
from storebridge.aio.database import Database
from storebridge.aio.stores import ExecutionStore, JobStore
from storebridge.aio.writer import Writer
from storebridge.location import Location

T = TypeVar("T")


async def open_database(location: str | Path | Location, **options: Any) -> Database:
    """See `storebridge.open_database`; takes what that takes."""
    opened = partial(storebridge.open_database, location, **options)
    database, writer = await _opened(str(location), opened)
    return Database(database, writer)


async def open_job_store(location: str | Path | None = None, **options: Any) -> JobStore:
    """See `storebridge.open_job_store`; takes what that takes."""
    store, writer = await _opened("jobs", partial(storebridge.open_job_store, location, **options))
    return JobStore(Database(store.database, writer), store)


async def open_execution_store(
    location: str | Path | None = None, **options: Any
) -> ExecutionStore:
    """See `storebridge.open_execution_store`; takes what that takes."""
    opened = partial(storebridge.open_execution_store, location, **options)
    store, writer = await _opened("executions", opened)
    return ExecutionStore(Database(store.database, writer), store)


async def _opened(name: str, function: Callable[[], T]) -> tuple[T, Writer]:
    """What is opened in the thread that will write, and the thread."""
    writer = Writer(name)
    try:
        return await writer.call(function, alone=True), writer
    except BaseException:
        await writer.close(lambda: None)
        raise
