"""The main job: on every backend that works here, by the program that users run."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    Owner,
    open_database,
    this_process,
    to_json,
)
from storebridge.backends import BUILTIN
from storebridge.cli.overview import describe
from tests.postgres_server import Database

BACKENDS = [name for name in BUILTIN if describe(name)["works"]]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def target_on_server(postgresql: Database) -> str:
    return postgresql.target()


def demo(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "storebridge", "demo", *args]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_the_embedded_backends_are_there() -> None:
    assert {"sqlite", "lmdb", "memory"} <= set(BACKENDS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_demo(backend: str, tmp_path: Path) -> None:
    done = demo("--backend", backend, "--keep", str(tmp_path / "kept"), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"]
    assert result["problems"] == []
    assert result["backend"] == backend
    assert result["jobs"] >= 40
    assert result["executions"] >= result["jobs"]
    assert result["seconds"] < 30
    counts = result["counts"]
    assert sum(counts["job"].values()) == result["jobs"] == _ended(counts["job"])
    assert sum(counts["execution"].values()) == result["executions"] == _ended(counts["execution"])
    if backend == "memory":
        assert "clean stop" in result["interrupt"]["how"]
        assert result["restart"]["orphans"] == []
    else:
        _check_the_kill(result)
        _check_the_files(result)
        _check_the_copies(result, backend)


def test_demo_on_a_server(target_on_server: str, tmp_path: Path) -> None:
    """The same on a database that a location names, such as one on a server: a new one."""
    arguments = ("--location", target_on_server, "--keep", str(tmp_path / "kept"), "--json")
    done = demo(*arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["ok"], result["backend"]) == (True, "sqlalchemy")
    _check_the_kill(result)
    _check_the_files(result)
    _, *look = shlex.split(result["look"][0])
    seen = subprocess.run([sys.executable, "-m", "storebridge", *look], check=False)
    assert seen.returncode == 0
    again = demo("--location", target_on_server, "--keep", str(tmp_path / "again"))
    assert again.returncode == 2
    assert "has jobs or executions" in again.stderr


def _ended(counts: dict[str, int]) -> int:
    return counts["Completed"] + counts["Failed"]


def _check_the_copies(result: dict[str, Any], backend: str) -> None:
    """Every engine holds the same, down to the byte; the last copy has become smaller."""
    copies = result["journey"]
    assert {copy["to"] for copy in copies} == {"sqlite", "lmdb", "bolt", "tinydb"}
    assert len({copy["sha256"] for copy in copies}) == 1
    if backend in ("sqlite", "lmdb", "bolt", "tinydb"):
        assert copies[-1]["to"] == backend
    assert result["compaction"]["records"] >= 60
    assert result["compaction"]["bytes_after"] < result["compaction"]["bytes_before"]


def _check_the_kill(result: dict[str, Any]) -> None:
    assert "SIGKILL" in result["interrupt"]["how"]
    assert 0 < result["interrupt"]["jobs_ended"] < result["jobs"]
    orphans = result["restart"]["orphans"]
    assert {orphan["id"] for orphan in orphans} == set(result["interrupt"]["running"])
    assert len(orphans) >= 2
    assert len(result["restart"]["stopped_uncleanly"]) == 1
    (pid,) = result["restart"]["stopped_uncleanly"]
    assert all(f"process {pid}" in orphan["message"] for orphan in orphans)
    again = [orphan for orphan in orphans if orphan["next_id"]]
    assert all(orphan["action"] == ("requeue" if orphan in again else "fail") for orphan in orphans)
    assert result["executions"] == result["jobs"] + len(again)
    # Sensible means: not what says that it must not run twice.
    assert [orphan["job"] for orphan in orphans if not orphan["next_id"]] == ["long: pay once"]
    states = [event["state"] for event in result["history"]]
    assert states == ["Running", "Failed", "Failed"]


def _check_the_files(result: dict[str, Any]) -> None:
    with open_database(result["location"], read_only=True) as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        assert jobs.counts() == result["counts"]["job"]
        for orphan in result["restart"]["orphans"]:
            if orphan["next_id"]:
                assert executions.get(orphan["next_id"]).previous_id == orphan["id"]
        output = [e for e in executions.each(state="Completed") if b"storebridge" in bytes(e.spec)]
        assert all(b"stdout" in bytes(execution.result) for execution in output)


def test_lines_in_a_pipe(tmp_path: Path) -> None:
    done = demo("--keep", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert sum(line.startswith("running\t") for line in lines) >= 40
    for title in ("What the restart found", "Records by state", "Verified", "Look at it yourself"):
        assert title in lines
    assert f"  storebridge info {tmp_path}/kept/node.db" in lines


def test_a_lost_change_is_found(tmp_path: Path) -> None:
    """The demo's own verification notices what it is there to notice."""
    from storebridge.cli.demo.scenario import Story
    from storebridge.cli.demo.verify import problems

    with open_database(f"sqlite:{tmp_path}/x.db") as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        job = jobs.create(Job())
        jobs.set_state(job.id, "Completed")
        execution = executions.create(Execution(job_id=job.id, state="Running"))
        story = Story(jobs={job.id: "x"}, acknowledged=[(execution.id, "Running")])
        assert problems(story, jobs, executions) == []
        story.acknowledged.append((execution.id, "Completed"))
        assert any("Completed" in problem for problem in problems(story, jobs, executions))
        story.acknowledged = [("e-gone", "Running")]
        assert any("lost" in problem for problem in problems(story, jobs, executions))
        story.acknowledged, story.jobs = [], {"j-gone": "y"}
        assert any("j-gone" in problem for problem in problems(story, jobs, executions))
        database.driver.begin(True).rollback()
        database.write(lambda unit: unit.engine.tally({"job Completed": 3}))
        story.jobs = {}
        assert len(problems(story, jobs, executions)) == 2


