"""Retention as data: what it accepts, as text too, and what it is about."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    ConfigurationError,
    Job,
    JobStore,
    Retention,
    open_execution_store,
    open_job_store,
    parse_retention,
)
from storebridge.compaction.retention import limits_of
from storebridge.configuration import retention_from_environment
from storebridge.executions import EXECUTION
from storebridge.jobs import JOB
from storebridge.location import parse_location
from storebridge.record import Record
from storebridge.spec import RecordSpec, layout_of

DAY = timedelta(days=1)
JOBS, EXECUTIONS = layout_of(JOB), layout_of(EXECUTION)
NOTES = layout_of(RecordSpec(name="note", type=Record))


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("keep=30d", [Retention(keep=30 * DAY)]),
        ("keep=90m", [Retention(keep=timedelta(minutes=90))]),
        ("keep=0s", [Retention(keep=timedelta(0))]),
        ("keep=2w count=5", [Retention(keep=14 * DAY, count=5)]),
        (
            " keep=12h  states=Completed,Failed ; stores=job versions_count=0 ; ",
            [
                Retention(keep=DAY / 2, states=("Completed", "Failed")),
                Retention(stores=("job",), versions_count=0),
            ],
        ),
        (
            "events_keep=1d events_count=2 versions_keep=3d deleted_keep=4d checkpoints_keep=5d",
            [
                Retention(
                    events_keep=DAY,
                    events_count=2,
                    versions_keep=3 * DAY,
                    deleted_keep=4 * DAY,
                    checkpoints_keep=5 * DAY,
                )
            ],
        ),
    ],
)
def test_text(text: str, rules: list[Retention]) -> None:
    """A text says the rules that code would."""
    assert list(parse_retention(text)) == rules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rule"),
        (" ; ;", "no rule"),
        ("30d", "'30d': accepted are .*keep="),
        ("keep=", "'keep=': accepted are"),
        ("kept=30d", "'kept=30d': accepted are"),
        ("keep=30", "keep='30': accepted are such as"),
        ("keep=30D", "keep='30D'"),
        ("keep=-1d", "keep='-1d'"),
        ("keep=1.5d", "keep='1.5d'"),
        ("keep=٣d", "keep='٣d'"),
        ("keep=9999999999d", "keep="),
        ("keep=999999999w", "1,000 years"),
        ("count=-1", "count='-1': accepted is a whole number"),
        ("count=²", "count='²'"),
        ("events_count=0", "events_count: expected a whole number from 1"),
        ("states=Completed,,Failed", "names separated by commas"),
        ("keep=1d keep=2d", "keep comes twice"),
    ],
)
def test_bad_text(text: str, said: str) -> None:
    """What cannot be understood is refused in one line that says what can."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        parse_retention(text, "STORE_RETENTION")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"keep": 30},
        {"keep": -DAY},
        {"keep": timedelta.max},
        {"count": True},
        {"count": 1.5},
        {"versions_count": -1},
        {"states": "Completed"},
        {"states": ()},
        {"stores": ["job"]},
        {"checkpoints_keep": None},
    ],
    ids=str,
)
def test_bad_fields(fields: dict[str, Any]) -> None:
    """Code is held to the same."""
    with pytest.raises(ConfigurationError, match=next(iter(fields))):
        Retention(**fields)


@pytest.mark.parametrize(
    ("rule", "of_jobs", "of_executions", "of_notes"),
    [
        (Retention(), None, None, None),
        (Retention(events_count=1, deleted_keep=DAY), None, None, None),
        (Retention(keep=DAY), JOBS.terminal, EXECUTIONS.terminal, None),
        (Retention(count=1, states=("Failed",)), ("Failed",), ("Failed",), None),
        (Retention(keep=DAY, states=("Publishing",)), None, ("Publishing",), None),
        (Retention(keep=DAY, stores=("job",)), JOBS.terminal, None, None),
        (Retention(keep=DAY, stores=("note",)), None, None, ()),
        (Retention(keep=DAY, stores=("note",), states=("Failed",)), None, None, None),
    ],
)
def test_whose_records_go(rule: Retention, of_jobs: Any, of_executions: Any, of_notes: Any) -> None:
    """Records go only by an age or a count, from terminal states or those that are named, and
    without states only from stores that are named."""
    found = [rule.leaving(layout) for layout in (JOBS, EXECUTIONS, NOTES)]
    assert found == [of_jobs, of_executions, of_notes]


def test_rules_together() -> None:
    """What is beyond one rule's limit goes; a checkpoint holds for as long as any rule says."""
    rules = [
        Retention(keep=9 * DAY, events_count=5, checkpoints_keep=DAY),
        Retention(stores=("job",), events_count=3, events_keep=DAY, deleted_keep=2 * DAY),
    ]
    jobs, executions = limits_of(rules, JOBS), limits_of(rules, EXECUTIONS)
    assert (jobs.events_count, executions.events_count) == (3, 5)
    assert (jobs.events_keep, executions.events_keep) == (DAY, None)
    assert (jobs.deleted_keep, executions.deleted_keep) == (2 * DAY, 9 * DAY)
    assert (jobs.checkpoints_keep, executions.checkpoints_keep) == (30 * DAY, DAY)


def test_environment() -> None:
    """The variable of a role is about its store and wins over the general one; each may have a
    prefix."""
    environ = {
        "P_STORE_RETENTION": "keep=30d",
        "P_JOB_STORE_RETENTION": "keep=7d; stores=execution count=3",
    }
    assert retention_from_environment("EXECUTION", prefix="P_", environ=environ) == (
        Retention(keep=30 * DAY),
    )
    assert retention_from_environment("JOB", prefix="P_", environ=environ) == (
        Retention(keep=7 * DAY, stores=("job",)),
        Retention(stores=("execution",), count=3),
    )
    assert retention_from_environment("JOB", environ=environ) == ()
    with pytest.raises(ConfigurationError, match="P_STORE_RETENTION: keep='soon'"):
        retention_from_environment("JOB", prefix="P_", environ={"P_STORE_RETENTION": "keep=soon"})


def test_stores_bring_their_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores opened by the environment bring what it says, each once, also where they share a
    database; one that is opened by its location does not."""
    for role in ("JOB", "EXECUTION"):
        monkeypatch.setenv(f"{role}_STORE_PATH", f"{tmp_path}/node.db")
    monkeypatch.setenv("STORE_RETENTION", "keep=30d")
    monkeypatch.setenv("EXECUTION_STORE_RETENTION", "keep=1d")
    with open_job_store() as jobs:
        with open_execution_store() as executions:
            assert jobs.database is executions.database
            assert jobs.database.retention == (
                Retention(keep=30 * DAY),
                Retention(keep=DAY, stores=("execution",)),
            )
        with open_job_store() as again:
            assert len(again.database.retention) == 2
    with open_job_store(tmp_path / "node.db") as jobs:
        assert jobs.database.retention == ()
    monkeypatch.setenv("STORE_RETENTION", "keep=soon")
    with pytest.raises(ConfigurationError, match="STORE_RETENTION"):
        open_job_store()
    with JobStore(open_job_store(tmp_path / "node.db").database) as jobs:  # nothing was left open
        jobs.create(Job())


@pytest.mark.parametrize("text", ["0", "1", "-0.5", "half", "50%", "nan"])
def test_the_threshold_of_a_location(text: str) -> None:
    """The option `compact` is a share of free space."""
    assert parse_location("sqlite:x?compact=0.5").options.compact == 0.5
    with pytest.raises(ConfigurationError, match="accepted is a share of free"):
        parse_location(f"sqlite:x?compact={text.replace('%', '%25')}")
