"""A database of random content that is hard to carry: every edge of every type."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from msgspec import Raw

from storebridge import (
    JOB_STATES,
    Database,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    Record,
    RecordSpec,
    RecordStore,
    to_json,
)
from storebridge.limits import MAX_INDEXED
from storebridge.testing.samples import INTEGERS, LONG_TEXTS, TEXTS, longest
from storebridge.transaction import SEQUENCE, Unit

NOT_JSON = b"\xff\xfe\x00 no JSON,\r\nno UTF-8 \xed\xa0\x80"
"""An event's body that somebody else has written."""
BODIES = (
    {"nul": "\0", "emoji": "😀 \U0010ffff", "line": "a\nb\r\u2028", "quote": '\\"'},
    {"small": -(2**63), "large": 2**63 - 1, "tiny": 5e-324, "huge": 1.7e308, "zero": -0.0},
    {"": [], "a": {}, "deep": [[[[[[[[None]]]]]]]], "text": "0012", "false": False},
    "x" * 20_000,
    None,
)
EPOCHS = (
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
)


class Awkward(Record, kw_only=True):
    """A record with a column of each type, most of which may be absent."""

    place: str | None = None
    size: int | None = None
    at: datetime | None = None
    serial: str = ""
    data: Raw = Raw(b"null")


AWKWARD = RecordSpec(
    name="awkward",
    type=Awkward,
    filters=("place", "size", "at"),
    unique=("serial",),
    default_to_id="serial",
    plural="awkwards",
)
UNUSED = RecordSpec(name="a-never-used", type=Awkward, filters=("at",), plural="never-used-ones")


class Clock:
    """Goes on by itself, in steps of a microsecond to a day."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._now = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        self._now += timedelta(microseconds=self._chance.choice((0, 1, 999_999, 10**6, 10**9)))
        return self._now


def seed() -> str:
    """What random content is drawn from; STOREBRIDGE_SEED sets it."""
    chosen = os.environ.get("STOREBRIDGE_SEED", "1")
    print(f"again with STOREBRIDGE_SEED={chosen}")  # noqa: T201 - shown with a failure
    return chosen


def fill(database: Database, chance: random.Random, changes: int) -> None:
    """Make so many random changes of random records, and put in what nobody would expect."""
    jobs, executions = JobStore(database), ExecutionStore(database)
    awkward = RecordStore(database, AWKWARD)
    RecordStore(database, UNUSED)
    ids = _Ids(chance)
    steps: tuple[Callable[[], object], ...] = (
        lambda: jobs.create(_job(chance, ids.new())),
        lambda: _change_job(jobs, ids.known(), chance),
        lambda: executions.create(Execution(id=ids.new(), job_id=ids.known(), node_id="é ")),
        lambda: awkward.create(_awkward(chance, ids.new())),
        lambda: database.set_checkpoint(chance.choice(TEXTS), chance.choice(INTEGERS)),
    )
    while changes > 0:
        together = min(changes, 200)
        with database.transaction():
            for _ in range(together):
                chance.choices(steps, (4, 6, 3, 4, 1))[0]()
        changes -= together
    database.write(_add_odd_event)


class _Ids:
    """Ids of all kinds, up to the longest: the awkward texts first, then longer ones."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._texts = [*TEXTS, *LONG_TEXTS]
        chance.shuffle(self._texts)
        self._made = [""]

    def new(self) -> str:
        number = str(len(self._made))
        made = self._texts.pop() if self._texts else number
        if not self._texts and self._chance.random() < 0.2:
            made = longest(self._chance.choice("a!é😀"), 128 - len(number)) + number
        self._made.append(made)
        return made

    def known(self) -> str:
        return self._chance.choice(self._made) or "none"


def _job(chance: random.Random, job_id: str) -> Job:
    labels = {chance.choice(TEXTS): chance.choice((*TEXTS, *LONG_TEXTS)) for _ in range(3)}
    return Job(
        id=job_id,
        # With the name, which is the id, it fills a unique index up to what one may hold.
        namespace=chance.choice((*TEXTS, "default")),
        labels=labels if chance.random() < 0.3 else {},
        priority=chance.choice(INTEGERS),
        meta={"note": "\0 😀"},
        spec=to_json(chance.choice(BODIES)),
    )


def _change_job(jobs: JobStore, job_id: str, chance: random.Random) -> None:
    body = jobs.database.get("job", (job_id,))
    if body is None:
        return
    job = jobs.get(job_id)
    following = JOB_STATES.transitions[job.state]
    if following and chance.random() < 0.5:
        jobs.set_state(job_id, chance.choice(following), message="\0 went on 😀")
    elif following:
        jobs.update(job_id, labels={chance.choice(TEXTS): "b"}, priority=chance.choice(INTEGERS))
    elif chance.random() < 0.3:
        jobs.delete(job_id)


def _awkward(chance: random.Random, record_id: str) -> Awkward:
    return Awkward(
        id=record_id,
        place=chance.choice((None, longest("é", MAX_INDEXED - 18), *TEXTS)),
        size=chance.choice((None, *INTEGERS)),
        at=chance.choice((None, *EPOCHS)),
        data=to_json(chance.choice(BODIES)),
    )


def _add_odd_event(unit: Unit) -> None:
    number = unit.engine.tally({SEQUENCE: 1})[SEQUENCE]
    unit.engine.insert("awkward-history", ("nobody's", number), (), NOT_JSON)
