"""A device that runs for weeks, by a fast clock: its file does not grow without end, and holds what
it is to hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from storebridge import Database, Execution, ExecutionStore, Retention
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.agers import DAY, ENDS, is_live, morning, name_of
from storebridge.testing.stores.base import Ticks, open_at

BACKENDS = ("sqlite", "lmdb", "bolt", "tinydb")
_TOGETHER = 25
"""Executions whose changes are one transaction: the days are many."""


@dataclass(frozen=True)
class Life:
    """How long a device lives, and how busy it is."""

    days: int
    a_day: int
    kept: int
    """Days that what has ended is kept for."""
    settled: int
    """The day after which its file may be half as large again, at most."""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_week(backend: str, tmp_path: Path) -> None:
    """A short life, of a quiet device."""
    live(BackendHarness(backend, tmp_path), Life(days=9, a_day=100, kept=2, settled=5))


@pytest.mark.attack
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sixty_days(backend: str, tmp_path: Path) -> None:
    """Sixty days of five hundred executions each, kept for a week."""
    live(BackendHarness(backend, tmp_path), Life(days=60, a_day=500, kept=7, settled=10))


def live(harness: BackendHarness, life: Life) -> None:
    """Live day by day, compact every evening, start anew every third morning. From the day on when
    as much goes as comes, the files never exceed one and a half times what they were on that day,
    at whatever hour; and every record that is to be there is there, whole."""
    clock = Ticks(step=timedelta(milliseconds=2))
    rule = Retention(keep=life.kept * DAY)
    sizes: list[int] = []
    database = open_at(harness, clock=clock)
    for day in range(life.days):
        clock.time = morning(day)
        if day % 3 == 0:
            database.close()
            database = open_at(harness, clock=clock)
        seen = [_on_disk(harness) for _ in _hours(database, day, life.a_day)]
        report = database.compact(rule)
        sizes.append(max(*seen, _on_disk(harness)))
        assert report.skipped is None or "is free" in report.skipped
        assert report.pruned["execution"].records == _leaving(day, life)
        _check_content(database, day, life)
        assert max(sizes[life.settled :], default=0) <= 1.5 * sizes[min(day, life.settled)], sizes
    assert all(report.ok for report in database.recount(deep=True))
    database.close()
    print([f"{size / 1e6:.1f} MB" for size in sizes[:: max(1, life.days // 10)]])


def _on_disk(harness: BackendHarness) -> int:
    """What all files together take of the disk; a bolt file's end, which is there to grow into,
    takes nothing."""
    files = [path for path in Path(harness.target).parent.rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in files)


def _hours(database: Database, day: int, count: int) -> Iterator[None]:
    """A day's work, and a look at the clock now and then."""
    executions = ExecutionStore(database)
    for first in range(0, count, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, count))
        with database.transaction():
            for number in numbers:
                job = f"job-{number % 7}"
                executions.create(Execution(id=name_of(day, number), job_id=job, message="x" * 200))
        for state in ("BidAccepted", "Running"):
            with database.transaction():
                for number in numbers:
                    executions.set_state(name_of(day, number), state)
        with database.transaction():
            for number in numbers:
                if not is_live(number):
                    executions.set_state(name_of(day, number), ENDS[number % len(ENDS)])
        yield


def _leaving(day: int, life: Life) -> int:
    """How many go this evening."""
    return sum(not is_live(n) for n in range(life.a_day)) if day >= life.kept else 0


def _check_content(database: Database, day: int, life: Life) -> None:
    executions = ExecutionStore(database)
    live = sum(is_live(number) for number in range(life.a_day))
    days = min(day + 1, life.kept)
    assert executions.count() == (life.a_day - live) * days + live * (day + 1)
    if day % 5 == 0 or day == life.days - 1:
        there = {execution.id for execution in executions.each()}
        assert there == {
            name_of(past, number)
            for past in range(day + 1)
            for number in range(life.a_day)
            if is_live(number) or past > day - life.kept
        }
