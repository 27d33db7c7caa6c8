"""Backups: good ones only, as many as wanted, and the way back."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import sleep
from typing import Any

import pytest
from click.testing import CliRunner

from storebridge import (
    ConfigurationError,
    CorruptStoreError,
    Database,
    Job,
    JobStore,
    StoreLockedError,
    open_database,
)
from storebridge.cli.app import cli
from storebridge.errors import DamagedExportError
from storebridge.transfer import backups
from storebridge.transfer.backups import back_up, backups_in, last_backup, name_of, restore
from storebridge.transfer.content import content_of
from storebridge.transfer.digests import digest_of
from storebridge.transfer.verification import verify
from tests.unit.users import OTHER, become, two_users

BACKENDS = ("sqlite", "lmdb", "bolt", "tinydb")
START = datetime(2026, 11, 1, tzinfo=UTC)


class Clock:
    """A clock to be set, that goes on by itself."""

    now = START

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Database]:
    with open_database(f"{request.param}://{tmp_path}/node.x", clock=clock) as database:
        jobs = JobStore(database)
        for number in range(30):
            jobs.create(Job(id=f"j-{number}", labels={"n": str(number)}))
        yield database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "usb"
    folder.mkdir()
    return folder


def digest(database: Database) -> str:
    with content_of(database) as content:
        return digest_of(content).sha256


def test_there_and_back(database: Database, folder: Path, tmp_path: Path) -> None:
    """What a backup holds is what the database held, on every backend and in another one."""
    before = digest(database)
    report = back_up(database, [folder])
    (copy,) = report.copies
    assert report.ok
    assert copy.sha256 == before == digest(database)
    assert copy.file is not None
    assert Path(copy.file).stat().st_mode & 0o777 == 0o600
    JobStore(database).create(Job())
    for other in BACKENDS:
        restored = restore(copy.file, f"{other}://{tmp_path}/restored-{other}")
        with open_database(f"{other}://{tmp_path}/restored-{other}") as found:
            assert digest(found) == before == restored.digest.sha256


def test_it_is_noted_in_the_database(database: Database, folder: Path) -> None:
    assert last_backup(database) is None
    (copy,) = back_up(database, [folder]).copies
    last = last_backup(database)
    assert last is not None
    assert last[0] - START < timedelta(seconds=1)
    assert last[1].files == (copy.file,)
    assert last[1].sequence == database.sequence()


def test_restoring_keeps_what_was_there(database: Database, folder: Path) -> None:
    (copy,) = back_up(database, [folder]).copies
    JobStore(database).create(Job(id="j-later"))
    later = digest(database)
    location, backend = database.location.text, database.location.backend.name
    database.close()
    report = restore(str(copy.file), location)
    with open_database(location) as found:
        assert digest(found) == copy.sha256
    with open_database(f"{backend}://{report.replaces}") as kept:
        assert digest(kept) == later


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 8]


def _overwrite(data: bytes) -> bytes:
    """Everything but what shows of which format it is, and how large."""
    return data[:8192] + b"\xa5" * (len(data) - 8192) if len(data) > 8192 else b"{" * len(data)


@pytest.mark.parametrize("damage", [_cut, _overwrite])
def test_a_damaged_database_is_replaced(
    database: Database, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    """What backups are for: where the database cannot be read, or not even opened, it is restored,
    and what is left of it is kept as it is. A migration does not replace it unasked.
    """
    jobs = JobStore(database)
    with database.transaction():
        for _ in range(200):
            jobs.create(Job())
    (copy,) = back_up(database, [folder]).copies
    location, path = database.location.text, Path(database.location.target)
    database.close()
    file = path / "data.mdb" if path.is_dir() else path
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    with open_database("memory:other") as other:
        JobStore(other)
        with pytest.raises((CorruptStoreError, ConfigurationError)):
            other.migrate_to(location)
    report = restore(str(copy.file), location)
    with open_database(location) as found:
        assert digest(found) == copy.sha256
    kept = report.replaces
    assert kept is not None
    assert (kept / "data.mdb" if kept.is_dir() else kept).read_bytes() == damaged


def test_a_database_in_use_is_not_replaced(database: Database, folder: Path) -> None:
    (copy,) = back_up(database, [folder]).copies
    JobStore(database).create(Job())
    before = digest(database)
    with pytest.raises((StoreLockedError, ConfigurationError)):
        restore(str(copy.file), database.location.text)
    assert digest(database) == before


@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_a_damaged_backup_replaces_nothing(database: Database, folder: Path, damage: str) -> None:
    (copy,) = back_up(database, [folder]).copies
    text = gzip.decompress(Path(str(copy.file)).read_bytes())
    half = len(text) // 2
    broken = text[:half] if damage == "cut" else text[:half] + b"~" + text[half + 1 :]
    Path(str(copy.file)).write_bytes(gzip.compress(broken))
    before, location = digest(database), database.location.text
    database.close()
    with pytest.raises(DamagedExportError, match="line"):
        restore(str(copy.file), location)
    with open_database(location) as found:
        assert digest(found) == before


def test_old_ones_go_only_when_a_new_one_is_there(
    database: Database, folder: Path, clock: Clock
) -> None:
    """Other files, and other databases' backups, stay."""
    name = name_of(database)
    others = [folder / "notes.txt", folder / f"{name}-1-20200101T000000.000000Z.jsonl.gz"]
    for other in others:
        other.write_text("mine")
    for day in range(5):
        clock.now = START + timedelta(days=day)
        report = back_up(database, [folder], keep=3)
    assert len(report.copies[0].removed) == 1
    kept = [(time - START).days for time, _ in backups_in(folder, name)]
    assert kept == [2, 3, 4]
    assert all(other.exists() for other in others)


