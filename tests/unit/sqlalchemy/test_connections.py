"""Connections that are slow, or lost: between two calls, in a transaction, and just when it was
being committed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from storebridge_sqlalchemy import notices

from storebridge import Database as Opened
from storebridge import Job, JobStore, Owner, StorageError, meta, open_database, watching
from storebridge.driver import DriverError, ErrorKind
from storebridge.testing.harness import writing
from storebridge.testing.samples import ENTRY, entry
from storebridge.testing.stores.base import assert_sound
from tests.postgres_server import Database, Server
from tests.unit.sqlalchemy.conftest import Open
from tests.unit.sqlalchemy.proxy import Proxy, proxy_to
from tests.unit.stores.test_interrupts import SCRIPT

CALLS: dict[str, Callable[[JobStore], object]] = {
    "get": lambda jobs: jobs.get("j").id,
    "find": lambda jobs: [job.id for job in jobs.find()],
    "create": lambda jobs: jobs.create(Job()).state,
    "set_state": lambda jobs: jobs.set_state("j", "Running").state,
    "counts": lambda jobs: jobs.counts()["Failed"],
    "describe": lambda jobs: jobs.database.describe()["server_encoding"],
}


def disconnect_all(postgresql: Database) -> None:
    """Have the server end every connection but our own, as its administrator would."""
    with postgresql.connect() as connection:
        (pids,) = connection.execute(
            "SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name LIKE 'storebridge%'"
        ).fetchone() or ([],)
        for pid in pids:
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])


@pytest.fixture
def jobs(target: str) -> Iterator[JobStore]:
    with open_database(f"{target}&lock_timeout=20") as database:
        jobs = JobStore(database)
        jobs.create(Job(id="j"))
        yield jobs


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_a_connection_that_was_ended_meanwhile(
    postgresql: Database, jobs: JobStore, call: Callable[[JobStore], object]
) -> None:
    """Whatever the server did to idle connections, the next call works."""
    with jobs.database.snapshot():
        jobs.count()
        jobs.count()
    disconnect_all(postgresql)
    call(jobs)
    assert_sound(jobs.database)


def test_a_restart_of_the_server(own_postgresql: Server) -> None:
    """A server that was restarted between two calls is noticed by nobody; a transaction that was
    open is an error that says so, and is gone, whether the server ended in order or crashed.
    """
    with open_database(own_postgresql.target()) as database:
        jobs = JobStore(database)
        for number in range(3):
            jobs.create(Job(id=str(number)))
        own_postgresql.restart()
        assert jobs.get("0").id == "0"
        own_postgresql.restart()
        jobs.set_state("0", "Running")
        with pytest.raises(StorageError, match="connection to the server was lost"):  # noqa: PT012, SIM117
            with database.transaction():
                jobs.set_state("1", "Running")
                own_postgresql.restart(signal.SIGQUIT)
                jobs.set_state("2", "Running")
        with pytest.raises(StorageError, match="connection to the server was lost"):  # noqa: PT012, SIM117
            with database.snapshot():
                jobs.count()
                own_postgresql.restart()
                jobs.count()
        assert [job.state for job in jobs.find(sort="id")] == ["Running", "Pending", "Pending"]
        assert_sound(database)


def test_a_server_that_is_away(own_postgresql: Server) -> None:
    """While the server is not there, calls fail with an error that says so in one line; when it is
    back, they work.
    """
    location = own_postgresql.target()
    with open_database(location) as database:
        jobs = JobStore(database)
        jobs.create(Job(id="j"))
        own_postgresql.stop()
        try:
            for call in CALLS.values():
                with pytest.raises(StorageError, match=r"cannot connect: .*refused") as caught:
                    call(jobs)
                assert "\n" not in str(caught.value)
        finally:
            own_postgresql.start()
        for call in CALLS.values():
            call(jobs)
        assert_sound(database)
    own_postgresql.stop()
    try:
        with pytest.raises(StorageError, match="cannot connect"):
            open_database(location)
    finally:
        own_postgresql.start()


def test_a_connection_that_is_lost_inside_a_transaction(postgresql: Database, opened: Open) -> None:
    """The call that notices fails, the transaction can only be rolled back, and the next one
    works.
    """
    driver = opened()
    for write in (True, False):
        transaction = driver.begin(write)
        assert transaction.get(ENTRY.name, ("a",)) is None
        disconnect_all(postgresql)
        with pytest.raises(DriverError, match="connection to the server was lost") as caught:
            transaction.get(ENTRY.name, ("b",))
        assert caught.value.kind is ErrorKind.OTHER
        with pytest.raises(DriverError):
            transaction.get(ENTRY.name, ("b",))
        transaction.rollback()
        transaction.rollback()
        with writing(driver) as again:
            again.tally({"n": 1})


# --- a slow network ---


@pytest.fixture
def slow(target: str) -> Iterator[tuple[Opened, Proxy]]:
    with (
        proxy_to(target) as proxy,
        open_database(f"{proxy.url(target)}&durability=off") as database,
    ):
        jobs = JobStore(database)
        for number in range(12):
            jobs.create(Job(id=str(number), labels={"a": "b"}))
        yield database, proxy


ROUND_TRIPS: dict[str, tuple[int, Callable[[JobStore, str], object]]] = {
    # By hand, in pipeline mode: begin and get; change, count, insert the event and commit. What is
    # created needs no question by hand, as a key that is taken would fail it.
    "set_state": (2, lambda jobs, key: jobs.set_state(key, "Running")),
    "create": (1 + 1, lambda jobs, key: jobs.create(Job(labels={"a": key, "c": "d", "e": "f"}))),
    "get": (1, lambda jobs, key: jobs.get(key)),
    "find": (1, lambda jobs, key: jobs.find(state="Pending")),
    "counts": (1 + 1, lambda jobs, key: jobs.counts()),
    "update": (2, lambda jobs, key: jobs.update(key, priority=1)),
    "relabel": (2, lambda jobs, key: jobs.update(key, labels={"a": key, "c": "d"})),
    # By hand one statement would remove all old versions, unseen.
    "delete": (2 + 1, lambda jobs, key: jobs.delete(key)),
}


@pytest.mark.parametrize("operation", ROUND_TRIPS)
def test_round_trips(slow: tuple[Opened, Proxy], operation: str) -> None:
    """Over a network with 20 ms a round trip an operation takes as many as hand-written code would
    need, and at most one more.
    """
    database, proxy = slow
    expected, call = ROUND_TRIPS[operation]
    jobs = JobStore(database)
    for number in range(10):
        call(jobs, str(number))  # connections are made, and statements prepared
    proxy.round_trips, proxy.delay = 0, 0.01
    asked = time.monotonic()
    call(jobs, "10")
    took = time.monotonic() - asked
    proxy.delay = 0.0
    assert proxy.round_trips == expected
    assert took >= expected * 0.02
    assert_sound(database)


def test_a_block_of_many_changes(slow: tuple[Opened, Proxy]) -> None:
    """In a block each change costs what it asks; what needs no answer rides along."""
    database, proxy = slow
    jobs = JobStore(database)
    proxy.round_trips = 0
    with database.transaction():
        for number in range(10):
            jobs.set_state(str(number), "Running")
    assert proxy.round_trips == 10 + 1


# --- who hears of what others do ---


def test_watching_hears_at_once(
    postgresql: Database, jobs: JobStore, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who watches hears at once of what another process commits, without looking again and again;
    also after its connection was lost, and of what was committed while it was.
    """
    monkeypatch.setattr(watching, "POLL_SECONDS", 60.0)
    monkeypatch.setattr(notices, "_PAUSE", 0.05)
    with open_database(f"{target}&pool_size=3") as other:
        others = JobStore(other)
        events = jobs.watch(after=0)
        assert next(events).record_id == "j"
        waiting = ThreadPoolExecutor(1)
        for number in range(3):
            found = waiting.submit(next, events)
            others.create(Job(id=f"k{number}"))
            assert found.result(timeout=20).record_id == f"k{number}"
        disconnect_all(postgresql)
        found = waiting.submit(next, events)
        others.create(Job(id="after"))
        assert found.result(timeout=20).record_id == "after"
        waiting.shutdown()
        events.close()  # type: ignore[attr-defined]


