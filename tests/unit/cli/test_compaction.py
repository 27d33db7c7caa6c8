"""`storebridge compact`: what would go, what goes, and what it says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from storebridge import (
    Execution,
    ExecutionStore,
    JobStore,
    open_database,
    read_archive,
)

Run = Callable[..., Result]


def document(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture(params=["sqlite", "lmdb", "bolt", "tinydb"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with executions of 2020 that have ended, one that has not, and a young one."""
    location = f"{request.param}://{tmp_path}/node"
    past = datetime(2020, 1, 1, tzinfo=UTC)
    with open_database(location, clock=lambda: past) as database:
        JobStore(database)
        executions = ExecutionStore(database)
        with database.transaction():
            for number in range(300):
                made = executions.create(Execution(id=f"e-{number:03}", job_id="j"))
                executions.set_state(made.id, "Failed" if number % 3 else "Cancelled")
            executions.create(Execution(id="live", job_id="j"))
    with open_database(location) as database:
        executions = ExecutionStore(database)
        executions.create(Execution(id="young", job_id="j"))
        executions.set_state("young", "Failed")
    return location


def left(location: str) -> int:
    with open_database(location, read_only=True) as database:
        return ExecutionStore(database).count()


def test_dry_run(location: str, run: Run) -> None:
    found = document(run("compact", location, "--keep", "30d", "--dry-run", "--json"))
    assert (found["ok"], found["dry_run"]) == (True, True)
    assert found["pruned"]["execution"]["records"] == 300
    lines = run("compact", location, "--keep", "30d", "--states", "Failed", "--dry-run")
    assert "execution\trecords\t200" in lines.stdout.splitlines()
    nothing = run("compact", location, "--keep", "9000d", "--dry-run")
    assert nothing.stdout.splitlines()[0] == "would go\tnothing"
    assert left(location) == 302


def test_compact(location: str, run: Run, tmp_path: Path) -> None:
    archive = tmp_path / "gone.gz"
    done = run("compact", location, "--keep", "30d", "--archive", str(archive), "--json")
    found = document(done)
    assert (found["ok"], found["skipped"]) == (True, None)
    assert found["pruned"]["execution"]["records"] == 300
    assert found["after"] < found["before"]
    assert left(location) == 2
    assert len(list(read_archive(archive))) == 300
    assert run("recount", "--deep", location).exit_code == 0
    again = run("compact", location, "--keep", "30d", "--no-reclaim")
    assert (again.exit_code, "records" in again.stdout) == (0, False)


def test_growing_while_removing(location: str, run: Run) -> None:
    """Where the log of what was removed is larger than what became free, that is not left
    unexplained."""
    done = run("compact", location, "--keep", "30d", "--no-reclaim")
    facts = dict(line.split("\t")[-2:] for line in done.stdout.splitlines())
    before, after = (
        int(facts[f"bytes {when}"].replace(",", "")) for when in ("on disk", "afterwards")
    )
    assert ("removing takes some room" in done.stdout) == (after > before)
    assert after > before or not location.startswith("sqlite")


def test_only_reclaims_unless_told(location: str, run: Run) -> None:
    """A location that is named is not pruned by what the environment says of another."""
    done = run("compact", location, STORE_RETENTION="keep=1d")
    assert (done.exit_code, left(location)) == (0, 302)
    done = run("compact", STORE_RETENTION="keep=1d", EXECUTION_STORE_PATH=location)
    assert (done.exit_code, left(location)) == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--keep", "soon"), "keep='soon': accepted are such as 90m"),
        (("--keep", "1d count=0"), "--keep '1d count=0': cannot be understood"),
        (("--events-count", "0"), "events_count: expected a whole number from 1"),
        (("--above", "2"), "above"),
    ],
)
def test_asked_wrongly(run: Run, tmp_path: Path, arguments: Any, said: str) -> None:
    asked = run("compact", f"sqlite://{tmp_path}/no.db", *arguments)
    assert (asked.exit_code, said in asked.stderr) == (2, True)
    assert not (tmp_path / "no.db").exists()


def test_what_there_is_not(location: str, run: Run) -> None:
    asked = run("compact", location, "--keep", "1d", "--states", "Done")
    assert (asked.exit_code, "Done is no state" in asked.stderr) == (2, True)
    assert left(location) == 302


def test_what_cannot_be_archived_stays(location: str, run: Run, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not an archive")
    done = run("compact", location, "--keep", "30d", "--archive", str(notes))
    assert (done.exit_code, left(location)) == (1, 302)
    assert "no archive of storebridge's" in done.stdout
    assert notes.read_text() == "not an archive"
