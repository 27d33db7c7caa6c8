"""One record's life: created, changed, passed from state to state, deleted, remembered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import msgspec
import pytest

from storebridge import (
    ConflictError,
    Database,
    Execution,
    ExecutionStore,
    Expect,
    InvalidRecordError,
    Job,
    JobStore,
    RecordExistsError,
    RecordNotFoundError,
    from_json,
    this_process,
    to_json,
)
from storebridge.testing.stores.base import Calls, StoreTests, assert_sound, contents


class RecordTests(StoreTests):
    """Create, get, update, set_state, delete, versions and history."""

    def test_create_fills_in(self, jobs: JobStore) -> None:
        """A created record has an id, times, revision 1, the first state, and comes back equal; the
        caller's object is left as it was.
        """
        given = Job(labels={"a": "b"}, meta={"note": "x\ny"}, spec=to_json({"b": [1.5], "a": None}))
        made = jobs.create(given)
        assert (given.id, given.revision, given.state) == ("", 0, "")
        assert made == jobs.get(made.id)
        assert (made.revision, made.version, made.state) == (1, 1, "Pending")
        assert made.name == made.id
        assert made.created_at == made.modified_at
        assert from_json(made.spec) == {"b": [1.5], "a": None}

    def test_ids_made_up_differ(self, jobs: JobStore) -> None:
        """Ids that the store makes are never the same."""
        assert len({jobs.create(Job()).id for _ in range(50)}) == 50

    def test_a_result_shares_nothing(self, jobs: JobStore) -> None:
        """What a store returned may be changed by the caller without any effect on the store, and
        what the caller gave may be changed afterwards.
        """
        labels = {"a": "b"}
        made = jobs.create(Job(id="j", labels=labels))
        labels["a"] = "changed"
        made.labels["a"] = "changed"
        jobs.get("j").labels["a"] = "changed"
        assert jobs.get("j").labels == {"a": "b"}
        assert len(jobs.find(labels="a=b")) == 1

    def test_taken_id(self, jobs: JobStore) -> None:
        """An id is given once, and the record that has it is left as it is."""
        first = jobs.create(Job(id="j", name="one"))
        with pytest.raises(RecordExistsError, match="'j'"):
            jobs.create(Job(id="j", name="two"))
        assert jobs.get("j") == first
        assert_sound(jobs.database)

    def test_missing(self, jobs: JobStore) -> None:
        """Whatever is asked of a record that is not there is RecordNotFoundError, a LookupError."""
        calls: Calls = (
            lambda: jobs.get("no"),
            lambda: jobs.update("no", priority=1),
            lambda: jobs.set_state("no", "Running"),
            lambda: jobs.delete("no"),
            lambda: jobs.discard("no"),
            lambda: jobs.resolve("no"),
            lambda: jobs.get_unique(namespace="default", name="no"),
        )
        for call in calls:
            with pytest.raises(RecordNotFoundError, match="no") as caught:
                call()
            assert isinstance(caught.value, LookupError)
        assert jobs.history("no") == []
        assert jobs.versions("no") == []

    def test_update(self, jobs: JobStore) -> None:
        """An update sets the fields, counts up revision and version, keeps the rest and the id."""
        before = jobs.create(Job(id="j", priority=1, labels={"a": "b"}))
        after = jobs.update("j", priority=2, spec=to_json([1]))
        assert after == jobs.get("j")
        assert (after.priority, after.revision, after.version) == (2, 2, 2)
        assert (after.labels, after.created_at, after.state) == (
            {"a": "b"},
            before.created_at,
            "Pending",
        )
        assert after.modified_at > before.modified_at

    def test_versions(self, jobs: JobStore) -> None:
        """Each update keeps the version before it; a change of state makes none; deleting the
        record deletes them.
        """
        made = jobs.create(Job(id="j", priority=1))
        moved = jobs.set_state("j", "Queued")
        jobs.update("j", priority=2)
        jobs.update("j", priority=3)
        kept = jobs.versions("j")
        assert kept[0] == moved
        assert [(job.version, job.priority) for job in kept] == [(1, 1), (2, 2)]
        assert made.version == moved.version == 1
        assert jobs.get("j").version == 3
        jobs.delete("j")
        assert jobs.versions("j") == []

    def test_many_versions(self, jobs: JobStore) -> None:
        """More versions than a page are listed in order and deleted with the record."""
        jobs.create(Job(id="j"))
        with jobs.database.transaction():
            for number in range(1, 231):
                jobs.update("j", priority=number)
        assert [job.priority for job in jobs.versions("j")] == list(range(230))
        jobs.delete("j")
        jobs.create(Job(id="j"))
        assert jobs.versions("j") == []

    def test_unique_names(self, jobs: JobStore) -> None:
        """A name is unique in its namespace, on creation and update, and free after deletion."""
        jobs.create(Job(id="1", name="n"))
        jobs.create(Job(id="2", name="n", namespace="other"))
        jobs.create(Job(id="3", name="m"))
        with pytest.raises(RecordExistsError, match="'n'"):
            jobs.create(Job(id="4", name="n"))
        with pytest.raises(RecordExistsError, match="'n'"):
            jobs.update("3", name="n")
        with pytest.raises(RecordExistsError, match="'n'"):
            jobs.set_state("3", "Running", name="n")
        assert jobs.get("3").name == "m"
        assert jobs.get_unique(namespace="other", name="n").id == "2"
        jobs.delete("1")
        assert jobs.update("3", name="n").name == "n"
        assert_sound(jobs.database)

    def test_a_name_is_not_an_id(self, jobs: JobStore) -> None:
        """A job without a name is called by its id, and that name is taken like any other."""
        jobs.create(Job(id="j"))
        with pytest.raises(RecordExistsError):
            jobs.create(Job(id="k", name="j"))

    def test_set_state(self, executions: ExecutionStore) -> None:
        """A change of state keeps its message and takes further fields along, as one change."""
        executions.create(Execution(id="e", job_id="j"))
        owner = this_process("n1")
        after = executions.set_state("e", "Running", message="go", node_id="n1", owner=owner)
        assert after == executions.get("e")
        assert (after.state, after.message, after.owner, after.revision) == (
            "Running",
            "go",
            owner,
            2,
        )
        assert executions.set_state("e", "Publishing").message == "go"
        assert [e.id for e in executions.find(node_id="n1")] == ["e"]
        assert executions.history("e")[1].message == "go"
        assert_sound(executions.database)

    def test_set_state_with_labels(self, jobs: JobStore) -> None:
        """Labels that change together with the state are found by their new values only."""
        jobs.create(Job(id="j", labels={"a": "1", "b": "1"}))
        jobs.set_state("j", "Running", labels={"a": "2"})
        assert [len(jobs.find(labels=text)) for text in ("a=1", "a=2", "b")] == [0, 1, 0]
        assert_sound(jobs.database)

    def test_forbidden_transition(self, jobs: JobStore) -> None:
        """A transition that the state machine does not allow is a ConflictError that carries the
        record found, and changes nothing.
        """
        jobs.create(Job(id="j"))
        before = jobs.set_state("j", "Queued")
        kept = contents(jobs.database)
        with pytest.raises(ConflictError, match="Queued and cannot become Completed") as caught:
            jobs.set_state("j", "Completed")
        assert caught.value.found == before
        assert caught.value.retryable
        assert contents(jobs.database) == kept

    @pytest.mark.parametrize("final", ["Completed", "Failed", "Stopped"])
    def test_terminal_states_are_final(self, jobs: JobStore, final: str) -> None:
        """Nothing about a record in a terminal state can be changed, but it can be deleted."""
        jobs.create(Job(id="j", labels={"a": "b"}))
        done = jobs.set_state("j", final)
        calls: Calls = (
            lambda: jobs.set_state("j", "Running"),
            lambda: jobs.set_state("j", final),
            lambda: jobs.update("j", priority=1),
            lambda: jobs.update("j", labels={}),
            lambda: jobs.update("j"),
        )
        for call in calls:
            with pytest.raises(ConflictError, match=final) as caught:
                call()
            assert caught.value.found == done
        assert jobs.get("j") == done
        jobs.delete("j")
        assert_sound(jobs.database)

    def test_next_id_may_still_be_added(self, executions: ExecutionStore) -> None:
        """An execution that ended may be told which one followed it, once."""
        executions.create(Execution(id="e", job_id="j"))
        executions.set_state("e", "Failed")
        assert executions.update("e", next_id="f").next_id == "f"
        with pytest.raises(ConflictError, match="final"):
            executions.update("e", next_id="g")
        with pytest.raises(ConflictError, match="final"):
            executions.update("e", next_id="f", message="x")
        assert executions.get("e").next_id == "f"

    def test_expect(self, jobs: JobStore) -> None:
        """A write whose precondition does not hold is a ConflictError that carries what was found
        and changes nothing; one whose precondition holds goes on.
        """
        found = jobs.create(Job(id="j"))
        kept = contents(jobs.database)
        for expect in (
            Expect(revision=2),
            Expect(states=["Running", "Queued"]),
            Expect(not_states=["Pending"]),
            Expect(states=["Pending"], revision=0),
        ):
            writes: tuple[Callable[..., object], ...] = (
                partial(jobs.update, "j", priority=1),
                partial(jobs.set_state, "j", "Running"),
                partial(jobs.delete, "j"),
            )
            for write in writes:
                with pytest.raises(ConflictError, match="'j' is") as caught:
                    write(expect=expect)
                assert caught.value.found == found
        assert contents(jobs.database) == kept
        met = Expect(states=["Pending"], not_states=["Failed"], revision=1)
        jobs.update("j", priority=1, expect=met)
        jobs.set_state("j", "Running", expect=Expect(revision=2))
        jobs.delete("j", expect=Expect(states=["Running"], revision=3))

    def test_expect_is_not_fooled(self, jobs: JobStore) -> None:
        """A precondition that could never be meant, of one text or a state that there is none of,
        is refused rather than taken to hold.
        """
        jobs.create(Job(id="j"))
        for fields in (
            {"states": "PendingOrSo"},
            {"not_states": "Pending"},
            {"not_states": ["Pnding"]},
            {"states": ["Pending", "Pnding"]},
        ):
            with pytest.raises(InvalidRecordError, match="state"):
                jobs.update("j", priority=1, expect=Expect(**fields))
        assert jobs.get("j").revision == 1

    def test_delete(self, jobs: JobStore) -> None:
        """A deleted record is gone from everything but its history; its id may be used again."""
        jobs.create(Job(id="j", labels={"a": "b"}))
        jobs.delete("j")
        with pytest.raises(RecordNotFoundError):
            jobs.get("j")
        assert len(jobs.find()) == len(jobs.find(labels="a")) == jobs.count() == 0
        assert [event.kind for event in jobs.history("j")] == ["created", "deleted"]
        assert jobs.create(Job(id="j")).revision == 1
        assert_sound(jobs.database)

    def test_history(self, jobs: JobStore) -> None:
        """The history tells each change with its time, revision, states, message and fields, oldest
        first, and can be read on from a position.
        """
        jobs.create(Job(id="j"))
        jobs.create(Job(id="jj"))
        jobs.update("j", priority=1, labels={})
        jobs.set_state("j", "Failed", message="no\troom")
        jobs.delete("j")
        told = [
            (e.kind, e.revision, e.previous_state, e.state, e.message) for e in jobs.history("j")
        ]
        assert told == [
            ("created", 1, None, "Pending", ""),
            ("updated", 2, "Pending", "Pending", ""),
            ("state", 3, "Pending", "Failed", "no\troom"),
            ("deleted", 3, "Failed", "Failed", ""),
        ]
        events = jobs.history("j")
        assert events[1].fields == ("labels", "priority")
        assert [e.at for e in events] == sorted(e.at for e in events)
        assert jobs.history("j", after=events[1].sequence) == events[2:]
        assert {e.store for e in events} == {"job"}

    def test_long_history(self, jobs: JobStore) -> None:
        """More events than a page come in order, numbers past 999 and digits included."""
        jobs.create(Job(id="j"))
        with jobs.database.transaction():
            for number in range(1100):
                jobs.set_state("j", "Queued" if number % 2 == 0 else "Pending")
        assert [event.revision for event in jobs.history("j")] == list(range(1, 1102))

    def test_counts(self, jobs: JobStore) -> None:
        """Counts by state name every state, and follow every change."""
        for number in range(4):
            jobs.create(Job(id=str(number)))
        jobs.set_state("0", "Running")
        jobs.set_state("1", "Failed")
        jobs.delete("3")
        counts = dict.fromkeys(jobs.layout.states, 0)
        assert jobs.counts() == counts | {"Running": 1, "Failed": 1, "Pending": 1}
        assert jobs.count() == 3
        assert jobs.count(state=["Running", "Failed"]) == 2
        assert jobs.count(state="Running", namespace="default") == 1
        assert sorted(job.id for job in jobs.live()) == ["0", "2"]

    def test_times_are_utc(self, database: Database, jobs: JobStore) -> None:
        """A time comes back as the same instant in UTC, and text in bodies sorts as time does, on
        whole seconds and a microsecond beside them.
        """
        moments = [
            datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=n) for n in range(-1, 2)
        ]
        plus = timezone(timedelta(hours=5, minutes=30))
        clock = iter(moments)
        jobs._write._clock = lambda: next(clock)
        made = [jobs.create(Job(id=f"j{number}")) for number in range(3)]
        assert [job.created_at for job in made] == moments
        assert [job.id for job in jobs.find()] == ["j0", "j1", "j2"]
        texts = [database.get("job", (f"j{number}",)) for number in range(3)]
        written = [msgspec.json.decode(text or b"")["created_at"] for text in texts]
        assert written == sorted(written)
        assert {len(text) for text in written} == {len("2026-01-01T00:00:00.000000Z")}
        assert len(jobs.find(created_from=moments[1].astimezone(plus))) == 2
