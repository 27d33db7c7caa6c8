"""Connections that are lost just when a transaction was being committed: the outcome is found out,
not guessed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from storebridge_sqlalchemy import backend, commits, pool

from storebridge import Job, JobStore, StorageError, open_database
from storebridge.driver import Driver, DriverError, Options, Range
from storebridge.testing.harness import reading, writing
from storebridge.testing.samples import ENTRY, LAYOUT, LOG, TABLES, entry
from storebridge.testing.stores.base import assert_sound
from tests.postgres_server import Database, Server
from tests.unit.sqlalchemy.conftest import Open
from tests.unit.sqlalchemy.proxy import Proxy, proxy_to


@pytest.fixture
def far(target: str) -> Iterator[tuple[Driver, Proxy]]:
    """A database that is reached by way of a proxy, with a transaction committed."""

    with proxy_to(target) as proxy:
        driver = backend.open(proxy.url(target), Options(lock_timeout=20.0))
        driver.create_tables(TABLES, LAYOUT)
        with writing(driver) as transaction:
            transaction.insert(ENTRY.name, ("before",), entry(), b"{}")
            transaction.tally({"n": 1})
        yield driver, proxy
        driver.close()


def is_commit(piece: bytes) -> bool:
    return b"COMMIT\0" in piece  # "READ COMMITTED" is none


def change(driver: Driver, tally: bool = True) -> None:
    """A transaction, numbered or not."""
    with writing(driver) as transaction:
        transaction.insert(ENTRY.name, ("new",), entry(), b"{}")
        if tally:
            number = transaction.tally({"n": 1})["n"]
            transaction.insert(LOG.name, (number,), ("w",), b"{}")


def entries(driver: Driver) -> tuple[int, int, int]:
    with reading(driver) as transaction:
        counted = [transaction.count(table.name, Range()) for table in (ENTRY, LOG)]
        return (*counted, transaction.totals("n")["n"])  # type: ignore[return-value]


@pytest.mark.parametrize("tally", [True, False], ids=["numbered", "plain"])
def test_a_commit_that_arrived(far: tuple[Driver, Proxy], tally: bool) -> None:
    """Where the commit reached the server and only its answer was lost, it has succeeded."""
    driver, proxy = far
    proxy.cut_when, proxy.deliver = is_commit, True
    change(driver, tally)
    assert proxy.cut.is_set()
    assert entries(driver) == (2, int(tally), 1 + tally)


@pytest.mark.parametrize("tally", [True, False], ids=["numbered", "plain"])
def test_a_commit_that_never_arrived(far: tuple[Driver, Proxy], tally: bool) -> None:
    """Where the commit did not reach the server, it failed, nothing of it is there, and the same
    work can be done again.
    """
    driver, proxy = far
    proxy.cut_when, proxy.deliver = is_commit, False
    with pytest.raises(DriverError, match="connection to the server was lost"):
        change(driver, tally)
    assert entries(driver) == (1, 0, 1)
    change(driver, tally)
    assert entries(driver) == (2, int(tally), 1 + tally)


@pytest.mark.parametrize("deliver", [True, False], ids=["kept", "lost"])
def test_an_outcome_that_has_to_be_asked_for_twice(
    far: tuple[Driver, Proxy], deliver: bool
) -> None:
    """Where the connection over which the outcome is asked is lost as well, whether or not what it
    wrote was kept, the answer is the same.
    """
    driver, proxy = far

    def cut(piece: bytes) -> bool:
        if not is_commit(piece):
            return False
        # Not before this one was cut.
        proxy.then = is_commit, deliver
        return True

    proxy.cut_when, proxy.deliver = cut, False
    with pytest.raises(DriverError, match="connection to the server was lost"):
        change(driver)
    assert proxy.then is None
    assert entries(driver) == (1, 0, 1)
    change(driver)
    assert entries(driver) == (2, 1, 2)


@pytest.mark.parametrize("tally", [True, False], ids=["numbered", "plain"])
def test_a_commit_that_arrives_late(far: tuple[Driver, Proxy], tally: bool) -> None:
    """A commit that was told to have failed does not happen later, when the network gives out
    what it had held back; what the same process commits since is not disturbed.
    """
    driver, proxy = far
    proxy.cut_when, proxy.hold = is_commit, True
    with pytest.raises(DriverError, match="connection to the server was lost"):
        change(driver, tally)
    assert entries(driver) == (1, 0, 1)
    proxy.release()
    assert proxy.delivered.wait(20)
    with writing(driver) as transaction:
        assert transaction.insert(ENTRY.name, ("later",), entry(), b"{}")
    assert entries(driver) == (2, 0, 1)
    with reading(driver) as transaction:
        assert transaction.get(ENTRY.name, ("new",)) is None


def test_a_commit_that_arrives_late_where_nobody_may_end_sessions(
    far: tuple[Driver, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the server has not ended the lost session, and the whole end of the
    transaction is late: the token keeps it from being committed.
    """
    driver, proxy = far
    monkeypatch.setattr(pool, "_TERMINATE", "SELECT 1 WHERE %s = -1 AND %s = 'x'")
    proxy.cut_when, proxy.hold = (lambda piece: b"storebridge_commit AS c" in piece), True
    with pytest.raises(DriverError, match="connection to the server was lost"):
        change(driver, tally=False)
    assert entries(driver) == (1, 0, 1)
    proxy.release()
    assert proxy.delivered.wait(20)
    assert entries(driver) == (1, 0, 1)
    change(driver)
    assert entries(driver) == (2, 1, 2)


