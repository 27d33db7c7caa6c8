"""The stores, awaited: each method is that of the store of the same name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

import storebridge
import storebridge.leases
from storebridge.aio.database import Database, InDatabase, iterated
from storebridge.check import Watch
from storebridge.errors import StorebridgeError
from storebridge.events import Event
from storebridge.executions import Execution
from storebridge.expect import Expect
from storebridge.jobs import Job
from storebridge.owner import Owner
from storebridge.query import Page
from storebridge.record import Record
from storebridge.recount import RecountReport
from storebridge.recovery import DEFAULT_POLICY, Decide, RecoveryPolicy, RecoveryReport
from storebridge.spec import RecordSpec
from storebridge.store import StateChange

R = TypeVar("R", bound=Record)


class RecordStore(InDatabase, Generic[R]):
    """Records of one type in a database, for the tasks of one event loop.

    What the store's own methods promise holds here; nothing blocks the loop. `RecordStore.open`
    makes one for records of your own.
    """

    def __init__(self, database: Database, store: storebridge.RecordStore[R]) -> None:
        self.database = database
        self.sync = store
        """The store itself; its calls block."""

    @classmethod
    async def open(cls, database: Database, spec: RecordSpec[R]) -> RecordStore[R]:
        """The store of a specification in a database, made if it is missing."""
        store = await database.alone(storebridge.RecordStore, database.sync, spec)
        return RecordStore(database, store)

    async def create(self, record: R) -> R:
        return await self.database.write(self.sync.create, record)

    async def create_many(self, records: Iterable[R]) -> list[R | StorebridgeError]:
        return await self.database.write(self.sync.create_many, list(records))

    async def update(self, record_id: str, *, expect: Expect | None = None, **changes: Any) -> R:
        return await self.database.write(self.sync.update, record_id, expect=expect, **changes)

    async def set_state(
        self,
        record_id: str,
        state: str,
        *,
        message: str | None = None,
        expect: Expect | None = None,
        **changes: Any,
    ) -> R:
        return await self.database.write(
            self.sync.set_state, record_id, state, message=message, expect=expect, **changes
        )

    async def set_state_many(self, changes: Iterable[StateChange]) -> list[R | StorebridgeError]:
        return await self.database.write(self.sync.set_state_many, list(changes))

    async def delete(self, record_id: str, *, expect: Expect | None = None) -> None:
        await self.database.write(self.sync.delete, record_id, expect=expect)

    async def discard(self, record_id: str) -> None:
        await self.database.alone(self.sync.discard, record_id)

    async def get(self, record_id: str) -> R:
        return await self.database.read(self.sync.get, record_id)

    async def get_unique(self, **fields: Any) -> R:
        return await self.database.read(self.sync.get_unique, **fields)

    async def versions(self, record_id: str) -> list[R]:
        return await self.database.read(self.sync.versions, record_id)

    async def resolve(self, prefix: str) -> str:
        return await self.database.read(self.sync.resolve, prefix)

    async def find(self, **query: Any) -> Page[R]:
        return await self.database.read(self.sync.find, **query)

    async def each(self, **query: Any) -> AsyncIterator[R]:
        async for record in iterated(self.database, self.sync.each(**query)):
            yield record

    async def live(self) -> AsyncIterator[R]:
        async for record in iterated(self.database, self.sync.live()):
            yield record

    async def count(self, **query: Any) -> int:
        return await self.database.read(self.sync.count, **query)

    async def counts(self) -> dict[str, int]:
        return await self.database.read(self.sync.counts)

    async def quarantined(self) -> AsyncIterator[tuple[str, str]]:
        async for each in iterated(self.database, self.sync.quarantined()):
            yield each

    async def recount(
        self, *, deep: bool = False, repair: bool = False, watch: Watch | None = None
    ) -> RecountReport:
        recount = self.sync.recount
        return await self.database.beside(recount, deep=deep, repair=repair, watch=watch)

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        async for event in self.database.events(after, stores=[self.sync.layout.name]):
            yield event

    async def history(self, record_id: str, *, after: int = 0) -> list[Event]:
        return await self.database.read(self.sync.history, record_id, after=after)

    def watch(
        self,
        after: int | None = None,
        *,
        states: Sequence[str] | None = None,
        checkpoint: str | None = None,
    ) -> AsyncIterator[Event]:
        return self.database.watch(
            after, stores=[self.sync.layout.name], states=states, checkpoint=checkpoint
        )


class LeasedStore(RecordStore[R]):
    """Records that a process holds as their owner."""

    sync: storebridge.leases.LeasedStore[R]

    async def create(self, record: R, *, lease: timedelta | None = None) -> R:
        return await self.database.write(self.sync.create, record, lease=lease)

    async def heartbeat(self, record_id: str, owner: Owner, lease: timedelta) -> R:
        return await self.database.write(self.sync.heartbeat, record_id, owner, lease)


class JobStore(LeasedStore[Job]):
    """The jobs of a database."""

    sync: storebridge.JobStore

    async def claim(self, *args: Any, **kwargs: Any) -> list[Job]:
        return await self.database.write(self.sync.claim, *args, **kwargs)

    async def release(self, record_id: str, **kwargs: Any) -> Job:
        return await self.database.write(self.sync.release, record_id, **kwargs)

    async def recover(self, **kwargs: Any) -> list[Job]:
        return await self.database.alone(self.sync.recover, **kwargs)


class ExecutionStore(LeasedStore[Execution]):
    """The executions of a database."""

    sync: storebridge.ExecutionStore

    async def orphans(self, node_id: str | None = None) -> list[Execution]:
        return await self.database.read(self.sync.orphans, node_id)

    async def recover(
        self,
        policy: RecoveryPolicy | Decide = DEFAULT_POLICY,
        *,
        jobs: JobStore | None = None,
        **kwargs: Any,
    ) -> RecoveryReport:
        its_jobs = None if jobs is None else jobs.sync
        recover = self.sync.recover
        return await self.database.alone(recover, policy, jobs=its_jobs, **kwargs)
