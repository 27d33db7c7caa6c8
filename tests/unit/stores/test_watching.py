"""Watching over processes: who watches hears at once of what another process commits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO

import pytest

from storebridge import Event, Job, JobStore, open_database, watching

ENGINES = ("sqlite", "lmdb")
WRITER = """
import sys, time
from storebridge import Job, open_job_store
with open_job_store(sys.argv[1]) as jobs:
    for line in sys.stdin:
        jobs.create(Job(id=line.strip()))
        print(time.monotonic(), flush=True)
"""
WATCHER = """
import sys
from storebridge import open_database
with open_database(sys.argv[1]) as database:
    for event in database.watch(checkpoint="c"):
        print(event.sequence, flush=True)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


@contextmanager
def program(code: str, location: str) -> Iterator[tuple[IO[str], IO[str], int]]:
    """A process's stdin, stdout and pid; it ends when its stdin does."""
    command = [sys.executable, "-c", code, location]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdin, process.stdout, process.pid
        process.stdin.close()


def location_of(engine: str, folder: Path, durability: str = "full") -> str:
    return f"{engine}://{folder}/node?durability={durability}"


def tell(writer: tuple[IO[str], IO[str], int], name: str) -> float:
    """Have a job made; when that was done."""
    print(name, file=writer[0], flush=True)
    return float(writer[1].readline())


@linux
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_of_another_process(
    engine: str, read_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 50 ms, without looking again and again; a watcher that only reads hears as much."""
    monkeypatch.setattr(watching, "POLL_SECONDS", 60.0)
    location = location_of(engine, tmp_path)
    open_database(location).close()
    with program(WRITER, location) as writer:
        tell(writer, "first")
        told: list[tuple[Event, float]] = []
        with open_database(location, read_only=read_only) as database:
            watched = database.watch(after=0)

            def watch() -> None:
                for event in watched:
                    told.append((event, time.monotonic()))
                    if len(told) == 21:
                        return

            thread = threading.Thread(target=watch)
            thread.start()
            done = []
            for number in range(20):
                time.sleep(0.01)
                done.append(tell(writer, f"j-{number}"))
            thread.join(20)
            assert [event.sequence for event, _ in told] == list(range(1, 22))
            waits = [at - since for (_, at), since in zip(told[1:], done, strict=True)]
            assert median(waits) < 0.05


@linux
@pytest.mark.parametrize("engine", ENGINES)
def test_after_the_files_were_replaced(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock file that somebody removed, a data file that compaction put another one in the place
    of: a second later all is heard again."""
    monkeypatch.setattr(watching, "POLL_SECONDS", 60.0)
    location = location_of(engine, tmp_path, "off")
    with open_database(location) as database:
        jobs = JobStore(database)
        jobs.create(Job(id="first"))
        watched = database.watch(after=0)
        assert next(watched).record_id == "first"
        heard = threading.Event()
        database.driver.add_listener(heard.set)  # type: ignore[attr-defined]
        if engine == "sqlite":
            (tmp_path / "node-lock").unlink()
        else:
            (tmp_path / "node" / "data.mdb").rename(tmp_path / "old")
            (tmp_path / "node" / "data.mdb").write_bytes((tmp_path / "old").read_bytes())
        with program(WRITER, location) as writer:
            for number in range(40):
                heard.clear()
                tell(writer, f"j-{number}")
                if heard.wait(0.1) and number > 25:
                    break
            else:
                raise AssertionError("nothing is heard any more")


@pytest.mark.parametrize("engine", ENGINES)
def test_who_watches_no_more_leaves_nothing(engine: str, tmp_path: Path) -> None:
    """Its thread and its descriptors end with the watching, and closing waits for nothing."""
    with open_database(location_of(engine, tmp_path)) as database:
        JobStore(database).create(Job())
        others = threading.enumerate()
        before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
        for _ in range(5):
            watched = database.watch(after=0)
            next(watched)
            watched.close()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 10
        while not set(threading.enumerate()) <= set(others):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if sys.platform == "linux":
            assert len(os.listdir("/proc/self/fd")) <= before + 1  # a reader's connection
        watched = database.watch(after=0)
        next(watched)
        started = time.monotonic()
    assert time.monotonic() - started < 0.9


@pytest.mark.parametrize("engine", ENGINES)
def test_a_watcher_that_is_killed(engine: str, tmp_path: Path) -> None:
    """Killed again and again and started again, with a checkpoint, it misses nothing, and meets
    again no more than what it was given last."""
    location = location_of(engine, tmp_path, "off")
    seen: list[int] = []
    with open_database(f"{location}&lock_timeout=30") as database:
        jobs = JobStore(database)
        for round_ in range(5):
            for _ in range(30):
                jobs.create(Job())
            with program(WATCHER, location) as (_, out, pid):
                lines = [int(out.readline()) for _ in range(7 + round_)]
                os.kill(pid, signal.SIGKILL)
                lines += [int(line) for line in out.read().split("\n")[:-1]]
            if seen:
                assert lines[0] <= seen[-1] + 1
            assert lines == list(range(lines[0], lines[-1] + 1))
            seen += lines
        rest = [event.sequence for event in database.watch(checkpoint="c", timeout=0)]
        assert set(seen) | set(rest) == set(range(1, 151))
