"""What is at a target before, and who has it open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest

from storebridge import (
    ConfigurationError,
    CorruptStoreError,
    Database,
    ForeignFileError,
    IncompleteStoreError,
    Job,
    JobStore,
    StoreLockedError,
    open_database,
)
from storebridge.location import parse_location
from storebridge.replacing import while_replacing
from storebridge.testing.stores.base import contents
from storebridge.transfer import filling
from storebridge.transfer.filling import Filling
from storebridge.transfer.progress import Progress
from tests.unit.transfer.support import FILES

_OPEN = """
import sys
from storebridge import JobStore, open_database
with open_database(sys.argv[1]) as database:
    print(JobStore(database).count(), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path / "source.db") as database:
        JobStore(database).create(Job(id="new"))
        yield database


@contextmanager
def open_elsewhere(location: str) -> Iterator[int]:
    """A process that has it open, has read it, and writes nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", _OPEN, location],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        try:
            yield process.pid
        finally:
            process.communicate("\n")
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell who has files open")
@pytest.mark.parametrize("backend", ["sqlite", "lmdb"])
def test_open_in_another_process(backend: str, source: Database, tmp_path: Path) -> None:
    """What another process has open is not replaced, though it may never have written: what it
    wrote later would be lost. The process is named, and nothing has to be copied again.
    """
    target = f"{backend}://{tmp_path}/target"
    with open_database(target) as database:
        JobStore(database).create(Job(id="old"))
    with open_elsewhere(target) as pid:
        with pytest.raises(StoreLockedError, match=f"process {pid} has it open") as caught:
            source.migrate_to(target, overwrite=True)
        assert caught.value.holder == pid
    with open_database(target) as database:
        assert [job.id for job in JobStore(database).find()] == ["old"]
    report = source.migrate_to(target, overwrite=True)
    assert (report.resumed, report.added) == (True, 0)
    with open_database(target) as database:
        assert contents(database) == contents(source)


@pytest.mark.parametrize("backend", FILES)
def test_opened_here_meanwhile(backend: str, source: Database, tmp_path: Path) -> None:
    """What another thread opens while its replacement is made is not replaced under it: what it
    writes is not lost, and once it is closed the same call goes on.
    """
    target = f"{backend}://{tmp_path}/target"
    with open_database(target) as database:
        JobStore(database).create(Job(id="old"))
    opened: list[Database] = []

    def open_it(progress: Progress) -> None:
        if progress.stage == "verify" and not opened:
            opened.append(open_database(target))

    with pytest.raises(StoreLockedError, match="open in this process"):
        source.migrate_to(target, overwrite=True, watch=open_it)
    with opened[0] as database:
        JobStore(database).create(Job(id="acknowledged"))
    with open_database(target) as database:
        assert {job.id for job in JobStore(database).find()} == {"old", "acknowledged"}
    report = source.migrate_to(target, overwrite=True)
    with open_database(target) as database:
        assert contents(database) == contents(source)
    with open_database(f"{backend}://{report.replaces}") as database:
        assert JobStore(database).get("acknowledged").state == "Pending"


_COME_AND_GO = """
import sys, time
from storebridge import Job, JobStore, StorebridgeError, open_database
number = 0
while True:
    try:
        with open_database(sys.argv[1], create=False) as database:
            JobStore(database).create(Job(id=f"w-{number}"))
    except StorebridgeError:
        continue
    print(number, flush=True)
    number += 1
    time.sleep(0.003)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell who has files open")
@pytest.mark.parametrize("backend", FILES)
def test_one_that_comes_and_goes(backend: str, source: Database, tmp_path: Path) -> None:
    """A process that opens, writes and closes all the time, while what it opens is replaced again
    and again: whatever it was told is written is in the database, or in one that was put away.
    """
    target = f"{backend}://{tmp_path}/target"
    source.migrate_to(target)
    command = [sys.executable, "-c", _COME_AND_GO, target]
    kept: list[Path | None] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        until = monotonic() + 60
        while len(kept) < 6 and monotonic() < until:
            with suppress(StoreLockedError):
                kept.append(source.migrate_to(target, overwrite=True).replaces)
        process.kill()
        told = {"w-0"} | {f"w-{line.strip()}" for line in process.stdout if line.endswith("\n")}
    assert len(kept) == 6
    found = set()
    for path in (*kept, tmp_path / "target"):
        with open_database(f"{backend}://{path}") as database:
            jobs = {job.id for job in JobStore(database).each()}
            assert "new" in jobs
            found |= jobs
    assert told <= found


