"""A compacted copy in the data file's place: who is in its way, whose it is, and in what order it
reaches the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from storebridge_lmdb import backend, environment, swap
from storebridge_lmdb.driver import LmdbDriver
from storebridge_lmdb.header import DATA, FRESH
from storebridge_lmdb.presence import Presence

from storebridge.driver import DriverError, ErrorKind, Options
from storebridge.testing.harness import writing
from storebridge.testing.samples import LAYOUT, LOG, TABLES
from tests.unit.lmdb.support import Open, names, put
from tests.unit.lmdb.test_processes import ENVIRONMENT, ROOT
from tests.unit.users import OWNER, two_users

Start = Callable[..., Any]


@pytest.fixture
def engine() -> str:
    return "lmdb"


def thinned(driver: LmdbDriver) -> list[str]:
    """Fill it and remove nearly everything; what is left."""
    for number in range(40):
        put(driver, f"t{number:02}", bytes(20_000))
    for number in range(38):
        transaction = driver.begin(True)
        transaction.remove("thing", (f"t{number:02}",), ("new",))
        transaction.commit()
    return ["t38", "t39"]


def reclaim(driver: LmdbDriver) -> str | None:
    """Why it was put off; what is left must be there in any case, and smaller if it was not."""
    done = driver.reclaim(lambda: None)
    assert (done.after < done.before // 2) == (done.skipped is None)
    assert names(driver) == ["t38", "t39"]
    return done.skipped


HOLD = """
import lmdb, sys
held = lmdb.open(sys.argv[1], max_dbs=9, **({"lib_version": 0} if lmdb.__version__ >= "3" else {}))
print("open", flush=True)
for line in sys.stdin:
    with held.begin() as transaction:
        print(transaction.get(b"layout", b"", held.open_db(b"storebridge", transaction)))
"""


def test_another_program_has_it_open(path: Path, open_driver: Open) -> None:
    """One that knows nothing of our locks, but LMDB's: nothing is exchanged under it."""
    driver = open_driver()
    thinned(driver)
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        assert reclaim(driver) == "a program that is not of storebridge has it open"
        put(driver, "t40")
        out, _ = other.communicate("\n", timeout=30)
        assert out == "b'1'\n"
    transaction = driver.begin(True)
    transaction.remove("thing", ("t40",), ("new",))
    transaction.commit()
    assert reclaim(driver) is None


CHANGE = """
import lmdb, sys
held = lmdb.open(sys.argv[1], max_dbs=9, **({"lib_version": 0} if lmdb.__version__ >= "3" else {}))
with held.begin(write=True) as transaction:
    transaction.put(b"by", b"another program", db=held.open_db(b"notes", transaction))
"""


def test_another_program_comes_and_goes(
    path: Path, open_driver: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that knows nothing of our locks, and changes something at the last moment before nobody
    could any more: that is not lost."""
    driver = open_driver()
    thinned(driver)
    lock_alone = environment._lock_alone

    def late(lock: int) -> bool:
        subprocess.run([sys.executable, "-c", CHANGE, str(path)], check=True)
        return lock_alone(lock)

    monkeypatch.setattr(environment, "_lock_alone", late)
    assert reclaim(driver) == "it was written to meanwhile"
    monkeypatch.setattr(environment, "_lock_alone", lock_alone)
    with driver._environment.native.begin() as transaction:
        notes = driver._environment.native.open_db(b"notes", transaction)
        assert transaction.get(b"by", b"", notes) == b"another program"
    assert reclaim(driver) is None


def test_writers_go_on(open_driver: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the copy is made this process writes. Then it is of no use, and is made once more
    without; but not where it took longer than writers are to be kept waiting."""
    driver = open_driver()
    left = thinned(driver)
    written: list[str] = []

    def write() -> None:
        written.append(f"u{len(written)}")
        put(driver, written[-1], b"x")

    monkeypatch.setattr(swap, "_BRIEFLY", 0)
    assert driver.reclaim(write).skipped == "it was written to meanwhile"
    monkeypatch.undo()
    done = driver.reclaim(write)
    assert (done.skipped, done.after < done.before // 2) == (None, True)
    assert written
    assert names(driver) == left + sorted(written)


def test_the_map_is_not_resized_under_the_copy(open_driver: Open) -> None:
    """It would be taken away from where the copy is read."""
    driver = open_driver()
    thinned(driver)
    environment = driver._environment

    def resize() -> None:
        with pytest.raises(DriverError, match="the map cannot be resized"):
            environment.resize(environment.size, 0.01)

    assert driver.reclaim(resize).skipped is None
    assert names(driver) == ["t38", "t39"]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ZeroDivisionError])
