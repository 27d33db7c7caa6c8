"""`storebridge doctor`: what is wrong is found, named, and exits with 1; what is well does not."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from storebridge import ExecutionStore, Job, JobStore, Retention, doctor, open_database
from storebridge.cli.app import cli
from storebridge.doctor import Finding, examine
from storebridge.driver import Usage
from storebridge.location import parse_location
from storebridge.transfer.backups import back_up
from storebridge.transfer.progress import Progress
from tests.unit.cli.conftest import Sample

Run = Callable[..., Result]


def _bad(location: str, **how: Any) -> dict[str, Finding]:
    found = examine(parse_location(location), **how)
    return {finding.subject: finding for finding in found if finding.verdict == "bad"}


def test_a_healthy_database(run: Run, sample: Sample, fingerprint: Any) -> None:
    """Every part is looked at, none is bad, and no file changes."""
    before = fingerprint(sample.folder)
    result = run("doctor", sample.location, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["ok"]
    subjects = {finding["subject"] for finding in report["findings"]}
    assert subjects >= {
        "files",
        "log",
        "disk",
        "layout",
        "openers",
        "lock",
        "space",
        "backup",
        "clock",
        "content",
    }
    others = [finding for finding in report["findings"] if finding["verdict"] != "good"]
    assert [finding["what"] for finding in others] == ["never backed up"]
    assert fingerprint(sample.folder) == before


def test_lines_in_a_pipe(run: Run, sqlite: Sample) -> None:
    lines = [line.split("\t") for line in run("doctor", sqlite.location).output.splitlines()]
    assert all(len(cells) == 4 for cells in lines)
    assert [cells[:2] for cells in lines][:4] == [
        ["files", "good"],
        ["log", "good"],
        ["disk", "good"],
        ["layout", "good"],
    ]


def test_an_edited_column(run: Run, sqlite: Sample) -> None:
    with sqlite3.connect(sqlite.folder / "node") as connection:
        connection.execute("update job set state = 'Stopped' where id = ?", [sqlite.jobs[0]])
    connection.close()
    result = run("doctor", sqlite.location)
    assert result.exit_code == 1
    assert "storebridge repair" in result.output
    assert run("doctor", sqlite.location, "--quick").exit_code == 0
    assert run("repair", sqlite.location, "--yes").exit_code == 0
    assert run("doctor", sqlite.location).exit_code == 0


def test_an_unreadable_body_is_found(sqlite: Sample) -> None:
    with sqlite3.connect(sqlite.folder / "node") as connection:
        connection.execute("update job set body = '{' where id = ?", [sqlite.jobs[0]])
    connection.close()
    found = _bad(sqlite.location)["content"]
    assert sqlite.jobs[0] in found.what
    # `repair` would leave it as it is: the command shows what there is of it.
    looking, _ = str(found.mend).split(" prints it")
    command = [sys.executable, "-m", *shlex.split(looking)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.strip() == b"{"


def test_many_faults_are_cut_short(sqlite: Sample) -> None:
    with sqlite3.connect(sqlite.folder / "node") as connection:
        connection.execute("update job set state = 'Stopped'")
    connection.close()
    found = [f for f in examine(parse_location(sqlite.location)) if f.subject == "content"]
    assert len(found) == 4
    assert "more" in found[-1].what
    assert "storebridge check" in str(found[-1].mend)


def test_a_killed_writer_is_worth_a_notice(sample: Sample, program: Any) -> None:
    code = (
        "import os, signal, sys; from storebridge import *;"
        "open_job_store(sys.argv[1]).create(Job()); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, sample.location], check=False)
    found = [f for f in examine(parse_location(sample.location)) if f.verdict == "notice"]
    assert [finding.subject for finding in found] == ["openers", "backup"]
    assert "recount" in str(found[0].mend)


def test_a_clock_behind_the_last_event(sqlite: Sample) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    with open_database(sqlite.location, clock=lambda: later) as database:
        JobStore(database).create(Job())
    assert "the last event" in _bad(sqlite.location)["clock"].what


def test_the_last_event_may_be_gone(sqlite: Sample) -> None:
    """Events of deleted records go with retention, the very last one, too: nothing is bad."""
    with open_database(sqlite.location) as database:
        JobStore(database).delete(sqlite.jobs[0])
        database.clock = lambda: datetime.now(UTC) + timedelta(days=2)
        database.compact(Retention(keep=timedelta(days=1)))
        assert [event.sequence for event in database.events()][-1] < database.sequence()
    assert not _bad(sqlite.location)


def test_a_file_that_everybody_may_write(sqlite: Sample) -> None:
    (sqlite.folder / "node").chmod(0o666)
    found = _bad(sqlite.location)["files"]
    assert found.mend == f"chmod o-w {sqlite.folder / 'node'}"
    (sqlite.folder / "node").chmod(0o644)
    assert not _bad(sqlite.location)


def test_a_damaged_file(run: Run, sqlite: Sample) -> None:
    path = sqlite.folder / "node"
    body = bytearray(path.read_bytes())
    body[4096 : 4096 * 3] = b"\xff" * 8192
    path.write_bytes(body)
    result = run("doctor", sqlite.location)
    assert result.exit_code == 1
    assert "bad" in result.output


def test_a_database_that_another_process_keeps(tmp_path: Path) -> None:
    """One that only a single process may open is said to be in use, and is not bad for it."""
    location = f"bolt://{tmp_path}/node.bolt?lock_timeout=0.1"
    code = (
        "import sys; from storebridge import *; jobs = open_job_store(sys.argv[1]);"
        "jobs.create(Job()); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, location], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as keeper:
        assert keeper.stdout is not None
        keeper.stdout.readline()
        found = list(examine(parse_location(location)))
        keeper.communicate()
    assert [f.subject for f in found if f.verdict == "notice"] == ["opening"]
    assert str(keeper.pid) in found[-1].what
    assert not [f for f in found if f.verdict == "bad"]


def test_little_disk(sqlite: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_DISK", 1 << 62)
    monkeypatch.setattr(doctor, "MEBIBYTE", 1 << 62)
    finding = _bad(sqlite.location)["disk"]
    assert "free" in finding.what
    _assert_is_command(str(finding.mend).removeprefix("make room, or: "))


def _assert_is_command(mend: str | None) -> None:
    """What is told to mend it can be given as it stands."""
    program, *words = shlex.split(str(mend))
    assert program == "storebridge"
    with cli.make_context("storebridge", words) as context:
        name, command, rest = cli.resolve_command(context, words)
        assert command is not None
        command.make_context(name, rest)


def test_what_mends_it_is_a_command(
    sqlite: Sample, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every command that is named exists and takes the arguments that it is named with, also where
    the path has blanks.
    """
    folder = tmp_path / "my data"
    folder.mkdir()
    with open_database(sqlite.location) as database:
        database.migrate_to(folder / "node.db")
    monkeypatch.setattr(doctor, "WORTH_RECLAIMING", -1)
    monkeypatch.setattr("storebridge_sqlite.driver.SqliteDriver.usage", lambda _: Usage(10, 9))
    subprocess.run([sys.executable, "-c", _DIE, str(folder / "node.db")], check=False)
    with sqlite3.connect(folder / "node.db") as connection:
        connection.execute("update job set state = 'Stopped'")
    connection.close()
    found = list(examine(parse_location(str(folder / "node.db"))))
    mends = {finding.subject: finding.mend for finding in found if finding.mend}
    assert mends.keys() == {"openers", "space", "backup", "content"}
    for mend in [finding.mend for finding in found if finding.mend]:
        _assert_is_command(mend)
    (folder / "node.db").write_bytes((folder / "node.db").read_bytes()[:5000])
    for end in ("-wal", "-shm"):
        (folder / f"node.db{end}").unlink(missing_ok=True)
    _assert_is_command(_bad(str(folder / "node.db"))["opening"].mend)


