"""The stores for asyncio: the same names, arguments and errors, awaited.

    from storebridge import aio

    async with await aio.open_execution_store("node.db") as executions:
        await executions.set_state(execution_id, "Running")
        settings = await aio.KeyValueStore.open(executions.database, "settings")
        await settings.set("interval", 2.5)
        async for event in executions.watch():
            ...

Writes of all tasks go to one thread, which puts those that are waiting into one transaction and
answers each after the commit that they share. Reads go to a few threads beside it. A call that is
cancelled before it was begun is not done; one that is cancelled later is done all the same.
"""

from storebridge.aio.database import Database
from storebridge.aio.keyvalues import KeyValueStore
from storebridge.aio.locks import Lock
from storebridge.aio.opening import open_database, open_execution_store, open_job_store
from storebridge.aio.stores import ExecutionStore, JobStore, RecordStore

__all__ = [
    "Database",
    "ExecutionStore",
    "JobStore",
    "KeyValueStore",
    "Lock",
    "RecordStore",
    "open_database",
    "open_execution_store",
    "open_job_store",
]
