"""Recovery and claims, awaited."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from storebridge import ConflictError, Execution, Expect, Job, aio, this_process
from storebridge.testing.stores.holders import NODE, ended

LEASE = timedelta(seconds=30)


@pytest.mark.parametrize("backend", ["sqlite", "lmdb", "bolt", "tinydb"])
def test_awaited(backend: str, tmp_path: Path) -> None:
    """The awaited stores claim, hold, release and recover as the others do; the claims of many
    tasks at once never meet.
    """
    asyncio.run(_claim_hold_and_recover(f"{backend}://{tmp_path}/node?durability=off"))


async def _claim_hold_and_recover(location: str) -> None:
    me = this_process(NODE)
    async with (
        await aio.open_job_store(location) as jobs,
        await aio.open_execution_store(location) as executions,
    ):
        await jobs.create_many(Job(id=f"{number:02}", type="service") for number in range(40))
        claims = await asyncio.gather(*(jobs.claim(3, owner=me, lease=LEASE) for _ in range(20)))
        assert sorted(job.id for part in claims for job in part) == [f"{n:02}" for n in range(40)]
        assert (await jobs.release("00", expect=Expect(owner=me))).state == "Pending"
        assert (await jobs.heartbeat("01", me, 2 * LEASE)).revision == 2
        assert await jobs.recover(node_id=NODE) == []
        lost = await jobs.claim(owner=ended())
        assert await jobs.recover(node_id=NODE, dry_run=True) == lost
        assert [job.state for job in await jobs.recover(node_id=NODE)] == ["Pending"]

        await jobs.release("02")
        await jobs.set_state("02", "Running")
        held = Execution(id="e", job_id="02", state="Running", owner=ended())
        assert (await executions.create(held, lease=LEASE)).lease_until is not None
        with pytest.raises(ConflictError):
            await executions.heartbeat("e", me, LEASE)
        report = await executions.recover(node_id=NODE, jobs=jobs)
        assert [found.job_state for found in report.requeued] == ["Pending"]
