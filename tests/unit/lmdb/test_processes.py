"""Several processes on one environment, some of which are killed, and a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storebridge.driver import DriverError, ErrorKind
from tests.unit.lmdb.support import Open, names, put

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "tests.unit.lmdb.workers"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'backends'}"}


def run(what: str, path: Path, *arguments: str) -> object:
    """What a worker answers."""
    done = subprocess.run(
        [*COMMAND, what, str(path), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def ready(what: str, path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A worker that has said that it is ready; killed with SIGKILL in the end."""
    worker = subprocess.Popen(
        [*COMMAND, what, str(path), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    )
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == "ready\n"
        yield worker
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()


def readers(driver: object) -> int:
    listed: str = driver._environment.native.readers()  # type: ignore[attr-defined]
    return listed.count("\n") - 1 if "pid" in listed else 0


def test_a_killed_reader_is_cleared_at_the_next_opening(path: Path, open_driver: Open) -> None:
    driver = open_driver()
    put(driver, "a")
    with ready("hold_reader", path) as worker:
        assert str(worker.pid) in driver._environment.native.readers()
    driver.close()
    # Another process keeps the reader table alive: the last one to close it would begin it anew.
    with ready("hold_reader", path) as other:
        with ready("hold_reader", path) as worker:
            pass
        driver = open_driver()
        listed = driver._environment.native.readers()
        assert str(worker.pid) not in listed
        assert str(other.pid) in listed


def test_a_killed_reader_s_pages_are_found_when_the_map_is_full(
    path: Path, open_driver: Open
) -> None:
    driver = open_driver(map_size="1M")
    put(driver, "a", bytes(200_000))
    with ready("hold_reader", path):
        pass
    for _ in range(20):
        transaction = driver.begin(True)
        transaction.replace("thing", ("a",), ("new",), ("new",), bytes(200_000))
        transaction.commit()
    assert names(driver) == ["a"]


def test_a_killed_writer_leaves_nothing_behind(path: Path, open_driver: Open) -> None:
    driver = open_driver(lock_timeout=0.2)
    put(driver, "a")
    with ready("hold_writer", path) as worker:
        assert driver.holder() == worker.pid
        with pytest.raises(DriverError) as caught:
            driver.begin(True)
        assert caught.value.kind is ErrorKind.LOCKED
        assert caught.value.holder == worker.pid
        assert names(driver) == ["a"]
    put(driver, "b")
    assert names(driver) == ["a", "b"]
    assert list(driver.check()) == []


def test_opening_does_not_wait_for_a_writer_s_transaction_to_read(
    path: Path, open_driver: Open
) -> None:
    open_driver().close()
    with ready("hold_writer", path):
        assert names(open_driver(read_only=True, lock_timeout=0.2)) == []


def test_a_map_that_another_process_outgrew(path: Path, open_driver: Open) -> None:
    """The other's limit is larger: this one goes on reading and changing what is there, and is
    full by its own limit.
    """
    driver = open_driver(map_size="1M")
    put(driver, "a")
    assert run("insert", path, "64M", "60") == 2**26
    assert len(names(driver)) == 61
    transaction = driver.begin(True)
    transaction.remove("thing", ("a",), ("new",))
    transaction.commit()
    with pytest.raises(DriverError) as caught:
        put(driver, "large", bytes(500_000))
    assert caught.value.kind is ErrorKind.FULL
    assert len(names(driver)) == 60


def test_writers_in_turns_with_maps_that_start_small(
    path: Path, open_driver: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storebridge_lmdb import sizes

    monkeypatch.setattr(sizes, "ROOMY", False)
    monkeypatch.setattr(sizes, "_MIB", 2**16)
    driver = open_driver(map_size="64M")
    for turn in range(3):
        put(driver, f"t{turn}", bytes(200_000))
        run("insert", path, "64M", "30")
    assert len(names(driver)) == 93


@pytest.mark.parametrize("size", ["3000", "30000", "390000"])
def test_a_full_disk_loses_nothing(path: Path, size: str) -> None:
    assert run("disk_full", path, size) == {
        "kinds": ["full"],
        "kept": True,
        "after": True,
        "problems": [],
    }


@pytest.mark.parametrize("closes", [True, False])
def test_after_a_fork_the_child_may_open_it_again(
    path: Path, open_driver: Open, closes: bool
) -> None:
    driver = open_driver()
    put(driver, "a")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if closes:
                driver.close()
            put(open_driver(), "by the child")
            status = 0
        finally:
            os._exit(status)
    reader = driver.begin(False)
    assert os.waitpid(child, 0)[1] == 0
    assert reader.get("thing", ("a",)) == b"{}"
    reader.rollback()
    put(driver, "b")
    assert names(driver) == ["a", "b", "by the child"]
    assert list(driver.check()) == []


def test_a_child_of_a_fork_inside_a_transaction_leaves_it_alone(
    path: Path, open_driver: Open
) -> None:
    driver = open_driver()
    put(driver, "a")
    reader = driver.begin(False)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            put(open_driver(), "by the child")
            status = 0
        except DriverError as error:  # since py-lmdb 3.0
            status = 0 if error.kind is ErrorKind.CONFIGURATION else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert str(os.getpid()) in driver._environment.native.readers()
    assert reader.get("thing", ("a",)) == b"{}"
    reader.rollback()
