"""Filling tables in bulk: bodies first, then each index in its own order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    CorruptStoreError,
    Execution,
    ExecutionStore,
    IncompleteStoreError,
    Job,
    JobStore,
    StoreFullError,
    open_database,
)
from storebridge.check import check
from storebridge.database import Database
from storebridge.driver import sortedruns
from storebridge.testing.stores.base import contents
from storebridge.transfer import filling
from storebridge.transfer.filling import Filling
from tests.unit.driver.test_sortedruns import file_size
from tests.unit.transfer.support import SUFFIXES

LOADERS = ("lmdb", "bolt")
pytestmark = pytest.mark.parametrize("backend", LOADERS)


class Stopped(Exception):
    """As far as was asked."""


@pytest.fixture
def source(tmp_path: Path) -> Any:
    with open_database(f"sqlite://{tmp_path}/source.db?durability=off") as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        with database.transaction():
            for number in range(60):
                jobs.create(Job(id=f"j{number}", name=f"n{59 - number}"))
                jobs.set_state(f"j{number}", "Queued")
                executions.create(Execution(job_id=f"j{number}", desired_state="Running"))
        yield database


def target_of(backend: str, folder: Path) -> str:
    return f"{backend}://{folder}/target{SUFFIXES[backend]}?durability=off"


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Have a filling fail before its batch of this number; `None`: no more."""
    left: list[int | None] = [None]
    write = Filling._write_batch

    def counted(self: Filling, *arguments: Any) -> None:
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
        write(self, *arguments)

    def stop(number: int | None) -> None:
        left[0] = number

    monkeypatch.setattr(Filling, "_write_batch", counted)
    return stop


def assert_same(source: Database, target: str) -> None:
    with open_database(target) as database:
        assert contents(database) == contents(source)
        assert list(check(database)) == list(check(source)) == []


def test_stopped_between_any_two_batches(
    source: Database,
    backend: str,
    tmp_path: Path,
    stop_at: Callable[[int | None], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bodies without index entries are no store, and the next filling makes what is missing."""
    monkeypatch.setattr(filling, "_FEWEST", 25)
    monkeypatch.setattr(filling, "_MOST", 25)
    target = target_of(backend, tmp_path)
    for number in range(1000):
        stop_at(number % 7)
        try:
            report = source.migrate_to(target)
            break
        except Stopped:
            with pytest.raises(IncompleteStoreError):
                open_database(target)
    assert number > 5
    assert report.resumed
    assert_same(source, target)


@pytest.mark.parametrize("number", range(1, 18, 2))
def test_a_source_that_changes_between(
    source: Database,
    backend: str,
    tmp_path: Path,
    number: int,
    stop_at: Callable[[int | None], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever was changed, added, and removed since a filling was stopped, before the place that
    it had come to and behind it: no index entry is left of what was."""
    monkeypatch.setattr(filling, "_FEWEST", 20)
    monkeypatch.setattr(filling, "_MOST", 20)
    target = target_of(backend, tmp_path)
    stop_at(number)
    with pytest.raises(Stopped):
        source.migrate_to(target)
    jobs = JobStore(source)
    for each in range(0, 60, 4):
        jobs.delete(f"j{each}")
        jobs.update(f"j{each + 1}", priority=7, name=f"other{each}")
        jobs.set_state(f"j{each + 2}", "Running")
        jobs.create(Job(id=f"j{each}-new", name=f"n{59 - each}"))
    for stopped in (1, 3):
        stop_at(stopped)
        with pytest.raises(Stopped):
            source.migrate_to(target)
    stop_at(None)
    report = source.migrate_to(target)
    assert report.resumed
    assert_same(source, target)


def test_many_runs(
    source: Database, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Index entries that memory should not hold are sorted all the same, and leave no file."""
    monkeypatch.setattr(sortedruns.SortedRuns.__init__, "__defaults__", (1000,))
    target = target_of(backend, tmp_path)
    source.migrate_to(target)
    assert_same(source, target)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("tmp")]


def test_no_room_for_sorting(
    source: Database, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk has no room for what is sorted it is full, and with room it goes on."""
    target = target_of(backend, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sortedruns.SortedRuns.__init__, "__defaults__", (1,))
        with file_size(1), pytest.raises(StoreFullError):
            source.migrate_to(target)
    source.migrate_to(target)
    assert_same(source, target)


def test_a_clash(source: Database, backend: str, tmp_path: Path) -> None:
    """Two records that a unique index cannot both have stop it; mended, it goes on."""
    target = target_of(backend, tmp_path)
    jobs = JobStore(source)
    body = source.get("job", ("j1",))
    assert body is not None
    values = jobs._write._columns.of(jobs.get("j1"))
    clashing = body.replace(b'"n58"', b'"n57"')
    source.write(lambda unit: unit.engine.replace("job", ("j1",), values, values, clashing))
    with pytest.raises(CorruptStoreError, match=r"table job: 'j[12]' has the unique fields"):
        source.migrate_to(target)
    source.write(lambda unit: unit.engine.replace("job", ("j1",), values, values, body))
    source.migrate_to(target)
    assert_same(source, target)


def test_what_a_transaction_writes(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large the table, a batch changes as many pages: an engine has them all in memory
    until the commit, and those that index entries in the order of the ids are on grow with it."""
    monkeypatch.setattr(filling, "_FEWEST", 200)
    monkeypatch.setattr(filling, "_MOST", 200)
    timed = Filling._timed
    written: list[int] = []

    def measured(self: Filling, *arguments: Any) -> Any:
        before = _handed_over()
        result = timed(self, *arguments)
        written.append(_handed_over() - before)
        return result

    monkeypatch.setattr(Filling, "_timed", measured)
    most = []
    for count in (400, 4000):
        with open_database(f"sqlite://{tmp_path}/{count}.db?durability=off") as database:
            executions = ExecutionStore(database)
            with database.transaction():
                for number in range(count):
                    executions.create(Execution(job_id=f"j{number % 97}", desired_state="Running"))
            target = f"{backend}://{tmp_path}/{count}{SUFFIXES[backend]}?durability=off"
            written.clear()
            database.migrate_to(target)
            most.append(max(written))
    assert most[1] < 1.25 * most[0]


def _handed_over() -> int:
    """The bytes that this process has written so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])
