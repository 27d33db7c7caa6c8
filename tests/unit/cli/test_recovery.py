"""`executions recover` and `jobs recover`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from storebridge import Execution, ExecutionStore, Job, JobStore, Owner, open_database, this_process

Run = Callable[..., Result]
GONE = Owner("pi4", 4711, "an earlier boot", "1")
WHY = "owner is gone: process 4711 of node pi4 ended before the machine was started"


@pytest.fixture(params=["sqlite", "lmdb"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    location = f"{request.param}://{tmp_path}/node"
    with open_database(location) as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        kinds: tuple[Any, ...] = ("batch", "daemon", "ops")
        for number, kind in enumerate(kinds):
            state = "Publishing" if kind == "ops" else "Running"
            jobs.create(Job(id=f"j-{number}", type=kind, state="Running"))
            executions.create(
                Execution(id=f"e-{number}", job_id=f"j-{number}", state=state, owner=GONE)
            )
        executions.create(
            Execution(id="e-3", job_id="j-9", state="Running", owner=this_process("pi4"))
        )
        executions.create(Execution(id="e-4", job_id="j-9"))
        jobs.create(Job(id="j-3", name="claimed", state="Queued", owner=GONE))
    return location


def test_a_dry_run(location: str, run: Run) -> None:
    """Says what would be done and why, and writes nothing."""
    done = run("executions", "recover", "--dry-run", "-l", location, NODE_ID="pi4")
    assert done.exit_code == 0
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[:3] == [
        ["e-0", "j-0", "batch", "Running", "fail", WHY, "-"],
        ["e-1", "j-1", "daemon", "Running", "requeue", WHY, "-"],
        ["e-2", "j-2", "ops", "Publishing", "leave", WHY, "-"],
    ]
    facts = dict(rows[3:])
    assert (facts["failed"], facts["requeued"], facts["left"]) == ("1", "1", "1")
    assert (facts["held by their owner"], facts["waiting for nobody"]) == ("1", "1 Created")
    with open_database(location, read_only=True) as database:
        assert {e.revision for e in ExecutionStore(database).each()} == {1}


def test_recover(location: str, run: Run) -> None:
    """Does it, and brings the jobs along; again, there is nothing to do."""
    done = run("executions", "recover", "--node", "pi4", "-l", location, "--json")
    report = json.loads(done.stdout)
    assert [found["action"] for found in report["found"]] == ["fail", "requeue", "leave"]
    assert [found["job_state"] for found in report["found"]] == ["Failed", "Pending", None]
    assert (report["held"], report["waiting"], report["dry_run"]) == (1, {"Created": 1}, False)
    with open_database(location, read_only=True) as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        assert executions.get(report["found"][1]["next_id"]).previous_id == "e-1"
        assert [job.state for job in jobs.find(limit=3)] == ["Failed", "Pending", "Running"]
    again = run("executions", "recover", "--node", "pi4", "-l", location)
    assert again.stdout.splitlines()[0].split("\t")[4] == "left"
    assert len(again.stdout.splitlines()) == 1 + 7


def test_another_node(location: str, run: Run) -> None:
    """Without saying which node this is, another's processes cannot be seen, and are left."""
    done = run("executions", "recover", "-l", location)
    facts = dict(line.split("\t") for line in done.stdout.splitlines())
    assert (facts["failed"], facts["on other nodes without a lease"]) == ("0", "4")
    assert "--node" in facts["note"]
    named = run("executions", "recover", "-l", location, "--node", "another")
    assert "note" not in named.stdout


def test_release_claims(location: str, run: Run) -> None:
    """Jobs that a process had claimed that is gone are pending again."""
    planned = run("jobs", "recover", "--node", "pi4", "-l", location, "--dry-run")
    assert planned.stdout == f"j-3\tclaimed\tQueued\t{WHY}\n"
    done = run("jobs", "recover", "--node", "pi4", "-l", location)
    assert done.stdout == f"j-3\tclaimed\tPending\t{WHY}\n"
    assert run("jobs", "recover", "--node", "pi4", "-l", location, "--json").stdout == ""
    with open_database(location, read_only=True) as database:
        assert JobStore(database).get("j-3").owner is None
