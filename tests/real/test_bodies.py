"""Specifications, results and documents that other programs wrote: what goes in comes out, to the
last digit.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from storebridge import (
    Database,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    from_json,
    open_database,
    to_json,
)
from storebridge.check import check
from tests.real.data import real_data

BACKENDS = ("memory", "sqlite", "lmdb", "bolt", "tinydb")
BEGAN = datetime(2020, 1, 1, tzinfo=UTC)
DOCUMENTS = (
    "brewblox/brewblox-global.redis.json",
    "brewblox/brewblox-ui-store.datastore.json",
    "brewblox/brewblox-ui-store.redis.json",
    "brewblox/sparkey.spark.json",
    "brewblox/spock.spark.json",
    "de1/20211019T100744.json",
    "jobs/bacalhau-docker-output.json",
)
TEXTS = (
    "de1/20210921T085910.shot",
    "de1/20240202T063530.shot",
    "jobs/bacalhau-docker-s3.yaml",
    "pioreactor/example_data.sql",
)


class Clock:
    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        return self.now

    def set(self, seconds: str) -> datetime:
        self.now = BEGAN + timedelta(seconds=float(seconds))
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Database]:
    location = f"{request.param}://{tmp_path / 'bodies'}?durability=off"
    with open_database(location, clock=clock) as opened:
        yield opened


def rows(name: str) -> list[dict[str, str]]:
    with real_data(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def canonical(value: Any) -> bytes:
    """Canonical JSON by Python's own encoder, for values without floats."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def test_scheduler_rows(database: Database, clock: Clock) -> None:
    """800 rows of a scheduler's log: each as the spec of a job and the result of its execution,
    with the row's own times.
    """
    jobs, executions = JobStore(database), ExecutionStore(database)
    given = rows("jobs/oar_out_jobs.csv")
    times = {}
    with database.transaction():
        for row in given:
            times[row["jobID"]] = _run(jobs, executions, row, clock)
    assert jobs.counts()["Completed"] == len(given) == 800
    for row in given:
        job = jobs.get(row["jobID"])
        assert from_json(job.spec) == row
        assert bytes(job.spec) == canonical(row)
        assert (job.created_at, job.modified_at) == times[row["jobID"]]
        processors = [int(number) for number in row["allocated_processors"].split()]
        (execution,) = executions.find(job_id=job.id)
        assert from_json(execution.result) == {
            "processors": processors,
            "stretch": float(row["stretch"]),
        }
    order = sorted(given, key=lambda row: (float(row["submission_time"]), row["jobID"]))
    assert [job.id for job in jobs.each(limit=99)] == [row["jobID"] for row in order]
    assert list(check(database)) == []


def _run(
    jobs: JobStore, executions: ExecutionStore, row: dict[str, str], clock: Clock
) -> tuple[datetime, datetime]:
    created = clock.set(row["submission_time"])
    job = jobs.create(Job(id=row["jobID"], spec=to_json(row)))
    clock.set(row["starting_time"])
    jobs.set_state(job.id, "Running")
    attempt = executions.create(Execution(job_id=job.id))
    executions.set_state(attempt.id, "Running")
    ended = clock.set(row["finish_time"])
    processors = [int(number) for number in row["allocated_processors"].split()]
    result = to_json({"processors": processors, "stretch": float(row["stretch"])})
    executions.set_state(attempt.id, "Completed", result=result)
    jobs.set_state(job.id, "Completed" if row["success"] == "1" else "Failed")
    return created, ended


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(database: Database, name: str) -> None:
    """A document comes back equal, whether it was given as a value or as its author's text; both
    are stored as the same bytes.
    """
    jobs = JobStore(database)
    text = real_data(name).read_bytes()
    value = json.loads(text)
    by_value = jobs.create(Job(spec=to_json(value)))
    by_text = jobs.create(Job(spec=Raw(text)))
    for job in (jobs.get(by_value.id), jobs.get(by_text.id)):
        assert from_json(job.spec) == value
        assert json.loads(bytes(job.spec)) == value
        assert repr(_sorted(from_json(job.spec))) == repr(_sorted(value))
    assert bytes(jobs.get(by_text.id).spec) == bytes(by_value.spec)
    again = jobs.create(Job(spec=Raw(bytes(by_value.spec))))
    assert bytes(again.spec) == bytes(by_value.spec)


@pytest.mark.parametrize("name", TEXTS)
def test_texts_in_documents(database: Database, name: str) -> None:
    """Text with everything that people put in files: line ends, tabs, braces, quotes."""
    jobs = JobStore(database)
    text = real_data(name).read_bytes().decode()
    job = jobs.create(Job(spec=to_json({"file": text}), message=text[:500]))
    found = jobs.get(job.id)
    assert from_json(found.spec) == {"file": text}
    assert found.message == text[:500]


def test_every_member_of_a_dump(database: Database) -> None:
    """A dump of a whole datastore, a job for each of its documents, found again by what it is."""
    jobs = JobStore(database)
    dump = json.loads(real_data("brewblox/brewblox-ui-store.redis.json").read_bytes())
    with database.transaction():
        for document in dump:
            namespace, name = document["namespace"], document["id"]
            jobs.create(Job(namespace=namespace, name=name, spec=to_json(document)))
    for document in dump:
        job = jobs.get_unique(namespace=document["namespace"], name=document["id"])
        assert from_json(job.spec) == document
    for namespace in {document["namespace"] for document in dump}:
        expected = [d["id"] for d in dump if d["namespace"] == namespace]
        assert jobs.count(namespace=namespace) == len(expected)


def test_readings(database: Database) -> None:
    """Fifteen hours of a sensor, as one result: every float with all its digits."""
    executions = ExecutionStore(database)
    given = [
        [row["timestamp"], float(row["od_reading"]), int(row["angle"])]
        for row in rows("pioreactor/od_readings.csv")
    ]
    attempt = executions.create(Execution(job_id="od", result=to_json(given)))
    found = from_json(executions.get(attempt.id).result)
    assert len(found) == 10_944
    assert repr(found) == repr(given)


def _sorted(value: Any) -> Any:
    """With members in order, so that types and digits can be compared as text."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
