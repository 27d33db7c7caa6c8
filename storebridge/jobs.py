"""Jobs: what was asked for."""

from __future__ import annotations

from typing import Literal

from msgspec import Raw

from storebridge.database import Database
from storebridge.machine import StateMachine
from storebridge.record import Record
from storebridge.spec import RecordSpec
from storebridge.store import RecordStore

JobType = Literal["batch", "ops", "service", "daemon"]

JOB_STATES = StateMachine(
    {
        "Pending": ("Queued", "Running", "Completed", "Failed", "Stopped"),
        "Queued": ("Pending", "Running", "Failed", "Stopped"),
        "Running": ("Pending", "Queued", "Completed", "Failed", "Stopped"),
        "Completed": (),
        "Failed": (),
        "Stopped": (),
    }
)


class Job(Record, kw_only=True, tag=1):
    """What was asked for. A name is unique in its namespace until the job is deleted; a job that is
    given none is called by its id."""

    namespace: str = "default"
    name: str = ""
    type: JobType = "batch"
    priority: int = 0
    labels: dict[str, str] = {}
    meta: dict[str, str] = {}
    spec: Raw = Raw(b"{}")
    """Any JSON, made by `to_json`; kept undecoded until `from_json(job.spec)`."""
    state: str = ""
    message: str = ""
    version: int = 0
    """Counts the updates of what was asked for, from 1; set by the store."""


JOB = RecordSpec(
    name="job",
    type=Job,
    machine=JOB_STATES,
    filters=("state", "type", "namespace"),
    unique=("namespace", "name"),
    default_to_id="name",
    labelled=True,
    versioned=True,
)


class JobStore(RecordStore[Job]):
    """The jobs of a database. Each update makes a version; old versions stay readable."""

    def __init__(self, database: Database, spec: RecordSpec[Job] = JOB) -> None:
        super().__init__(database, spec)
