"""The writers' lock: one holder, known by pid, gone with its process, released by nobody else."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storebridge.driver import DriverError, ErrorKind
from storebridge.driver.lockfile import LockFile

SLACK = 2.0
"""Seconds that an answer may come later on a busy machine."""

HOLD = """
import sys, time
from pathlib import Path
from storebridge.driver.lockfile import LockFile
lock = LockFile(Path(sys.argv[1]), 0o600)
lock.acquire(5, shared=sys.argv[2] == "shared")
print("held", flush=True)
time.sleep(60)
"""

TURNS = """
import sys, time
from pathlib import Path
from storebridge.driver.lockfile import LockFile
lock = LockFile(Path(sys.argv[1]), 0o600)
print("ready", flush=True)
end, turns = float(sys.stdin.readline()), 0
while time.time() < end:
    lock.acquire(5)
    time.sleep(0.001)
    lock.release()
    turns += 1
print(turns)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db-lock"


@pytest.fixture
def lock(path: Path) -> Iterator[LockFile]:
    lock = LockFile(path, 0o600)
    yield lock
    lock.close()


def hold(path: Path, how: str = "alone") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_held_lock_times_out_and_names_its_holder(path: Path, lock: LockFile) -> None:
    process = hold(path)
    try:
        before = time.monotonic()
        with pytest.raises(DriverError) as caught:
            lock.acquire(0.2)
        assert 0.2 <= time.monotonic() - before < 0.2 + SLACK
        assert caught.value.kind is ErrorKind.LOCKED
        assert caught.value.holder == process.pid == lock.holder()
        assert str(process.pid) in str(caught.value)
    finally:
        kill(process)


def test_a_killed_holder_leaves_the_lock_free(path: Path, lock: LockFile) -> None:
    process = hold(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lock.acquire(0)
    assert lock.holder() == os.getpid()


def test_nobody_holds_a_released_lock(path: Path, lock: LockFile) -> None:
    assert lock.holder() is None
    lock.acquire(0)
    lock.release()
    assert lock.holder() is None


def test_asking_for_the_holder_makes_no_file(path: Path, lock: LockFile) -> None:
    assert lock.holder() is None
    assert not path.exists()


def test_shared_holders_exclude_only_the_one_who_wants_it_alone(path: Path, lock: LockFile) -> None:
    process = hold(path, "shared")
    try:
        lock.acquire(0, shared=True)
        assert lock.holder() == process.pid
        with pytest.raises(DriverError):
            LockFile(path, 0o600).acquire(0)
    finally:
        kill(process)
    lock.acquire(0)


def test_a_forked_child_neither_releases_nor_keeps_the_lock(path: Path, lock: LockFile) -> None:
    lock.acquire(0)
    said, says = os.pipe()
    child = os.fork()
    if child == 0:
        lock.release()
        lock.close()
        os.write(says, b"released")
        time.sleep(60)
    try:
        assert os.read(said, 10) == b"released"
        with pytest.raises(DriverError):
            LockFile(path, 0o600).acquire(0)
        lock.release()
        other = LockFile(path, 0o600)
        other.acquire(0)
        other.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(said)
        os.close(says)


def test_the_file_has_the_given_mode_past_the_umask(path: Path) -> None:
    umask = os.umask(0o077)
    try:
        lock = LockFile(path, 0o660)
        lock.acquire(0)
        lock.close()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_removed_file_is_not_mistaken_for_the_lock(path: Path, lock: LockFile) -> None:
    lock.acquire(0)
    lock.release()
    path.unlink()
    lock.acquire(0)
    with pytest.raises(DriverError):
        LockFile(path, 0o600).acquire(0)


def test_a_link_in_the_place_of_the_file_is_refused(path: Path, lock: LockFile) -> None:
    victim = path.with_name("victim")
    victim.write_text("untouched")
    path.symlink_to(victim)
    with pytest.raises(DriverError) as caught:
        lock.acquire(0)
    assert caught.value.kind is ErrorKind.CONFIGURATION
    assert victim.read_text() == "untouched"


def test_eight_processes_take_fair_turns(path: Path) -> None:
    """Nobody times out, and nobody has less than half of the average."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TURNS, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in processes:  # who starts late on a busy machine would have fewer turns
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    end = f"{time.time() + 3}\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(end)
        process.stdin.flush()
    turns = [int(process.communicate()[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert min(turns) > sum(turns) / 8 / 2, turns
