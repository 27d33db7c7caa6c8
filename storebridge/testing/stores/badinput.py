"""Bad input: each is the named error in one line, and every other record is still there."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from msgspec import Raw

from storebridge import (
    ConflictError,
    Database,
    Execution,
    ExecutionStore,
    Expect,
    InvalidRecordError,
    Job,
    JobStore,
    Record,
    RecordSpec,
    RecordStore,
    StorebridgeError,
    to_json,
)
from storebridge.testing.samples import LONG_TEXTS, TEXTS, longest
from storebridge.testing.stores.base import Calls, StoreTests, assert_sound, contents, ids


class Reading(Record, kw_only=True, tag=1):
    """A record with what jobs and executions lack."""

    sensor: str
    value: float = 0.0
    taken_at: datetime | None = None
    repeats: list[datetime] = []
    anything: Any = None


READING = RecordSpec(name="reading", type=Reading, filters=("sensor", "taken_at"))

BAD_JSON = {
    "nan": math.nan,
    "infinity": [1, -math.inf],
    "65-bit": {"a": [2**63]},
    "negative-65-bit": -(2**63) - 1,
    "huge": 2**64,
    "surrogate": {"a": "\ud800"},
    "surrogate-name": {"\udfff": 1},
    "number-name": {1: "a"},
    "set": {1, 2},
    "bytes": b"x",
    "object": object(),
    "time": datetime(2026, 1, 1, tzinfo=UTC),
}
BAD_RAW = {
    "twice": b'{"a":1,"b":{"c":1,"c":2}}',
    "twice-escaped": b'{"a":1,"\\u0061":1}',
    "nan": b"NaN",
    "infinity": b"[Infinity]",
    "overflowing": b"1e999",
    "65-bit": b"9223372036854775808",
    "huge": b'{"a":123456789012345678901234567890}',
    "five-thousand-digits": b"9" * 5000,
    "surrogate": b'"\\ud800"',
    "not-utf-8": b'"\xff"',
    "raw-newline": b'"a\nb"',
    "empty": b"",
    "cut-off": b'{"a":',
    "two": b"1 2",
    "comment": b"{} // x",
    "single-quotes": b"{'a':1}",
    "byte-order-mark": b"\xef\xbb\xbf{}",
}
BAD_IDS: list[Any] = ["a\0b", "\0", "\ud800", "x" * 129, "é" * 65, " " * 43, 5, None, b"x"]


class Colour(enum.StrEnum):
    """States as some services write them."""

    RUNNING = "Running"


@contextmanager
def refused(store: RecordStore[Any], *errors: type[StorebridgeError]) -> Iterator[None]:
    """The block raises one of these errors, in one line, and changes nothing in the database."""
    before = contents(store.database)
    with pytest.raises(errors or InvalidRecordError) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert contents(store.database) == before


class BadInputTests(StoreTests):
    """What no store accepts."""

    @pytest.fixture
    def some_jobs(self, jobs: JobStore) -> JobStore:
        jobs.create(Job(id="j", name="n", labels={"a": "b"}))
        jobs.create(Job(id="k"))
        return jobs

    @pytest.fixture
    def readings(self, database: Database) -> RecordStore[Reading]:
        readings = RecordStore(database, READING)
        readings.create(Reading(id="r", sensor="s"))
        return readings

    @pytest.mark.parametrize("bad", BAD_JSON)
    def test_values_that_json_cannot_hold(self, readings: RecordStore[Reading], bad: str) -> None:
        """What would come back as something else is refused, on its way to JSON and in a field."""
        with pytest.raises(InvalidRecordError) as caught:
            to_json(BAD_JSON[bad])
        assert "\n" not in str(caught.value)
        with refused(readings):
            readings.create(Reading(sensor="s", anything=BAD_JSON[bad]))
        with refused(readings):
            readings.update("r", anything=BAD_JSON[bad])

    @pytest.mark.parametrize("bad", BAD_RAW)
    def test_raw_json_that_is_none(self, some_jobs: JobStore, bad: str) -> None:
        """JSON text of the caller's that is no JSON, names a member twice or is out of range."""
        for spec in (Raw(BAD_RAW[bad]), BAD_RAW[bad]):
            with refused(some_jobs):
                some_jobs.create(Job(id="new", spec=spec))  # type: ignore[arg-type]
            with refused(some_jobs):
                some_jobs.update("j", spec=spec)
            with refused(some_jobs):
                some_jobs.set_state("j", "Running", spec=spec)

    def test_deep_json(self, some_jobs: JobStore) -> None:
        """JSON that is nested too deeply to be read everywhere is refused; a hundred levels not."""
        good = to_json(_nested(100))
        assert some_jobs.update("j", spec=good).spec == good
        for depth in (101, 500, 5_000, 200_000):
            with refused(some_jobs):
                some_jobs.update("j", spec=Raw(b"[" * depth + b"]" * depth))
            with pytest.raises(InvalidRecordError, match="deep"):
                to_json(_nested(min(depth, 5_000)))

    @pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
    def test_ids(self, some_jobs: JobStore, bad: Any) -> None:
        """What cannot be an id on every engine is none on any: NUL, too long, no text."""
        with refused(some_jobs):
            some_jobs.create(Job(id=bad))
        for call in (
            some_jobs.get,
            some_jobs.update,
            some_jobs.delete,
            some_jobs.history,
            some_jobs.versions,
            some_jobs.discard,
        ):
            with refused(some_jobs, InvalidRecordError, LookupError):  # type: ignore[arg-type]
                call(bad)
        with refused(some_jobs, InvalidRecordError, LookupError):  # type: ignore[arg-type]
            some_jobs.set_state(bad, "Running")

    def test_an_empty_id(self, some_jobs: JobStore) -> None:
        """An empty id asks for a new one in a record, and is refused where a record is meant."""
        for call in (
            some_jobs.get,
            some_jobs.update,
            some_jobs.delete,
            some_jobs.history,
            some_jobs.resolve,
        ):
            with refused(some_jobs):
                call("")

    @pytest.mark.parametrize("text", [*TEXTS, *LONG_TEXTS], ids=ascii)
    def test_awkward_ids(self, some_jobs: JobStore, text: str) -> None:
        """Any other text is an id, a name, a namespace, a label and a value, exactly."""
        labels = {text: text}
        made = some_jobs.create(
            Job(id=text, namespace=text, labels=labels, meta={text: text + "\0"})
        )
        assert some_jobs.get(text) == made
        assert (made.id, made.name, made.labels) == (text, text, labels)
        assert ids(some_jobs.find(namespace=text)) == [text]
        assert some_jobs.resolve(text) == text
        assert some_jobs.set_state(text, "Failed", message=text).message == text
        assert [event.record_id for event in some_jobs.history(text)] == [text, text]
        some_jobs.delete(text)
        assert_sound(some_jobs.database)

    @pytest.mark.parametrize(
        "bad", ["a\0b", "\ud800", "x" * 301, "é" * 200, 5, b"x", ["x"]], ids=ascii
    )
    def test_indexed_text(self, some_jobs: JobStore, executions: ExecutionStore, bad: Any) -> None:
        """Text that no index could hold is refused in every indexed field."""
        for name in ("name", "namespace"):
            with refused(some_jobs):
                some_jobs.create(Job(**{name: bad}))
            with refused(some_jobs):
                some_jobs.update("j", **{name: bad})
        for name in ("job_id", "node_id", "namespace"):
            with refused(executions):
                executions.create(Execution(**{"job_id": "j", name: bad}))
        for empty in ("namespace", "job_id", "node_id"):
            with refused(executions):
                executions.create(Execution(**cast(Any, {"job_id": "j", empty: ""})))
        with refused(some_jobs):
            some_jobs.create(Job(labels={"a": bad}))
        with refused(some_jobs):
            some_jobs.update("j", labels={bad: "a"} if isinstance(bad, str) else bad)

    def test_the_longest_fields(self, some_jobs: JobStore) -> None:
        """Unique fields as long as is allowed together are kept and found."""
        for character in ("a", "!", "é", "😀"):
            name, space = longest(character, 149), longest(character, 149)
            some_jobs.create(Job(name=name, namespace=space))
            assert some_jobs.get_unique(name=name, namespace=space).name == name
        assert_sound(some_jobs.database)

    @pytest.mark.parametrize(
        "changes",
        [
            {"priority": "1"},
            {"priority": 1.5},
            {"priority": 2**63},
            {"priority": None},
            {"type": "bach"},
            {"labels": None},
            {"labels": {"a": 1}},
            {"labels": {"a": ""}},
            {"labels": {"": "a"}},
            {"labels": {1: "a"}},
            {"labels": [("a", "b")]},
            {"meta": {"a": "\ud800"}},
            {"spec": {}},
            {"spec": None},
            {"message": 5},
            {"name": None},
        ],
        ids=str,
    )
    def test_wrong_types(self, some_jobs: JobStore, changes: dict[str, Any]) -> None:
        """A value of the wrong type or range is refused by name wherever it comes in."""
        (name,) = changes
        with refused(some_jobs):
            some_jobs.create(Job(**changes))
        with refused(some_jobs):
            some_jobs.update("j", **changes)
        with pytest.raises(InvalidRecordError, match=name[:-1]):
            some_jobs.set_state("j", "Running", **changes)
        assert_sound(some_jobs.database)

    @pytest.mark.parametrize(
        "name", ["id", "revision", "created_at", "modified_at", "state", "version", "nonsense"]
    )
    def test_fields_of_the_store(self, some_jobs: JobStore, name: str) -> None:
        """Fields that the store sets, and ones that there are none of, cannot be changed."""
        with refused(some_jobs):
            some_jobs.update("j", **cast(Any, {name: "x"}))
        if name not in ("state",):
            with refused(some_jobs):
                some_jobs.set_state("j", "Running", **cast(Any, {name: "x"}))

    @pytest.mark.parametrize("record", [None, "j", {}, Execution(job_id="j"), Job, lambda: None])
    def test_records_of_another_type(self, some_jobs: JobStore, record: Any) -> None:
        """Only records of the store's type are taken."""
        with refused(some_jobs):
            some_jobs.create(record)

    @pytest.mark.parametrize("state", ["Runing", "", "running", None, 5, ["Running"], {}])
    def test_unknown_states(self, some_jobs: JobStore, state: Any) -> None:
        """A state that the machine does not know is refused, and the known ones are named."""
        with refused(some_jobs):
            some_jobs.set_state("j", state)
        with pytest.raises(InvalidRecordError, match="Pending, Queued"):
            some_jobs.set_state("j", state)
        if state != "":
            with refused(some_jobs):
                some_jobs.create(Job(state=state))

    def test_states_of_an_enumeration(self, some_jobs: JobStore) -> None:
        """A member of a StrEnum is the text that it stands for."""
        after = some_jobs.set_state("j", Colour.RUNNING)
        assert type(after.state) is str
        assert some_jobs.get("j") == after
        assert ids(some_jobs.find(state=Colour.RUNNING)) == ["j"]
        assert_sound(some_jobs.database)

    @pytest.mark.parametrize("message", [5, b"x", "\ud800", ["x"]], ids=ascii)
    def test_messages(self, some_jobs: JobStore, message: Any) -> None:
        """A message is text."""
        with refused(some_jobs):
            some_jobs.set_state("j", "Running", message=message)

    def test_stale_revisions(self, some_jobs: JobStore) -> None:
        """A change on top of a revision that is no longer current is refused."""
        some_jobs.update("j", priority=1)
        with refused(some_jobs, ConflictError):
            some_jobs.update("j", priority=2, expect=Expect(revision=1))

    def test_expectations_that_are_none(self, some_jobs: JobStore) -> None:
        """What cannot be expected is refused as such, and the caller's transaction goes on."""
        wrong: list[dict[str, Any]] = [
            {"states": 5},
            {"states": "Running"},
            {"not_states": b"x"},
            {"revision": "1"},
            {"revision": True},
        ]
        for given in wrong:
            with refused(some_jobs):
                Expect(**given)
        changes: Calls = (
            lambda: some_jobs.update("j", expect=cast(Any, {"revision": 1}), priority=1),
            lambda: some_jobs.set_state("j", "Running", expect=cast(Any, 1)),
            lambda: some_jobs.delete("j", expect=cast(Any, "Pending")),
            lambda: some_jobs.update("j", expect=Expect(states=[cast(Any, [])]), priority=1),
        )
        with some_jobs.database.transaction():
            for change in changes:
                with pytest.raises(InvalidRecordError, match=r"expect|state"):
                    change()
            some_jobs.update("j", expect=Expect(states=["Pending"], revision=1), priority=2)
        assert (some_jobs.get("j").priority, some_jobs.get("j").revision) == (2, 2)

    def test_a_state_is_no_field_to_update(self, some_jobs: JobStore) -> None:
        """Who tries is told what to call."""
        with pytest.raises(InvalidRecordError, match=r"set_state\(\)"):
            some_jobs.update("j", state="Running")

    def test_stores_without_states(self, readings: RecordStore[Reading]) -> None:
        """Where records have no states, what speaks of states is refused in words."""
        with refused(readings):
            readings.set_state("r", "Running")
        with refused(readings):
            readings.update("r", value=1.0, expect=Expect(states=["Running"]))
        assert readings.counts() == {"": 1}
        assert [reading.id for reading in readings.live()] == ["r"]
        readings.update("r", value=2.0, expect=Expect(revision=1))
        readings.delete("r")
        assert readings.count() == 0
        assert_sound(readings.database)

    def test_times(self, readings: RecordStore[Reading]) -> None:
        """A time without a zone, or beyond the calendar once in UTC, is refused; others come back
        as the same instant, in lists too.
        """
        east = timezone(timedelta(hours=14))
        for bad in (datetime(2026, 1, 1), datetime.min.replace(tzinfo=east), "2026-01-01", 5):
            with refused(readings):
                readings.create(Reading(sensor="s", taken_at=bad))  # type: ignore[arg-type]
        moment = datetime(2026, 1, 1, 12, tzinfo=east)
        made = readings.update("r", taken_at=moment, repeats=[moment.astimezone(UTC)])
        assert made == readings.get("r")
        assert made.taken_at == made.repeats[0] == moment
        assert ids(readings.find(taken_at=moment)) == ["r"]
        for edge in (datetime.min, datetime.max):
            moment = edge.replace(tzinfo=UTC)
            assert readings.update("r", taken_at=moment).taken_at == moment
            assert ids(readings.find(taken_at=[moment])) == ["r"]
        assert_sound(readings.database)

    def test_floats(self, readings: RecordStore[Reading]) -> None:
        """Floats come back to the last bit; those that are no numbers are refused."""
        for value in (0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e23, 2.0**63, 1 / 3):
            assert math.copysign(1, readings.update("r", value=value).value) == math.copysign(
                1, value
            )
            assert readings.get("r").value == value
        for value in (math.nan, math.inf, -math.inf):
            with refused(readings):
                readings.update("r", value=value)
            with refused(readings):
                readings.create(Reading(sensor="s", value=value))


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value