def test_one_that_fails_removes_nothing(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(database, [folder])
    monkeypatch.setattr(backups, "_SHARE", 1e-12)  # as if the disk were too small
    report = back_up(database, [folder], keep=1)
    assert not report.ok
    assert "free" in str(report.copies[0].error)
    assert len(list(folder.iterdir())) == 1


def test_young_enough(database: Database, folder: Path, clock: Clock) -> None:
    back_up(database, [folder])
    clock.now += timedelta(hours=23)
    report = back_up(database, [folder], if_older_than=timedelta(days=1))
    assert report.ok
    assert not report.copies[0].is_new
    clock.now += timedelta(hours=2)
    assert back_up(database, [folder], if_older_than=timedelta(days=1)).copies[0].is_new
    assert len(backups_in(folder, name_of(database))) == 2


def test_one_of_a_time_to_come_does_not_count(
    database: Database, folder: Path, clock: Clock
) -> None:
    """A clock that was wrong once must not keep backups from being made."""
    clock.now = START + timedelta(days=3650)
    back_up(database, [folder])
    clock.now = START
    assert back_up(database, [folder], if_older_than=timedelta(days=1)).copies[0].is_new


def test_one_place_that_fails_stops_nothing(database: Database, folder: Path) -> None:
    missing = folder / "not mounted"
    report = back_up(database, [missing, folder])
    assert report.held == 1
    assert not report.ok
    assert "no such folder" in str(report.copies[0].error)
    assert back_up(database, [missing, folder], copies=1).ok


def test_enough_copies_are_enough(database: Database, folder: Path, tmp_path: Path) -> None:
    folders = [folder, tmp_path / "b", tmp_path / "c"]
    for each in folders[1:]:
        each.mkdir()
    report = back_up(database, folders, copies=2)
    assert report.ok
    assert [len(list(each.iterdir())) for each in folders] == [1, 1, 0]


@pytest.mark.parametrize("asked", [{"copies": 0}, {"copies": 2}, {"keep": 0}])
def test_what_cannot_be_asked(folder: Path, asked: dict[str, int]) -> None:
    with open_database("memory:bad-backups") as database, pytest.raises(ConfigurationError):
        back_up(database, [folder], **asked)  # type: ignore[arg-type]


def test_two_of_one_name(folder: Path, tmp_path: Path) -> None:
    """Databases whose files are called the same share a folder without harm: neither removes the
    other's backups, nor takes them for its own.
    """
    kept = []
    for place in ("requester", "compute"):
        (tmp_path / place).mkdir()
        with open_database(tmp_path / place / "node.db") as database:
            JobStore(database).create(Job(id=place))
            (copy,) = back_up(database, [folder], keep=1, if_older_than=timedelta(days=1)).copies
            assert (copy.is_new, copy.removed) == (True, ())
            kept.append(copy)
    for copy, place in zip(kept, ("requester", "compute"), strict=True):
        restore(str(copy.file), tmp_path / f"{place}.db")
        with open_database(tmp_path / f"{place}.db") as database:
            assert JobStore(database).get(place).state == "Pending"


def test_it_cannot_be_noted(tmp_path: Path, folder: Path) -> None:
    """A backup that is good counts and is reported, though the database cannot be written to at
    this moment: then it is needed most.
    """
    location = f"sqlite://{tmp_path}/node.db?lock_timeout=0.1"
    code = (
        "import sys; from storebridge import *; database = open_database(sys.argv[1])\n"
        "with database.transaction():\n"
        "    database.set_checkpoint('x', 1); print(flush=True); sys.stdin.read()"
    )
    with open_database(location) as database:
        JobStore(database).create(Job())
        with subprocess.Popen(
            [sys.executable, "-c", code, location], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            report = back_up(database, [folder])
            writer.communicate()
        assert report.ok
        assert last_backup(database) is None
        assert len(backups_in(folder, name_of(database))) == 1


class Steps:
    """Changes of a database, each the same whenever it is made, and the clock that they go by."""

    def __init__(self, location: str) -> None:
        self.done = 0
        self.database = open_database(location, clock=self.now)
        self.jobs = JobStore(self.database)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.done)

    def wait_for_another(self) -> None:
        done = self.done
        while self.done == done:
            sleep(0.01)

    def make(self) -> None:
        number = self.done // 4
        job = f"j-{number}"
        if self.done % 4 == 0:
            self.jobs.create(Job(id=job, name=job, labels={"n": str(number % 5), "😀": "x"}))
        elif self.done % 4 == 1:
            self.jobs.set_state(job, "Running", message="\0 began")
        elif self.done % 4 == 2:
            self.jobs.update(job, priority=number)
        elif number % 3:
            self.jobs.set_state(job, "Completed")
        else:
            self.jobs.delete(job)
        self.done += 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_what_the_events_say(backend: str, folder: Path, tmp_path: Path) -> None:
    """A backup of a database that is written to 50 times a second is what the database was at one
    event: what is restored from it passes `verify` against one in which all changes up to there
    were made, and none after.
    """
    live = Steps(f"{backend}://{tmp_path}/live")
    with live.database.transaction():
        while live.done < 2000:
            live.make()
    stop = Event()

    def write() -> None:
        while not stop.wait(1 / 50):
            live.make()

    writer = Thread(target=write)
    writer.start()
    try:
        places = [folder / str(number) for number in range(3)]
        for place in places:
            place.mkdir()
        live.wait_for_another()
        copies = [back_up(live.database, [place]).copies[0] for place in places]
        live.wait_for_another()
    finally:
        stop.set()
        writer.join()
    twin = Steps(f"{backend}://{tmp_path}/twin")
    with live.database, twin.database:
        for number, copy in enumerate(copies):
            restore(str(copy.file), f"{tmp_path}/{number}.db")
            with open_database(f"{tmp_path}/{number}.db") as restored:
                last = restored.sequence()
                while twin.database.sequence() < last:
                    twin.make()
                assert verify(twin.database, restored).equal
                told = [event for event in live.database.events(0) if event.sequence <= last]
                assert list(restored.events(0)) == told
        assert 2000 < last < live.database.sequence(), "it was not written to meanwhile"


def test_writers_go_on(database: Database, folder: Path) -> None:
    """What is written meanwhile is in the backup up to a moment, and not beyond."""
    jobs = JobStore(database)
    stop = False

    def write() -> None:
        number = 0
        while not stop:
            jobs.create(Job(id=f"w-{number:06}"))
            number += 1

    writer = Thread(target=write)
    writer.start()
    try:
        reports = [back_up(database, [folder]) for _ in range(3)]
    finally:
        stop = True
        writer.join()
    for report in reports:
        name = restore(str(report.copies[0].file), f"sqlite://{folder}/{report.sequence}.db")
        with open_database(name.target) as found:
            written = [job.id for job in JobStore(found).each(prefix="w-")]
            assert written == [f"w-{number:06}" for number in range(len(written))]
            assert found.sequence() >= report.sequence
            assert sum(JobStore(found).counts().values()) == found.sequence()


def test_steps_yield_to_writers(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """While this process writes to the database, each step of a backup is followed by a pause that
    is as long; while it does not, there is none.
    """
    pauses: list[float] = []
    monkeypatch.setattr(backups, "sleep", pauses.append)
    with open_database("memory:yielding") as database:
        jobs = JobStore(database)
        with database.transaction():
            for _ in range(3000):
                jobs.create(Job())
        back_up(database, [folder])
        assert not pauses
        monkeypatch.setattr(jobs.database.statistics, "transactions", 0)
        steps = 0

        def now() -> float:
            nonlocal steps
            steps += 1
            # Steps of 10 ms, each followed by a look at the clock at once; something was written.
            database.statistics.transactions = 1
            return (steps // 2) * 0.01

        monkeypatch.setattr(backups, "perf_counter", now)
        back_up(database, [folder])
    assert len(pauses) > 40
    assert {round(pause, 6) for pause in pauses} == {0.01}


def test_killed_at_any_moment(tmp_path: Path, folder: Path) -> None:
    """What has the name of a backup is one; what a killed one left is not, and goes in time."""
    location = f"sqlite://{tmp_path}/node.db"
    with open_database(location) as database:
        jobs = JobStore(database)
        with database.transaction():
            for _ in range(3000):
                jobs.create(Job())
    code = (
        "import sys\nfrom storebridge import *\nfrom storebridge.transfer.backups import back_up\n"
        "database = open_database(sys.argv[1], read_only=True)\nprint(flush=True)\n"
        "while True: back_up(database, [sys.argv[2]])"
    )
    for round_ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", code, location, str(folder)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05 + 0.07 * round_)
            process.kill()
    with open_database(location) as database:
        found = backups_in(folder, name_of(database))
    for number, (_, path) in enumerate(found):
        assert restore(path, f"sqlite://{tmp_path}/{number}.db").digest.entries > 3000
    left = list(folder.glob("*.partial"))
    assert left, "no kill struck while one was being written"
    for path in left:
        os.utime(path, (0, 0))
    with open_database(location) as database:
        back_up(database, [folder])
    assert not list(folder.glob("*.partial"))


@two_users
@pytest.mark.parametrize("backend", BACKENDS)
def test_who_may_only_read(backend: str) -> None:
    """Another user than the owner's, who may read the database, can back it up."""
    with TemporaryDirectory(prefix="storebridge-") as name:
        folder, location = Path(name), f"{backend}://{name}/node?mode=0644"
        folder.chmod(0o755)
        for made in ("roots", "others"):
            (folder / made).mkdir()
        os.chown(folder / "others", OTHER, -1)
        with open_database(location) as database:
            JobStore(database).create(Job())
            before = digest(database)
        command = ["backup", "-l", location.partition("?")[0]]
        CliRunner().invoke(cli, [*command, f"{name}/roots"])  # imports what the other may not read
        child = os.fork()
        if not child:
            become(OTHER)
            result = CliRunner().invoke(cli, [*command, f"{name}/others"])
            os._exit(result.exit_code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        (made_by_other,) = (folder / "others").iterdir()
        assert made_by_other.stat().st_uid == OTHER
        assert restore(made_by_other, f"sqlite://{name}/restored").digest.sha256 == before


def test_the_commands(tmp_path: Path, folder: Path) -> None:
    """`backup` and `restore`, as a timer would call them."""
    location = f"sqlite://{tmp_path}/node.db"
    with open_database(location) as database:
        JobStore(database).create(Job(id="j-1"))

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "storebridge", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    missing = str(folder / "none")
    made = run("backup", str(folder), missing, "-l", location, "--json", "--keep", "7")
    assert made.returncode == 1
    report: dict[str, Any] = json.loads(made.stdout)
    assert report["held"] == 1
    again = run("backup", str(folder), missing, "-l", location, "--copies=1", "--if-older-than=1d")
    assert again.returncode == 0, again.stderr
    assert "young enough" in again.stdout
    restored = run("restore", report["copies"][0]["file"], "-l", location, "--json")
    assert restored.returncode == 0, restored.stderr
    assert json.loads(restored.stdout)["sha256"] == report["copies"][0]["sha256"]
    for where in (location, f"{tmp_path}/node.db"):  # not even its first bytes are left
        (tmp_path / "node.db").write_bytes(bytes(9000))
        refused = run("restore", report["copies"][0]["file"], "-l", where)
        assert (refused.returncode, "move it elsewhere" in refused.stderr) == (2, True)
        assert (tmp_path / "node.db").read_bytes() == bytes(9000)
    wrong = run("backup", str(folder), "-l", location, "--if-older-than", "soon")
    assert wrong.returncode == 2
    assert "12h" in wrong.stderr
