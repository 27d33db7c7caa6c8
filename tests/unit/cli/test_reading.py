"""Commands that read: what they print, as text and as JSON, and that they change nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from storebridge import JobStore, open_database

Run = Callable[..., Result]
Fingerprint = Callable[[Path], dict[str, str]]

READING = [
    ("info",),
    ("check",),
    ("stats",),
    ("stats", "--quick"),
    ("tables",),
    ("counts",),
    ("recount",),
    ("keys", "job"),
    ("keys", "job-label", "--prefix", "te", "--reverse", "--limit", "2"),
    ("get", "job", "j-00"),
    ("jobs", "list"),
    ("jobs", "show", "j-0"),
    ("jobs", "history", "j-0"),
    ("executions", "list", "--job", "j-0"),
    ("executions", "list", "--orphans", "--node", "pi4"),
    ("executions", "show", "e-0"),
    ("executions", "history", "e-0"),
]


def documents(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_nothing_is_changed_or_made(
    command: tuple[str, ...], sample: Any, run: Run, fingerprint: Fingerprint
) -> None:
    before = fingerprint(sample.folder)
    text = run(*command, "--location", sample.location)
    as_json = run(*command, "--location", sample.location, "--json")
    assert (text.exit_code, as_json.exit_code) == (0, 0), text.stderr + as_json.stderr
    assert documents(as_json) or "--orphans" in command
    assert fingerprint(sample.folder) == before
    assert all("\x1b" not in line for line in text.stdout.splitlines())


@pytest.mark.parametrize("backend", ["sqlite", "lmdb"])
def test_nor_after_a_kill(backend: str, tmp_path: Path, run: Run, fingerprint: Fingerprint) -> None:
    location = f"{backend}://{tmp_path}/node"
    code = (
        "import os, sys; from storebridge import *; db = open_database(sys.argv[1]);"
        "JobStore(db).create(Job()); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, location], timeout=30)
    assert killed.returncode == -signal.SIGKILL
    before = fingerprint(tmp_path)
    (facts,) = documents(run("info", location, "--json"))
    assert [opener["alive"] for opener in facts["openers"]] == [False]
    assert documents(run("counts", location, "--json"))[0]["stores"]["job"]["Pending"] == 1
    assert fingerprint(tmp_path) == before


def test_what_is_not_there_is_not_made(tmp_path: Path, run: Run) -> None:
    for command in READING:
        result = run(*command, "--location", str(tmp_path / "no.db"))
        assert result.exit_code == 2
        assert "no.db" in result.stderr
    assert run("shell", str(tmp_path / "no.db")).exit_code == 2
    assert run("repair", str(tmp_path / "no.db")).exit_code == 2
    assert run("jobs", "delete", "j", "-l", str(tmp_path / "no.db")).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_info(sample: Any, run: Run) -> None:
    (facts,) = documents(run("info", sample.location, "--json"))
    assert facts["backend"] == sample.location.partition(":")[0]
    assert facts["traits"]["processes"] == "many"
    assert set(facts["stores"]) == {"job", "execution"}
    assert facts["openers"] == []
    assert facts["size"] > 0
    assert facts["engine"]
    with open_database(sample.location) as database:
        JobStore(database).set_state("j-33", "Queued")
        done = subprocess.run(
            [sys.executable, "-m", "storebridge", "info", sample.location, "--json"],
            capture_output=True,
            check=True,
            timeout=30,
        )
    assert [opener["pid"] for opener in json.loads(done.stdout)["openers"]] == [os.getpid()]


def test_counts_and_stats(sample: Any, run: Run) -> None:
    (counts,) = documents(run("counts", sample.location, "--json"))
    assert counts["stores"]["job"] == {
        "Pending": 2, "Queued": 0, "Running": 2, "Completed": 0, "Failed": 0, "Stopped": 0
    }  # fmt: skip
    assert "job\tRunning\t2" in run("counts", sample.location).stdout.splitlines()
    (stats,) = documents(run("stats", sample.location, "--json"))
    tables = stats["stores"]["job"]["tables"]
    assert tables["job"]["entries"] == 4
    assert tables["job-version"]["entries"] == 1
    body = run("get", "job", "j-00", "-l", sample.location).stdout
    assert tables["job"]["bytes"] > 3 * len(body)
    assert stats["last_event"] == 9


def test_tables_keys_and_bodies(sample: Any, run: Run) -> None:
    (found,) = documents(run("tables", sample.location, "--json"))
    job = next(table for table in found["tables"] if table["name"] == "job")
    assert job["key"] == ["id"]
    assert job["entries"] == 4
    assert "state" in job["columns"]
    assert "unique" in job["indexes"]
    for table in found["tables"]:
        keys = documents(run("keys", table["name"], "-l", sample.location, "--json"))
        assert len(keys) == table["entries"]
        for key in keys[:1]:
            words = [table["name"], *map(str, key)]
            assert documents(run("get", *words, "-l", sample.location, "--json"))[0] is not None
    lines = run("keys", "job-label", "-l", sample.location, "--reverse", "--limit", "1").stdout
    assert lines == "team\tweb\tj-33\n"


def test_lists(sample: Any, run: Run) -> None:
    def ids(*options: str) -> list[str]:
        return [job["id"] for job in documents(run("jobs", "list", *options, "--json"))]

    where = ("-l", sample.location)
    assert ids(*where) == sample.jobs
    assert ids(*where, "--state", "Running", "--state", "Queued") == ["j-00", "j-11"]
    assert ids(*where, "--labels", "team=web", "--descending") == ["j-33", "j-11"]
    assert ids(*where, "--prefix", "j-2") == ["j-22"]
    assert ids(*where, "--created-from", "2100-01-01T00:00:00Z") == []
    assert ids(*where, "--all", "--limit", "1") == sample.jobs
    first = run("jobs", "list", *where, "--limit", "3")
    assert len(first.stdout.splitlines()) == 3
    cursor = first.stderr.partition("--cursor ")[2].split()[0]
    assert ids(*where, "--cursor", cursor) == ["j-33"]
    # One record is one line, whatever is in it.
    assert r"started\tnow\n\x1b[31m" in first.stdout


def test_records(sample: Any, run: Run) -> None:
    where = ("-l", sample.location)
    (job,) = documents(run("jobs", "show", "j-0", *where, "--json"))
    assert (job["id"], job["priority"], job["version"]) == ("j-00", 7, 2)
    (old,) = documents(run("jobs", "show", "j-0", "--version", "1", *where, "--json"))
    assert (old["priority"], old["version"]) == (0, 1)
    assert run("jobs", "show", "j-0", "--version", "9", *where).exit_code == 1
    events = documents(run("jobs", "history", "j-0", *where, "--json"))
    assert [event["kind"] for event in events] == ["created", "state", "updated"]
    (execution,) = documents(run("executions", "list", "--job", "j-0", *where, "--json"))
    assert execution["owner"]["pid"] == os.getpid()


def test_the_environment_names_the_databases(sample: Any, run: Run, tmp_path: Path) -> None:
    both = {"JOB_STORE_PATH": sample.location, "EXECUTION_STORE_PATH": sample.location}
    assert len(documents(run("counts", "--json", **both))) == 1
    assert len(documents(run("jobs", "list", "--json", **both))) == 4
    other = f"sqlite://{tmp_path}/other.db"
    with open_database(other) as database:
        JobStore(database)
    two = both | {"JOB_STORE_PATH": other}
    assert len(documents(run("counts", "--json", **two))) == 2
    assert documents(run("jobs", "list", "--json", **two)) == []
    assert documents(run("get", "execution", "e-0", "--json", **two))[0]["id"] == "e-00"
    assert run("shell", **two).exit_code == 2
    prefixed = {f"LAB_{name}": value for name, value in both.items()}
    assert len(documents(run("jobs", "list", "--env-prefix", "LAB_", "--json", **prefixed))) == 4
    only_one = run("counts", JOB_STORE_PATH=str(tmp_path / "no.db"), EXECUTION_STORE_PATH=other)
    assert (only_one.exit_code, "job\tPending\t0" in only_one.stdout) == (2, True)


def test_backends(run: Run) -> None:
    (found,) = documents(run("backends", "--json"))
    by_name = {backend["name"]: backend for backend in found}
    assert by_name["sqlite"]["works"]
    assert by_name["sqlite"]["durability"] == ["full", "relaxed", "off"]
    assert by_name["lmdb"]["extra"] == "storebridge[lmdb]"
    assert by_name["memory"]["processes"] == "one"
    assert by_name["memory"]["persistent"] is False


def test_shell(sqlite: Any, program: Any, tmp_path: Path) -> None:
    """A stand-in for the command sqlite3, which a machine need not have, says how it is called."""
    stand_in = tmp_path / "sqlite3"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    done = program("shell", sqlite.location, ".tables", "-json", PATH=str(tmp_path))
    assert done.stdout.splitlines() == ["-readonly", f"{sqlite.folder}/node", ".tables", "-json"]
    stand_in.unlink()
    missing = program("shell", sqlite.location, PATH=str(tmp_path))
    assert missing.returncode == 2
    assert missing.stderr.startswith("storebridge: sqlite3 is not installed")