def test_who_listens_no_more_leaves_nothing(postgresql: Database, jobs: JobStore) -> None:
    """The connection and the thread of who watched end with the watching."""
    before = set(threading.enumerate())  # with those of whom other tests abandoned
    events = jobs.watch(after=0)
    next(events)
    begun = set(threading.enumerate()) - before
    assert [thread.name for thread in begun] == ["storebridge-listen"]
    events.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 20
    with postgresql.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        while connection.execute(query).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    while begun & set(threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_writing_goes_on_after_an_interruption(target: str) -> None:
    """Wherever an exception out of a signal handler strikes, also while the server is waited for,
    the next write works, nothing acknowledged is lost, and nothing is half done.
    """
    script = SCRIPT.replace("0.0003, 0.003", "0.0003, 0.02").replace("range(150)", "range(60)")
    done = subprocess.run(
        [sys.executable, "-c", script, f"{target}&durability=off", "11"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


class Interrupted(Exception):
    """Out of a signal handler."""


def test_an_interrupted_wait_leaves_no_locks(opened: Open) -> None:
    """Whoever is interrupted while it waits for a lock has not left behind, on the server, those
    that it had: not until the server notices by itself, which is when the wait is over.
    """
    holder, driver = opened(), opened(lock_timeout=20.0)
    with writing(driver) as transaction:
        for name in "ab":
            transaction.insert(ENTRY.name, (name,), entry(), b"{}")
    held = holder.begin(write=True)
    assert held.get(ENTRY.name, ("b",)) == b"{}"

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        transaction = driver.begin(write=True)
        assert transaction.get(ENTRY.name, ("a",)) == b"{}"
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Interrupted):
            transaction.get(ENTRY.name, ("b",))
        transaction.rollback()
    finally:
        signal.signal(signal.SIGALRM, before)
    asked = time.monotonic()
    with writing(driver) as again:
        assert again.get(ENTRY.name, ("a",)) == b"{}"
    assert time.monotonic() - asked < 10
    held.rollback()


def test_a_process_of_another_machine(jobs: JobStore, target: str) -> None:
    """The mark of a process on another machine, of which nobody here can tell whether it lives, is
    left alone by every opening; nothing is counted again on its account.
    """
    elsewhere = Owner(node_id=None, pid=1, boot_id="a boot@elsewhere", started="1")
    jobs.database.write(meta.write_opener, elsewhere)
    for _ in range(2):
        with open_database(f"{target}&pool_size=3") as database:
            assert (database.stopped_uncleanly, database.recounted) == ((), ())
            openers = database.read(meta.read_openers).values()
            assert elsewhere in openers


def test_a_forked_child_leaves_the_connections_alone(jobs: JobStore) -> None:
    """A child that ends, however, says nothing over its parent's connections."""
    with jobs.database.transaction():
        jobs.create(Job(id="k"))
        pid = os.fork()
        if pid == 0:
            try:
                with pytest.raises(StorageError, match="fork"):
                    jobs.get("k")
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        jobs.create(Job(id="l"))
    assert jobs.count() == 3
