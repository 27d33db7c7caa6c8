"""Commands that change something."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result

from storebridge import Execution, ExecutionStore, Job, JobStore, Owner, open_database

Run = Callable[..., Result]


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def damage(sample: Any, *statements: str) -> None:
    connection = sqlite3.connect(f"{sample.folder}/node")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_set_state(sample: Any, run: Run) -> None:
    where = ("-l", sample.location)
    done = run("jobs", "set-state", "j-2", "Queued", "-m", "soon", *where)
    assert (done.exit_code, done.stdout) == (0, "j-22\tQueued\n")
    refused = run("jobs", "set-state", "j-2", "Failed", "--if-state", "Running", *where)
    assert (refused.exit_code, "is Queued, not Running" in refused.stderr) == (1, True)
    assert run("jobs", "set-state", "j-2", "Failed", "--if-revision", "1", *where).exit_code == 1
    job = document(
        run("jobs", "set-state", "j-2", "Failed", "--if-revision", "2", "--json", *where)
    )
    assert (job["state"], job["message"]) == ("Failed", "soon")
    final = run("jobs", "set-state", "j-2", "Running", *where)
    assert (final.exit_code, "cannot become Running" in final.stderr) == (1, True)
    assert run("jobs", "set-state", "j-1", "Nope", *where).exit_code == 2
    assert run("executions", "set-state", "e-0", "Failed", "-m", "by hand", *where).exit_code == 0
    counts = document(run("counts", sample.location, "--json"))["stores"]
    assert (counts["job"]["Failed"], counts["execution"]["Failed"]) == (1, 1)


def test_delete(sample: Any, run: Run) -> None:
    where = ("-l", sample.location)
    refused = run("jobs", "delete", "j-2", "j-0", "--if-state", "Pending", *where)
    assert refused.exit_code == 1
    assert document(run("counts", sample.location, "--json"))["stores"]["job"]["Pending"] == 2
    done = run("jobs", "delete", "j-2", "j-3", "--if-state", "Pending", *where)
    assert done.stdout == "j-22\tdeleted\nj-33\tdeleted\n"
    assert document(run("executions", "delete", "e-1", "--json", *where)) == {"deleted": "e-11"}
    assert run("jobs", "show", "j-22", *where).exit_code == 1
    events = run("jobs", "history", "j-22", "--json", *where).stdout.splitlines()
    assert [json.loads(event)["kind"] for event in events] == ["created", "deleted"]
    assert run("check", sample.location).exit_code == 0


def test_check_and_repair(sqlite: Any, run: Run) -> None:
    damage(
        sqlite,
        "update job set state = 'Failed' where id = 'j-00'",
        "delete from job_label where record_id = 'j-11'",
    )
    found = run("check", sqlite.location, "--json")
    assert found.exit_code == 1
    faults = document(found)["faults"]
    assert ["j-00"] in [fault["key"] for fault in faults]
    assert {"job", "job-label"} == {fault["table"] for fault in faults}
    assert len(run("check", sqlite.location).stdout.splitlines()) == len(faults)
    done = document(run("repair", sqlite.location, "--json"))
    assert (done["ok"], done["remaining"], done["labels"]) == (True, [], 1)
    assert run("check", sqlite.location).exit_code == 0
    assert document(run("jobs", "show", "j-0", "--json", "-l", sqlite.location))["priority"] == 7


def test_what_cannot_be_read(sqlite: Any, run: Run) -> None:
    where = ("-l", sqlite.location)
    damage(sqlite, "update job set body = '{broken' where id = 'j-22'")
    listed = run("jobs", "list", "--json", *where)
    assert len(listed.stdout.splitlines()) == 3
    assert "j-22 cannot be read" in listed.stderr
    shown = run("jobs", "show", "j-22", *where)
    assert (shown.exit_code, "storebridge get job j-22" in shown.stderr) == (1, True)
    assert run("get", "job", "j-22", *where).stdout == "{broken\n"
    assert run("get", "job", "j-22", "--json", *where).exit_code == 1
    repaired = run("repair", sqlite.location)
    assert (repaired.exit_code, "quarantined" in repaired.stdout) == (1, True)
    assert run("jobs", "delete", "j-22", *where).exit_code == 1
    assert run("jobs", "delete", "j-00", "--unreadable", *where).exit_code == 1
    assert run("jobs", "delete", "j-22", "--unreadable", *where).exit_code == 0
    assert run("repair", sqlite.location).exit_code == 0
    assert run("check", sqlite.location).exit_code == 0


def test_recount(sqlite: Any, run: Run) -> None:
    assert run("recount", sqlite.location).exit_code == 0
    assert run("recount", sqlite.location, "--repair").exit_code == 0
    damage(sqlite, "update storebridge set value = value + 5 where name = 'job Running'")
    found = run("recount", sqlite.location, "--json")
    assert found.exit_code == 1
    assert document(found)["stores"]["job"]["drift"] == {"Running": 5}
    assert "job\tRunning\t2\t7\toff" in run("recount", sqlite.location).stdout.splitlines()
    mended = run("recount", sqlite.location, "--repair")
    assert mended.exit_code == 0
    assert "job\tRunning\t2\t7\tset right" in mended.stdout.splitlines()
    assert run("recount", sqlite.location).exit_code == 0


def test_deep_recount(sqlite: Any, run: Run) -> None:
    sound = run("recount", "--deep", sqlite.location)
    assert (sound.exit_code, "job\tfaults\t0\t-\tnone\n" in sound.stdout) == (0, True)
    damage(sqlite, "delete from job_history where record_id = 'j-22'")
    assert run("recount", sqlite.location).exit_code == 0
    found = document(run("recount", "--deep", "--json", sqlite.location))
    assert [fault["key"] for fault in found["stores"]["job"]["faults"]] == [["j-22"]]
    assert (found["ok"], found["stores"]["execution"]["ok"]) == (False, True)
    assert "job-history\tj-22\tno event" in run("recount", "--deep", sqlite.location).stdout
    mended = run("recount", "--deep", "--repair", sqlite.location)
    assert (mended.exit_code, "job\tfaults mended\t1" in mended.stdout) == (0, True)
    assert run("recount", "--deep", sqlite.location).exit_code == 0


@pytest.mark.parametrize("backend", ["sqlite", "lmdb"])
def test_a_kill_is_told_by_the_next_writer(backend: str, tmp_path: Path, run: Run) -> None:
    location = f"{backend}://{tmp_path}/node"
    code = (
        "import os, sys; from storebridge import *; db = open_database(sys.argv[1]);"
        "JobStore(db).create(Job(id='j-1')); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, location], timeout=30)
    done = run("jobs", "set-state", "j", "Queued", "-l", location)
    assert (done.exit_code, "ended without closing" in done.stderr) == (0, True)
    again = run("jobs", "set-state", "j", "Running", "-l", location)
    assert (again.exit_code, again.stderr) == (0, "")


def test_orphans(tmp_path: Path, run: Run) -> None:
    location = f"sqlite://{tmp_path}/node"
    done = subprocess.run(
        [sys.executable, "-c", "import msgspec; from storebridge import this_process;"
         "print(msgspec.json.encode(this_process('pi4')).decode())"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    owner = msgspec.json.decode(done.stdout, type=Owner)
    with open_database(location) as database:
        job = JobStore(database).create(Job())
        execution = Execution(job_id=job.id, id="e-1", node_id="pi4", state="Running", owner=owner)
        ExecutionStore(database).create(execution)
    found = run("executions", "list", "--orphans", "--json", "-l", location, NODE_ID="pi4")
    assert document(found)["id"] == "e-1"
    elsewhere = run("executions", "list", "--orphans", "-l", location, NODE_ID="other")
    assert elsewhere.stdout == ""
    wrong = run("executions", "list", "--orphans", "--node", "pi4", "--job", "j", "-l", location)
    assert (wrong.exit_code, "--orphans" in wrong.stderr) == (2, True)