def test_while_one_is_opening(source: Database, tmp_path: Path) -> None:
    """Who is in the midst of opening cannot be seen yet: it is waited for, and who comes while a
    database takes the place of another waits, too.
    """
    target = tmp_path / "target.db"
    source.migrate_to(target)
    code = (
        "import sys; from pathlib import Path; from storebridge.replacing import while_opening\n"
        "with while_opening(Path(sys.argv[1]), 1):\n"
        "    print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as opening:
        assert opening.stdout is not None
        opening.stdout.readline()
        with pytest.raises(StoreLockedError, match="another process is opening"):
            source.migrate_to(f"{target}?lock_timeout=0.1", overwrite=True)
        opening.communicate()
    source.migrate_to(target, overwrite=True)
    with while_replacing(target, 1):
        late = subprocess.Popen(
            [sys.executable, "-c", _OPEN, str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            late.communicate("\n", timeout=1)
    assert late.communicate(timeout=60)[0] == "1\n"


@pytest.mark.parametrize("backend", FILES)
def test_those_who_could_use_it_still_can(backend: str, source: Database, tmp_path: Path) -> None:
    """What takes the place of a database is owned and may be read by whom that was; other
    permissions are given only if they are asked for.
    """
    target = tmp_path / "target"
    open_database(f"{backend}://{target}?mode=0660").close()
    owner = 12345 if os.geteuid() == 0 else os.geteuid()
    before = {}
    for path in [target, *target.rglob("*")]:
        os.chown(path, owner, -1)
        before[path] = (path.stat().st_mode, owner)
    with open_database(f"{backend}://{target}") as database:
        JobStore(database).create(Job(id="old"))
    source.migrate_to(f"{backend}://{target}", overwrite=True)
    there = [target, *target.rglob("*")]
    assert {path: (path.stat().st_mode, path.stat().st_uid) for path in there} == before
    source.migrate_to(f"{backend}://{target}?mode=0640", overwrite=True)
    files = [path for path in (target, *target.rglob("*")) if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}
    assert {path.stat().st_uid for path in files} == {owner}


def test_another_name_of_its_backend(source: Database, tmp_path: Path) -> None:
    """A SQLite file is the same one by whichever name of a backend it is opened."""
    with pytest.raises(ConfigurationError, match="to itself"):
        source.migrate_to(f"sqlite+pysqlite://{tmp_path}/source.db", overwrite=True)
    target = f"sqlite+pysqlite://{tmp_path}/target.db"
    with open_database(tmp_path / "target.db") as database:
        JobStore(database).create(Job(id="old"))
        with pytest.raises(ConfigurationError, match="this process has it open"):
            source.migrate_to(target, overwrite=True)
    assert source.migrate_to(target, overwrite=True).replaces == tmp_path / "target.db.replaced"


def test_a_damaged_copy_is_in_the_way(source: Database, tmp_path: Path) -> None:
    """What was being made beside a target, and is damaged, is named with what to do about it."""
    target = tmp_path / "target.db"
    source.migrate_to(target)
    incoming = tmp_path / "target.db.incoming"
    incoming.write_bytes(target.read_bytes()[:5000])
    with pytest.raises(CorruptStoreError, match=r"target\.db\.incoming.*not finished: remove it"):
        source.migrate_to(target, overwrite=True)
    incoming.unlink()
    source.migrate_to(target, overwrite=True)


def test_two_at_once(source: Database, tmp_path: Path) -> None:
    """A target that another process is filling is left to it; one that took over in between is
    noticed before the next batch.
    """
    target = tmp_path / "target.db"
    code = (
        "import sys; from storebridge.location import parse_location;"
        "from storebridge.transfer.filling import Filling;"
        f"filling = Filling(parse_location({str(target)!r}), 'migrate', 'here');"
        "print('begun', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        with pytest.raises(StoreLockedError, match=f"process {process.pid} is filling it"):
            source.migrate_to(target, overwrite=True)
        process.kill()
    location = parse_location(str(target))
    taken = pytest.raises(StoreLockedError, match="somebody else")
    with Filling(location, "migrate", "here") as first, Filling(location, "migrate", "here"), taken:
        first.clear()


def test_begun_from_elsewhere(
    source: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun from one source is not gone on with from another unasked; asked, it becomes
    what the other holds, whatever was there of the first.
    """
    target = tmp_path / "target.bolt"
    monkeypatch.setattr(filling, "_FEWEST", 1)
    monkeypatch.setattr(filling, "_MOST", 1)
    with open_database(tmp_path / "other.db") as other:
        for number in range(5):
            JobStore(other).create(Job(id=f"other-{number}"))

        def stop(progress: object) -> None:
            if progress[0] == "verify":  # type: ignore[index]
                raise RuntimeError

        with pytest.raises(RuntimeError):
            other.migrate_to(target, watch=stop)
    with pytest.raises(IncompleteStoreError, match=r"other\.db"):
        open_database(target)
    with pytest.raises(ConfigurationError, match="give that command again, or overwrite"):
        source.migrate_to(target)
    source.migrate_to(target, overwrite=True)
    with open_database(target) as database:
        assert contents(database) == contents(source)


def test_what_is_not_ours(source: Database, tmp_path: Path) -> None:
    """A file of somebody else's is never a target, overwritten or not."""
    target = tmp_path / "notes.db"
    target.write_text("dear diary")
    for overwrite in (False, True):
        with pytest.raises(ForeignFileError):
            source.migrate_to(f"sqlite://{target}", overwrite=overwrite)
    assert target.read_text() == "dear diary"


def test_nothing_would_remain(source: Database) -> None:
    """A target that is gone as soon as it is closed is refused, unless somebody has it open."""
    with pytest.raises(ConfigurationError, match="gone when it is closed"):
        source.migrate_to("memory:gone")
    with open_database("memory:kept") as database:
        source.migrate_to("memory:kept")
        assert contents(database) == contents(source)


def test_a_store_opened_before(source: Database, tmp_path: Path) -> None:
    """Who opened an empty database before it became a target cannot make a store in it while it is
    being filled.
    """
    target = tmp_path / "target.db"
    with open_database(target) as database:

        def open_store(progress: object) -> None:
            if progress[0] == "copy":  # type: ignore[index]
                JobStore(database)

        with pytest.raises(IncompleteStoreError):
            source.migrate_to(target, watch=open_store)
        source.migrate_to(target)
        assert JobStore(database).get("new").id == "new"