def test_stopped_while_it_copies(open_driver: Open, raised: type[BaseException]) -> None:
    """Nothing goes on behind the caller's back, and nothing is left."""
    driver = open_driver()
    thinned(driver)

    def stop() -> None:
        raise raised

    with pytest.raises(raised):
        driver.reclaim(stop)
    assert "storebridge-lmdb-copy" not in {thread.name for thread in threading.enumerate()}
    assert not (driver._environment.path / FRESH).exists()
    assert reclaim(driver) is None


def test_an_interrupted_exchange(open_driver: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception out of a signal handler ends the exchange, not the use of the database."""
    driver = open_driver()
    thinned(driver)

    def strike(lock: int) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as struck:
        struck.setattr(environment, "_lock_alone", strike)
        with pytest.raises(KeyboardInterrupt):
            driver.reclaim(lambda: None)
    assert names(driver) == ["t38", "t39"]
    assert reclaim(driver) is None


def test_no_descriptors_left(open_driver: Open) -> None:
    """The environment is not closed where it could not be opened again."""
    driver = open_driver()
    thinned(driver)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            driver._environment.exchange(lambda: None, driver._bind_to)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in held:
            os.close(fd)
    assert reclaim(driver) is None


@two_users
def test_a_reader_of_another_user_has_it_open(shared: Path, start: Start) -> None:
    """One who may not register with LMDB: he is seen all the same, and named."""
    path = shared / "db.lmdb"
    owner = start(path, OWNER, mode=0o644)
    assert [owner.do(word) for word in ("open", "load_and_clear")] == ["opened", "cleared"]
    guest = start(path, OWNER + 1, read_only=True)
    assert guest.do("open") == "opened"
    assert owner.do("reclaim") == f"process {guest.pid} has it open"
    assert guest.do("close") == "closed"
    assert owner.do("reclaim") is None
    assert owner.do("write") > 0


@two_users
def test_such_a_reader_would_read_the_old_file_for_good(
    shared: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it not looked for: LMDB itself does not know of it."""
    path = shared / "db.lmdb"
    driver = backend.open(str(path), Options(mode=0o644))
    driver.create_tables(TABLES, LAYOUT)
    write(driver, range(100), 20_000)
    clear(driver, range(98))
    guest = start(path, OWNER, read_only=True)
    assert [guest.do(word) for word in ("open", "count")] == ["opened", 2]
    assert driver.reclaim(lambda: None).skipped is not None
    write(driver, [100])
    assert guest.do("count") == 3
    monkeypatch.setattr(Presence, "is_alone", lambda self: True)
    assert driver.reclaim(lambda: None).skipped is None
    write(driver, [101])
    assert guest.do("count") == 3
    driver.close()


def write(driver: LmdbDriver, numbers: Iterable[int], size: int = 0) -> None:
    with writing(driver) as transaction:
        for number in numbers:
            transaction.insert(LOG.name, (number,), ("w",), bytes(size))


def clear(driver: LmdbDriver, numbers: Iterable[int]) -> None:
    with writing(driver) as transaction:
        for number in numbers:
            transaction.remove(LOG.name, (number,), ("w",))


@two_users
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_the_new_file_is_like_the_old_one(path: Path, open_driver: Open, mode: int) -> None:
    """In owner, group and mode; also where root does it for the owner."""
    driver = open_driver(mode=mode)
    thinned(driver)
    os.chown(path / DATA, OWNER, OWNER + 1)
    before = os.stat(path / DATA)
    assert reclaim(driver) is None
    after = os.stat(path / DATA)
    assert after.st_ino != before.st_ino
    assert (after.st_uid, after.st_gid) == (OWNER, OWNER + 1)
    assert stat.S_IMODE(after.st_mode) == mode
    assert sorted(os.listdir(path)) == ["data.mdb", "lock.mdb", "storebridge.lock"]


def test_what_a_killed_one_left_is_removed(path: Path, open_driver: Open) -> None:
    """When it is opened to write, and when space is given back; but nothing of another name, and
    nothing that somebody is writing.
    """
    driver = open_driver()
    left, other = path / FRESH, path / "data.mdb-compacted"
    thinned(driver)
    other.write_text("mine")
    left.write_text("half")
    assert reclaim(driver) is None
    assert not left.exists()
    driver.close()
    left.write_text("half")
    open_driver(read_only=True).close()
    assert left.exists()
    with left.open() as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        open_driver().close()
        assert left.exists()
    open_driver()
    assert not left.exists()
    assert other.read_text() == "mine"


def test_who_comes_during_the_exchange_waits(path: Path, open_driver: Open, start: Start) -> None:
    """For `lock_timeout`, and is told for whom; once it is over he gets in."""
    open_driver().close()
    swapper = Presence(path / DATA)
    swapper.share(0)
    assert swapper.is_alone()
    refused = start(path, lock_timeout=0.2).do("open")
    assert refused["error"] == "locked"
    assert f"process {os.getpid()} is making it smaller; waited 0.2 s" in refused["message"]
    patient = start(path, lock_timeout=30.0)
    patient.begin("open")
    copy = path / FRESH
    shutil.copyfile(path / DATA, copy)
    fd = os.open(copy, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.replace(copy, path / DATA)
    swapper.move(fd)
    assert patient.answer() == "opened"
    assert not swapper.is_alone()
    assert swapper.others() == f"process {patient.pid}"
    swapper.close()


def test_a_child_of_a_fork_does_not_count(path: Path, open_driver: Open) -> None:
    """It cannot use what it inherited, so its life is no reason to put it off."""
    driver = open_driver()
    thinned(driver)
    end, to_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(to_end)
        os.read(end, 1)
        os._exit(0)
    try:
        assert reclaim(driver) is None
    finally:
        os.close(end)
        os.close(to_end)
        assert os.waitpid(child, 0)[1] == 0


def test_a_reader_that_stays_puts_it_off_soon(open_driver: Open) -> None:
    """Not for as long as a writer would wait: others who read are kept waiting meanwhile."""
    driver = open_driver(lock_timeout=60.0)
    thinned(driver)
    reader = driver.begin(False)
    begun = time.monotonic()
    assert reclaim(driver) == "a read transaction of this process is open"
    assert time.monotonic() - begun < 10
    reader.rollback()
    assert reclaim(driver) is None


def test_a_map_that_starts_small(open_driver: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where addresses are 32 bits long: it starts anew, and grows as before."""
    from storebridge_lmdb import sizes

    monkeypatch.setattr(sizes, "ROOMY", False)
    monkeypatch.setattr(sizes, "_MIB", 2**14)
    driver = open_driver(map_size="64M")
    left = thinned(driver)
    assert reclaim(driver) is None
    for number in range(60):
        put(driver, f"u{number:02}", bytes(20_000))
    assert names(driver) == left + [f"u{number:02}" for number in range(60)]


DONE = r"(?:\) += 0| <unfinished)"
"""How a call ends in strace's log; so where another thread made one meanwhile."""
SAID = r'write\(1<.*reclaimed\\"\\n'


def trace(path: Path, sabotage: str = "") -> list[str]:
    """The system calls of a process that reclaims, up to where it says so: it goes on for a moment,
    perhaps to the next copy."""
    asked = {
        "task": "live", "backend": "lmdb", "target": str(path), "name": "a", "first": 0,
        "reclaims": True, "durability": "full", "sabotage": sabotage,
    }  # fmt: skip
    log = path.with_name("calls")
    strace = ["strace", "-f", "-y", "-o", str(log), "-e", "trace=fsync,rename,write,pwrite64"]
    command = [*strace, sys.executable, "-m", "tests.crash.reclaimers", json.dumps(asked)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT
    ) as traced:
        assert traced.stdout is not None
        for line in traced.stdout:
            if line == '"reclaimed"\n':
                break
        # strace hands what kills it on to nobody: its child ends with its pipe.
        traced.stdout.close()
    calls = log.read_text().splitlines()
    said = next(n for n, call in enumerate(calls) if re.search(SAID, call))
    return calls[: said + 1]


def in_order(path: Path, calls: list[str]) -> bool:
    """Whether the copy, the last one that was made, is on the disk before it is put in place, and
    its name before the answer."""
    fresh, folder = re.escape(str(path / FRESH)), re.escape(str(path))
    last = max(place for place, call in enumerate(calls) if re.search(rf"write.*<{fresh}>", call))
    rest = iter(calls[last:])
    return all(
        any(re.search(wanted, call) for call in rest)
        for wanted in (
            rf"fsync\(\d+<{fresh}>{DONE}",
            rf'rename\("{fresh}",.*{DONE}',
            rf"fsync\(\d+<{folder}>{DONE}",
            SAID,
        )
    )


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_copy_is_on_the_disk_before_it_counts(tmp_path: Path) -> None:
    """A power cut at any moment finds the old file, or the whole of the new one under its name: the
    copy is synced, then renamed, then the folder is synced. Without the syncs it would be noticed.
    """
    for number, sabotage in enumerate(("", "lmdb: nothing is synced")):
        path = tmp_path / f"{number}.lmdb"
        assert in_order(path, trace(path, sabotage)) == (not sabotage)


def test_read_only_is_refused(open_driver: Open) -> None:
    open_driver().close()
    with pytest.raises(DriverError) as caught:
        open_driver(read_only=True).reclaim(lambda: None)
    assert caught.value.kind is ErrorKind.READ_ONLY
