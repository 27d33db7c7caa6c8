"""Databases to look at, and how commands are run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from storebridge import Execution, ExecutionStore, Job, JobStore, open_database, this_process
from storebridge.cli.app import cli

BACKENDS = ("sqlite", "lmdb")
Run = Callable[..., Result]


@dataclass
class Sample:
    """A closed database with some records."""

    location: str
    folder: Path
    jobs: list[str]
    executions: list[str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, its output in a pipe; the environment names no store."""
    for name in list(os.environ):
        if "STORE" in name or name == "NODE_ID":
            monkeypatch.delenv(name)

    def invoke(*args: str, **environment: str) -> Result:
        return CliRunner().invoke(cli, args, env=environment)

    return invoke


@pytest.fixture
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real program."""

    def start(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "storebridge", *args]
        variables = {"PATH": os.environ["PATH"], **environment}
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)

    return start


@pytest.fixture(params=BACKENDS)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Sample:
    return make_sample(request.param, tmp_path / "data")


@pytest.fixture
def sqlite(tmp_path: Path) -> Sample:
    return make_sample("sqlite", tmp_path / "data")


def make_sample(backend: str, folder: Path) -> Sample:
    folder.mkdir()
    location = f"{backend}://{folder}/node"
    with open_database(location) as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        job_ids, execution_ids = [], []
        for number in range(4):
            labels = {"team": "web" if number % 2 else "ops"}
            job = jobs.create(Job(id=f"j-{number}{number}", name=f"job {number}", labels=labels))
            job_ids.append(job.id)
        for job_id in job_ids[:2]:
            execution = executions.create(
                Execution(
                    id=job_id.replace("j", "e"),
                    job_id=job_id,
                    node_id="pi4",
                    state="Running",
                    owner=this_process("pi4"),
                )
            )
            execution_ids.append(execution.id)
            jobs.set_state(job_id, "Running", message="started\tnow\n\x1b[31m")
        jobs.update(job_ids[0], priority=7)
    return Sample(location, folder, job_ids, execution_ids)


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file under a folder and what is in it."""
    return {str(path): _digest(path) for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _digest(path: Path) -> str:
    # LMDB's table of readers is written by whoever reads; it holds no data.
    return "" if path.name == "lock.mdb" else hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(name="fingerprint")
def _fingerprint() -> Callable[[Path], dict[str, str]]:
    return fingerprint