def test_locks_of_a_lost_session_are_freed(far: tuple[Driver, Proxy]) -> None:
    """Where the network loses a connection and the server does not know, the process that lost it
    has the server end the session: nobody waits for a ghost.
    """
    driver, proxy = far
    transaction = driver.begin(write=True)
    assert transaction.get(ENTRY.name, ("before",)) == b"{}"
    proxy.cut_when, proxy.hold = (lambda piece: True), True
    with pytest.raises(DriverError, match="connection to the server was lost"):
        transaction.get(ENTRY.name, ("other",))
    transaction.rollback()
    with writing(driver) as again:
        assert again.get(ENTRY.name, ("before",)) == b"{}"


def test_a_server_that_does_not_come_back(
    own_postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the outcome of a commit cannot be found out, the error says that it is not known."""
    monkeypatch.setattr(commits, "_PATIENCE", 0.5)
    target = own_postgresql.target()
    with proxy_to(target) as proxy, open_database(proxy.url(target)) as database:
        jobs = JobStore(database)

        def stop(piece: bytes) -> bool:
            if is_commit(piece):
                own_postgresql.stop(signal.SIGQUIT)
            return is_commit(piece)

        proxy.cut_when = stop
        try:
            with pytest.raises(StorageError, match="is not known"):
                jobs.create(Job(id="j"))
        finally:
            own_postgresql.start()
        assert jobs.count() == 0
        jobs.create(Job(id="j"))
        assert_sound(database)


def test_tokens_are_taken_away(postgresql: Database, opened: Open, target: str) -> None:
    """Whoever closes takes its token away, and those that others left long ago."""
    schema = target.rpartition("=")[2]
    driver = opened()
    with postgresql.connect() as connection:
        connection.execute(
            f"INSERT INTO {schema}.storebridge_commit"
            " VALUES ('old', 5, now() - interval '31 days'), ('recent', 5, now())"
        )
        change(driver)
        found = connection.execute(f"SELECT count(*) FROM {schema}.storebridge_commit").fetchone()
        assert found == (3,)
        driver.close()
        rows = connection.execute(f"SELECT opener FROM {schema}.storebridge_commit").fetchall()
        assert rows == [("recent",)]