_DIE = """
import os, signal, sys
from storebridge import Job, open_job_store
open_job_store(sys.argv[1]).create(Job())
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_one_that_is_not_whole_yet(sqlite: Sample, tmp_path: Path) -> None:
    """A target whose migration was stopped says how to go on, and not to restore a backup."""

    def stop(progress: Progress) -> None:
        if progress.stage == "verify":
            raise RuntimeError

    with open_database(sqlite.location) as database, pytest.raises(RuntimeError):
        database.migrate_to(tmp_path / "half.db", watch=stop)
    found = _bad(str(tmp_path / "half.db"))["opening"]
    assert "give the same command again" in found.what
    assert found.mend is None


def test_the_log(sqlite: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it is; too long, whoever has the database open is named."""
    path = sqlite.folder / "node"
    with open_database(sqlite.location) as database:
        JobStore(database).create(Job())
        (log,) = [f for f in examine(parse_location(sqlite.location)) if f.subject == "log"]
        assert (log.verdict, log.what[:8]) == ("good", "node-wal")
        with subprocess.Popen(
            [sys.executable, "-c", _READ, sqlite.location],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            monkeypatch.setattr(doctor, "LARGE_LOG", 100)
            os.truncate(f"{path}-wal", 10 * path.stat().st_size)
            log = _bad(sqlite.location, quick=True)["log"]
            assert str(reader.pid) in log.what
            _assert_is_command(str(log.mend).partition("then: ")[2])
            reader.communicate()


_READ = """
import sys
from storebridge import JobStore, open_database
with open_database(sys.argv[1], read_only=True) as database, database.snapshot():
    JobStore(database).count()
    print(flush=True)
    sys.stdin.read()
"""


def test_a_reader_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has been reading for a thousand transactions is named; one that was killed is not there
    any more.
    """
    monkeypatch.setattr(doctor, "FAR_BEHIND", 10)
    location = f"lmdb://{tmp_path}/node"

    def late() -> list[Finding]:
        found = [f for f in examine(parse_location(location)) if f.subject == "readers"]
        return [finding for finding in found if finding.verdict == "notice"]

    with open_database(location) as database:
        JobStore(database)
    with subprocess.Popen(
        [sys.executable, "-c", _READ, location], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        assert not late()
        with open_database(location) as database:
            for _ in range(12):
                JobStore(database).create(Job())
        (finding,) = late()
        assert re.match(rf"process {reader.pid} .* 1[2-9] transactions ago", finding.what)
        reader.kill()
    assert not late()


def test_the_age_of_the_last_backup(sqlite: Sample, tmp_path: Path) -> None:
    """How old it is, and how much has happened since; a week and a change are a notice."""
    (tmp_path / "usb").mkdir()
    with open_database(sqlite.location) as database:
        database.clock = lambda: datetime.now(UTC) - timedelta(days=9)
        back_up(database, [tmp_path / "usb"])

    def found() -> Finding:
        (finding,) = [f for f in examine(parse_location(sqlite.location)) if f.subject == "backup"]
        return finding

    assert found().verdict == "good"
    assert found().what.startswith("9 days ago (")
    with open_database(sqlite.location) as database:
        JobStore(database).create(Job())
    assert found().verdict == "notice"
    assert " 1 event since, in " in found().what


def test_nothing_there(run: Run, tmp_path: Path) -> None:
    result = run("doctor", str(tmp_path / "none.db"))
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_executions_are_looked_at_too(sqlite: Sample) -> None:
    """Stores are those of the database, whoever made them."""
    with open_database(sqlite.location) as database:
        ExecutionStore(database)
    with sqlite3.connect(sqlite.folder / "node") as connection:
        connection.execute("delete from execution_history")
        connection.execute("update execution set node_id = 'elsewhere'")
    connection.close()
    assert "execution" in _bad(sqlite.location)["content"].what


def test_a_server_that_does_not_answer(run: Run) -> None:
    """No backup mends that."""
    result = run("doctor", "postgresql+psycopg://me@127.0.0.1:1/x", "--json")
    assert result.exit_code == 1
    assert "refused" in result.output
    assert "restore" not in result.output