def _example(name: str) -> Any:
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("backend", BACKENDS)
def test_custom_records(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len((ROOT / "examples" / "custom_records.py").read_text().splitlines()) <= 60
    location = f"{backend}://{tmp_path}/brews"
    _example("custom_records").main(location)
    assert capsys.readouterr().out.splitlines() == [
        "read as now: 62",
        "found: ['porter']",
        "counts: {'Fermenting': 1}",
    ]


def test_node_on_two_databases(tmp_path: Path) -> None:
    """The same service, other variables: jobs in one database, executions in another."""
    environment = {
        "PATH": os.environ["PATH"],
        "JOB_STORE_PATH": f"lmdb:{tmp_path}/jobs",
        "EXECUTION_STORE_PATH": f"{tmp_path}/executions.db",
        "NODE_ID": "pi4",
        "NODE_SLOTS": "8",
    }
    folder = ROOT / "examples" / "node"
    subprocess.run(
        [sys.executable, folder / "submit.py"],
        env=environment, check=True, timeout=30, capture_output=True,
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, folder / "service.py"], env=environment, stdout=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout is not None
        left = 44
        for line in node.stdout:
            ended = line.startswith(("completed\t", "failed\t"))
            left -= ended
            if ended and not left:
                node.terminate()
    assert node.returncode == 0
    with open_database(f"lmdb:{tmp_path}/jobs", read_only=True) as database:
        assert _ended(JobStore(database).counts()) == 44


def test_what_a_kill_leaves_between_two_databases() -> None:
    """The service goes by the execution where a job and its execution disagree, and leaves alone
    what a living process has claimed.
    """
    service = _example("node/service")
    with (
        open_database("memory:between-jobs") as job_database,
        open_database("memory:between-executions") as execution_database,
    ):
        jobs, executions = JobStore(job_database), ExecutionStore(execution_database)
        gone = Owner("pi4", 1, "an earlier boot", "1")
        for name, states in _LEFT.items():
            owner = this_process("pi4") if name == "somebody's" else gone
            spec = to_json({"rerun": name != "not twice"})
            job = Job(id=name, name=name, state="Running", spec=spec, owner=owner)
            jobs.create(job)
            for state in states:
                made = Execution(job_id=name, state=state, message=state.lower(), owner=owner)
                executions.create(made)
        said: list[tuple[str, str, str]] = []
        service.Node(jobs, executions, "pi4", say=lambda *line: said.append(line)).recover()
        found = {name: jobs.get(name).state for name in _LEFT}
        (waiting,) = executions.find(state="Created")
    assert found == {
        "never begun": "Pending",
        "done": "Completed",
        "broken off": "Pending",
        "failed": "Failed",
        "kills its node": "Failed",
        "not twice": "Failed",
        "somebody's": "Running",
    }
    assert waiting.job_id == "broken off"
    assert said[-1] == ("ready", "pi4", "3 jobs to run")


_LEFT = {
    "never begun": [],
    "done": ["Completed"],
    "broken off": ["Running"],
    "failed": ["Failed"],
    "kills its node": ["Failed", "Failed", "Running"],
    "not twice": ["Running"],
    "somebody's": [],
}
