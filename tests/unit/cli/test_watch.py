"""`storebridge watch`: what happens, as it happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from click.testing import Result

from storebridge import Job, JobStore, Retention, open_database
from tests.unit.cli.conftest import Sample

Run = Callable[..., Result]


def test_what_was(run: Run, sample: Sample) -> None:
    """From the first event on, as lines and as JSON, until nothing more happens."""
    lines = run("watch", sample.location, "--after", "0", "--timeout", "0").output.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(n) for n in range(1, len(lines) + 1)]
    assert lines[0].split("\t")[1:3] == ["job", "j-00"]
    arguments = ("--after", "0", "--timeout", "0", "--state", "Running", "--store", "job")
    result = run("watch", sample.location, "--json", *arguments)
    events = [json.loads(line) for line in result.output.splitlines()]
    assert {event["record_id"] for event in events} == {"j-00", "j-11"}
    assert {event["state"] for event in events} == {"Running"}


def test_a_checkpoint(run: Run, sample: Sample) -> None:
    """What nobody watched is shown the next time, and nothing twice."""
    arguments = ("watch", sample.location, "--from-checkpoint", "mailer", "--timeout", "0")
    first = run(*arguments).output.splitlines()
    assert len(first) > 5
    assert not run(*arguments).output
    with open_database(sample.location) as database:
        JobStore(database).create(Job(id="j-new"))
    (line,) = run(*arguments).output.splitlines()
    assert "j-new" in line


def test_a_checkpoint_behind_what_was_removed(run: Run, sample: Sample) -> None:
    """Who asks for events that retention took is told, and how to go on; a new checkpoint, too,
    which would begin with the first event."""
    with open_database(sample.location) as database:
        JobStore(database).delete(sample.jobs[0])
        database.clock = lambda: datetime.now(UTC) + timedelta(days=2)
        database.compact(Retention(keep=timedelta(days=1)))
        last = database.sequence()
    arguments = ("watch", sample.location, "--from-checkpoint", "new", "--timeout", "0")
    result = run(*arguments)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    _, advice = result.stderr.rstrip("\n").split("; or begin with what comes now: ")
    assert advice == f"--after {last}"
    assert run(*arguments, *advice.split()).exit_code == 0
    with open_database(sample.location) as database:
        JobStore(database).create(Job(id="j-new"))
    (line,) = run(*arguments).output.splitlines()
    assert "j-new" in line


def test_as_it_happens(sqlite: Sample) -> None:
    """A line comes when another process commits; Ctrl-C ends it."""
    command = [sys.executable, "-m", "storebridge", "watch", sqlite.location, "--after", "0"]
    # A run in the background ignores Ctrl-C, and what it starts would, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        with open_database(sqlite.location) as database:
            JobStore(database).create(Job(id="j-new"))
            while "j-new" not in process.stdout.readline():
                pass
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_asked_wrongly(run: Run, sqlite: Sample) -> None:
    for asked in (("--store", "jobs"), ("--state", "Runing")):
        result = run("watch", sqlite.location, *asked)
        assert result.exit_code == 2
        assert repr(asked[1]) in result.stderr
