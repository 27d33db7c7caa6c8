"""Hooks: what a service has to say when records are about to go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from storebridge import (
    Execution,
    ExecutionStore,
    Removal,
    Retention,
)
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.aging import (
    DAY,
    Aging,
    assert_deeply_sound,
    ended,
)
from storebridge.testing.stores.base import (
    StoreTests,
    Ticks,
    ids,
    open_at,
)


class HookTests(StoreTests):
    """`database.on_compact`."""

    @pytest.fixture
    def hooked(self, harness: BackendHarness) -> Iterator[Aging]:
        clock = Ticks()
        database = open_at(harness, clock=clock)
        executions = ExecutionStore(database)
        for name in "abcd":
            ended(executions, name)
        clock.time += 2 * DAY
        yield Aging(database, clock)
        database.close()

    def test_order_and_arguments(self, hooked: Aging) -> None:
        """Hooks are asked in order: before, then of each record, then all that go, then after; they
        see the record as it is, with its history.
        """
        database = hooked.database
        executions = ExecutionStore(database)
        told: list[Any] = []

        def keep(removal: Removal) -> bool:
            told.append(removal.id)
            execution = executions.codec.decode(removal.body)
            assert execution == executions.get(removal.id)
            assert removal.members["state"] == removal.state == execution.state
            assert list(removal.history) == executions.history(removal.id)
            assert not database.in_transaction
            return removal.id == "b"

        database.on_compact(
            before=lambda rules: told.append(("before", len(rules))),
            keep=keep,
            archive=lambda gone: told.append([removal.id for removal in gone]),
            after=lambda report: told.append(("after", report.pruned["execution"].records)),
        )
        report = database.compact(Retention(keep=DAY), reclaim=False)
        assert told == [("before", 1), *"abcd", ["a", "c", "d"], ("after", 3)]
        assert (report.kept, report.failed) == (1, 0)
        assert ids(executions.each()) == ["b"]
        assert_deeply_sound(database)

    def test_a_hook_that_raises_keeps_the_record(
        self, caplog: pytest.LogCaptureFixture, hooked: Aging
    ) -> None:
        """What a hook raises, or an answer that is none, keeps the record it was asked about; the
        rest goes on, and both the log and the report tell of it.
        """
        database = hooked.database
        executions = ExecutionStore(database)

        def keep(removal: Removal) -> bool:
            if removal.id == "b":
                raise ZeroDivisionError("no such luck")
            return None if removal.id == "c" else False  # type: ignore[return-value]

        database.on_compact(keep=keep)
        report = database.compact(Retention(keep=DAY), reclaim=False)
        assert ids(executions.each()) == ["b", "c"]
        assert (report.kept, report.failed) == (0, 2)
        assert [note for note in report.notes if "no such luck" in note]
        assert [note for note in report.notes if "True or False" in note]
        assert "no such luck" in caplog.text
        executions.create(Execution(id="goes on", job_id="j"))
        assert_deeply_sound(database)

    def test_what_cannot_be_archived_stays(self, hooked: Aging) -> None:
        """Where the archive fails, nothing that it was given goes."""
        database = hooked.database
        executions = ExecutionStore(database)

        def archive(removals: object) -> None:
            raise OSError("no space left on the archive's device")

        database.on_compact(archive=archive)
        report = database.compact(Retention(keep=DAY), reclaim=False)
        assert (executions.count(), report.failed) == (4, 4)
        assert "no space left" in report.notes[0]
        assert_deeply_sound(database)

    def test_before_may_stop_it_all(self, hooked: Aging) -> None:
        """What `before` raises stops the compaction, not the service."""
        database = hooked.database
        executions = ExecutionStore(database)

        def before(rules: object) -> None:
            raise RuntimeError("not now")

        done: list[Any] = []
        database.on_compact(before=before, after=done.append)
        report = database.compact(Retention(keep=DAY))
        assert (executions.count(), report.pruned) == (4, {})
        assert report.skipped
        assert ["not now" in note for note in report.notes] == [True]
        assert done == [report]

    def test_changed_while_it_was_asked_about(self, hooked: Aging) -> None:
        """A record that is changed after the hooks were asked stays: they have not seen it so."""
        database = hooked.database
        executions = ExecutionStore(database)

        def archive(removals: object) -> None:
            executions.update("b", next_id="another")

        database.on_compact(archive=archive)
        report = database.compact(Retention(keep=DAY), reclaim=False)
        assert ids(executions.each()) == ["b"]
        assert report.pruned["execution"].records == 3
        assert_deeply_sound(database)

    def test_a_service_that_is_stopped(self, hooked: Aging) -> None:
        """Ctrl-C, and whatever `watch` raises, ends compaction between two steps; what is left is
        whole, and the next run does the rest.
        """
        database = hooked.database
        executions = ExecutionStore(database)

        def stop(store: str, removed: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            database.compact(Retention(keep=DAY), reclaim=False, watch=stop)
        assert_deeply_sound(database)
        database.compact(Retention(keep=DAY), reclaim=False)
        assert executions.count() == 0
