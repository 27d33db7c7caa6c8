"""Job and execution stores with the same semantics on every storage engine.

from storebridge import Job, open_job_store

with open_job_store("sqlite:///var/lib/node/jobs.db") as jobs:
    job = jobs.create(Job(name="thumbnails", labels={"team": "web"}))
    jobs.set_state(job.id, "Running")
    print(jobs.counts())
"""

from storebridge.canonical import from_json, to_json
from storebridge.compaction.archive import Archived, Archiver, read_archive
from storebridge.compaction.hooks import Removal
from storebridge.compaction.report import CompactionReport
from storebridge.compaction.retention import Retention, parse_retention
from storebridge.database import Database
from storebridge.entries import Change
from storebridge.errors import (
    AmbiguousIdError,
    BackendUnavailableError,
    ConfigurationError,
    ConflictError,
    CorruptStoreError,
    DamagedExportError,
    EventsExpiredError,
    ForeignFileError,
    IncompleteStoreError,
    InvalidQueryError,
    InvalidRecordError,
    KeyNotFoundError,
    LayoutVersionError,
    NewerRecordError,
    ReadOnlyError,
    RecordError,
    RecordExistsError,
    RecordNotFoundError,
    StorageError,
    StorebridgeError,
    StoreClosedError,
    StoreFullError,
    StoreLockedError,
    TransactionError,
    UnknownBackendError,
)
from storebridge.events import Event
from storebridge.executions import EXECUTION, EXECUTION_STATES, Execution, ExecutionStore
from storebridge.expect import Expect
from storebridge.jobs import JOB, JOB_STATES, Job, JobStore
from storebridge.keyvalues import KeyValueStore
from storebridge.locks import Lock
from storebridge.machine import StateMachine
from storebridge.opening import open_database, open_execution_store, open_job_store
from storebridge.owner import Owner, this_process
from storebridge.query import Page
from storebridge.record import Record
from storebridge.recount import RecountReport
from storebridge.recovery import (
    DEFAULT_POLICY,
    Recovered,
    RecoveryAction,
    RecoveryPolicy,
    RecoveryReport,
)
from storebridge.spec import RecordSpec
from storebridge.store import RecordStore, StateChange
from storebridge.twinkeys import Twin, TwinKeyStore

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_POLICY",
    "EXECUTION",
    "EXECUTION_STATES",
    "JOB",
    "JOB_STATES",
    "AmbiguousIdError",
    "Archived",
    "Archiver",
    "BackendUnavailableError",
    "Change",
    "CompactionReport",
    "ConfigurationError",
    "ConflictError",
    "CorruptStoreError",
    "DamagedExportError",
    "Database",
    "Event",
    "EventsExpiredError",
    "Execution",
    "ExecutionStore",
    "Expect",
    "ForeignFileError",
    "IncompleteStoreError",
    "InvalidQueryError",
    "InvalidRecordError",
    "Job",
    "JobStore",
    "KeyNotFoundError",
    "KeyValueStore",
    "LayoutVersionError",
    "Lock",
    "NewerRecordError",
    "Owner",
    "Page",
    "ReadOnlyError",
    "Record",
    "RecordError",
    "RecordExistsError",
    "RecordNotFoundError",
    "RecordSpec",
    "RecordStore",
    "RecountReport",
    "Recovered",
    "RecoveryAction",
    "RecoveryPolicy",
    "RecoveryReport",
    "Removal",
    "Retention",
    "StateChange",
    "StateMachine",
    "StorageError",
    "StoreClosedError",
    "StoreFullError",
    "StoreLockedError",
    "StorebridgeError",
    "TransactionError",
    "Twin",
    "TwinKeyStore",
    "UnknownBackendError",
    "from_json",
    "open_database",
    "open_execution_store",
    "open_job_store",
    "parse_retention",
    "read_archive",
    "this_process",
    "to_json",
]
