"""Turns of writers: nobody waits for who was interrupted, or behind who never pauses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storebridge import Job, JobStore, StoreClosedError, open_database
from storebridge.statistics import Statistics
from storebridge.turns import Job as Waiting
from storebridge.turns import Turn


class Stop(BaseException):
    pass


def test_a_job_whose_thread_has_gone() -> None:
    """Taken along by somebody, left by its thread, and put back undone: nobody is to call for who
    will not come, and nobody is to do it."""
    turn = Turn("x", 2.0, Statistics())
    done: list[int] = []
    job = Waiting(done.append, (1,))
    taken, gone = threading.Event(), threading.Event()

    def hold() -> None:
        turn.take()
        taken.set()
        while not turn.line:
            time.sleep(0.001)
        along = turn.take_along(10)
        assert along == [job]
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        gone.wait(10)
        turn.put_back(along)
        turn.give()

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        holder = threading.Thread(target=hold)
        holder.start()
        taken.wait()
        with pytest.raises(Stop):
            turn.stand_in_line(job)
        gone.set()
        holder.join()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert turn.take_along(10) == []
    assert done == []
    assert turn.try_take()
    turn.give()


def test_a_call_that_was_forgotten() -> None:
    """Whoever gave the turn was struck before it could call the next one, or in the middle of
    that: who waits finds out by itself."""
    for half in (False, True):
        turn = Turn("x", 20.0, Statistics())
        turn.take()
        waiting = threading.Thread(target=lambda turn=turn: (turn.take(), turn.give()))
        waiting.start()
        while not turn.line:
            time.sleep(0.001)
        if half:
            (job,) = turn.line
            job.called = True
            turn._expected.add(job)
        turn._lock.release()
        waiting.join(10)
        assert not waiting.is_alive()
        assert turn.try_take()
        turn.give()


SCRIPT = """
import random, signal, sys, threading, time
from storebridge import *
from storebridge.check import check

class Stop(BaseException):
    pass

def stop(*_):
    raise Stop

def break_down(unit, number):
    jobs._write.create(unit, Job(id=f"lost-{number}"))
    raise ZeroDivisionError

chance = random.Random(int(sys.argv[2]))
database = open_database(sys.argv[1])
jobs = JobStore(database)
ended, errors = threading.Event(), []

def write(number):
    step = 0
    while not ended.is_set():
        step += 1
        try:
            if step % 3 == 0:
                database.write(break_down, f"{number}-{step}")
            elif step % 3 == 1:
                with database.transaction():
                    jobs.create(Job())
            else:
                jobs.create(Job())
        except ZeroDivisionError:
            pass
        except BaseException as error:
            errors.append(error)
            return

threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
for each in threads:
    each.start()
signal.signal(signal.SIGALRM, stop)
for number in range(100):
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0002, 0.01))
        while True:
            jobs.create(Job())
    except Stop:
        pass
    assert not database.in_transaction
    jobs.create(Job(name=f"after {number}"))
ended.set()
for each in threads:
    each.join()
assert not errors, errors
assert not list(jobs.find(prefix="lost-"))
assert list(check(database)) == []
database.close()
"""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_interrupted_among_others(backend: str, seed: int, tmp_path: Path) -> None:
    """Wherever an exception out of a signal handler strikes the main thread, the writes of other
    threads, some of which break down, go on, and so do its own."""
    location = "memory:" if backend == "memory" else f"{backend}://{tmp_path}/x?durability=off"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, location, str(seed)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_who_writes_without_a_pause_goes_before_nobody(tmp_path: Path) -> None:
    """While threads commit one transaction block after the other, a thread that makes single
    changes, and one that comes with a block of its own, wait for a few of them, not for ever."""
    with open_database(f"sqlite://{tmp_path}/x?durability=off") as database:
        jobs = JobStore(database)
        jobs.create(Job(id="j"))
        ended = threading.Event()
        order: list[int] = []

        def blocks(number: int) -> None:
            while not ended.is_set():
                with database.transaction():
                    jobs.update("j", priority=number)
                    order.append(number)

        threads = [threading.Thread(target=blocks, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        passed = []
        for number in range(40):
            before = len(order)
            if number % 2:
                jobs.create(Job())
            else:
                with database.transaction():
                    jobs.create(Job())
            passed.append(len(order) - before)
        ended.set()
        for thread in threads:
            thread.join()
        # Each of the three may go before once, and those that were called are on their way.
        assert sorted(passed)[20] <= 4
        assert max(passed) <= 12
        assert all(order.count(number) >= len(order) // 6 for number in range(3))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_among_writers(tmp_path: Path) -> None:
    """However far the parent's threads had come, a child is told at once that the database is not
    its own."""
    with open_database(f"sqlite://{tmp_path}/x?durability=off") as database:
        jobs = JobStore(database)
        jobs.create(Job())
        with database.transaction():
            waiting = threading.Thread(target=jobs.create, args=(Job(),))
            waiting.start()
            while not database._turn.line:
                time.sleep(0.001)
            with database._turn._mutex:  # as a thread that stands in line holds it for a moment
                pid = os.fork()
                if pid == 0:
                    signal.alarm(10)
                    try:
                        jobs.create(Job())
                    except StoreClosedError:
                        os._exit(0)
                    os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0
        waiting.join()
        assert jobs.count() == 2


def test_who_begins_and_ends_to_listen(tmp_path: Path) -> None:
    """Threads that begin and end to listen at once take no other listener away."""
    with open_database(f"memory:{tmp_path.name}") as database:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:

            def listen() -> None:
                for _ in range(2000):
                    heard = threading.Event()
                    database.on_events(heard.set)
                    database.off_events(heard.set)

            stays = threading.Event()
            threads = [threading.Thread(target=listen) for _ in range(4)]
            for thread in threads:
                thread.start()
            database.on_events(stays.set)
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert len(database._listeners) == 1
        JobStore(database).create(Job())
        assert stays.is_set()


def test_taken_along_by_who_has_to_try_again() -> None:
    """Between two tries the turn is free for a moment. Whose write was taken along may take it
    then, sees that the write is not his to do, and gives it back.
    """
    turn = Turn("a database", 2.0, Statistics())
    job, is_mine = Waiting(lambda: None, ()), list[bool]()
    turn.take()
    waiter = threading.Thread(target=lambda: is_mine.append(turn.stand_in_line(job)))
    waiter.start()
    while not turn.line:
        time.sleep(0.01)
    assert turn.take_along(1) == [job]
    turn.give()
    time.sleep(0.3)  # he looks ten times a second
    turn.take()
    job.end()
    turn.give()
    waiter.join(10)
    assert is_mine == [False]
    assert turn.try_take()
    turn.give()


def test_who_counts_shares_no_commit(tmp_path: Path) -> None:
    """A neighbour's record would be seen, and his counter not yet."""
    with open_database(f"memory:{tmp_path.name}") as database:
        jobs = JobStore(database)
        jobs.create(Job(id="a"))
        database._turn.take()
        threads = [
            threading.Thread(target=jobs.create, args=(Job(id="b"),)),
            threading.Thread(target=lambda: jobs.recount(repair=True)),
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        database._turn.give()
        for thread in threads:
            thread.join(10)
        assert jobs.counts()["Pending"] == 2
        assert jobs.recount().drift == {}
