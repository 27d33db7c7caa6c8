"""`storebridge bolt` beside the Go command, on a file of stores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storebridge import Job, JobStore, open_database
from tests.formats.bolt_support import needs_oracle, run

pytestmark = needs_oracle

COMMANDS = [
    ["check"],
    ["buckets"],
    ["keys", "job-index", "state"],
    ["keys", "--format", "hex", "job"],
    ["get", "job", "j-7"],
    ["get", "job", "no such key"],
    ["get", "none", "j-7"],
    ["info"],
    ["stats"],
    ["pages"],
    ["page", "0", "3"],
    ["page", "--all"],
    ["inspect"],
]


@pytest.fixture(scope="module")
def store_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bolt") / "jobs.bolt"
    with open_database(f"bolt://{path}?durability=off") as database:
        jobs = JobStore(database)
        with database.transaction():
            fill(jobs)
    return path


def fill(jobs: JobStore) -> None:
    for number in range(300):
        jobs.create(Job(id=f"j-{number}", name=f"überschrift {number}", labels={"n": "1"}))


def in_order(command: list[str], path: Path) -> list[str]:
    """The command line: options, the file, the rest."""
    name, *rest = command
    options = 0
    while options < len(rest) and rest[options].startswith("--"):
        options += 1 if rest[options] == "--all" else 2
    return [name, *rest[:options], str(path), *rest[options:]]


def ours(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "storebridge", "bolt", *arguments],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_prints_what_go_prints(command: list[str], store_file: Path) -> None:
    """Output and exit code are the Go command's; an error is one line on stderr."""
    arguments = in_order(command, store_file)
    go, mine = run("bbolt", *arguments), ours(arguments)
    assert mine.stdout == go.stdout
    assert mine.returncode == go.returncode
    assert bool(mine.stderr) == bool(go.stderr)
    assert mine.stderr.count(b"\n") <= 1


def test_compacts_as_go_does(store_file: Path, tmp_path: Path) -> None:
    """The compacted file is sound, and the line about it is the Go command's."""
    theirs = run("bbolt", "compact", "-o", tmp_path / "go.db", store_file)
    mine = ours(["compact", "-o", str(tmp_path / "mine.db"), str(store_file)])
    assert (mine.returncode, theirs.returncode) == (0, 0)
    assert mine.stdout.split(b" -> ")[0] == theirs.stdout.split(b" -> ")[0]
    assert run("bbolt", "check", tmp_path / "mine.db").stdout == b"OK\n"


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "not bolt", "missing"])
def test_says_in_one_line_what_is_wrong(damage: str, store_file: Path, tmp_path: Path) -> None:
    """Where Go panics there is one clear line and exit code 1."""
    path = tmp_path / "damaged.db"
    content = store_file.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "zeroed":
        path.write_bytes(content[:8192] + bytes(len(content) - 8192))
    elif damage == "not bolt":
        path.write_bytes(b"something else\n" * 1000)
    result = ours(["keys", str(path), "job"])
    assert result.returncode == 1
    assert result.stdout == b""
    assert result.stderr.startswith(b"Error: ")
    assert result.stderr.count(b"\n") == 1
