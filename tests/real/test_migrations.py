"""Real content from backend to backend and back: the trace of a parallel computer, and what brewing
controllers keep. The same digest everywhere, and at the end the same stores.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from storebridge import ExecutionStore, JobStore, KeyValueStore, open_database
from storebridge.check import check
from storebridge.testing.stores.base import contents
from storebridge.transfer.verification import verify
from tests.real.data import real_data
from tests.real.replay import Replay
from tests.real.trace import Trace, read_trace

ROUND = ("lmdb", "bolt", "tinydb", "sqlite+pysqlite", "sqlite")
DUMPS = ("brewblox-global.redis.json", "brewblox-ui-store.redis.json")
JOBS = 400


def round_trip(folder: Path, first: str) -> str:
    """Migrate what is at a location from backend to backend; where it is at last."""
    route = [first, *(f"{name}://{folder}/{i}-round" for i, name in enumerate(ROUND))]
    digests = set()
    for source, target in pairwise(route):
        with open_database(source, read_only=True) as database:
            report = database.migrate_to(f"{target}?durability=off")
        assert (report.complete, report.skipped) == (True, ())
        digests.add(report.digest.sha256)
    assert len(digests) == 1
    with open_database(first, read_only=True) as one, open_database(route[-1]) as other:
        assert verify(one, other).equal
        assert contents(one) == contents(other)
        assert list(check(other)) == []
    return route[-1]


@pytest.fixture(scope="module")
def trace() -> Trace:
    return read_trace(real_data("jobs", "NASA-iPSC-1993-3.1-cln.swf.gz"))


def replayed(trace: Trace, folder: Path) -> str:
    location = f"sqlite://{folder}/trace.db"
    replay = Replay(f"{location}?durability=off", trace)
    for _ in replay.run(trace.steps()):
        pass
    replay.database.close()
    return location


def test_a_part_of_the_trace(trace: Trace, tmp_path: Path) -> None:
    """Its first jobs, with all that happened to them."""
    part = trace._replace(jobs=trace.jobs[:JOBS])
    last = round_trip(tmp_path, replayed(part, tmp_path))
    assert_ended(last, part)


@pytest.mark.attack
@pytest.mark.timeout(900)
def test_the_whole_trace(trace: Trace, tmp_path: Path) -> None:
    """All of it: over 200,000 entries."""
    last = round_trip(tmp_path, replayed(trace, tmp_path))
    assert_ended(last, trace)


def assert_ended(location: str, trace: Trace) -> None:
    with open_database(location) as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        assert jobs.counts()["Completed"] == executions.counts()["Completed"] == len(trace.jobs)
        assert [job.id for job in jobs.each(limit=5000)] == [j.id for j in trace.by_submission()]
        assert database.sequence() == 6 * len(trace.jobs)


def test_brewing_controllers(tmp_path: Path) -> None:
    """Documents by namespace and id, in a key-value store."""
    given: dict[Any, Any] = {
        (document["namespace"], document["id"]): document
        for name in DUMPS
        for document in json.loads(real_data("brewblox", name).read_bytes())
    }
    first = f"sqlite://{tmp_path}/redis.db"
    with open_database(first) as database:
        KeyValueStore(database, "redis").update(given)
    with open_database(round_trip(tmp_path, first)) as database:
        found = KeyValueStore(database, "redis")
        assert {key: json.dumps(value) for key, value in found.items()} == {
            key: json.dumps(document) for key, document in given.items()
        }
