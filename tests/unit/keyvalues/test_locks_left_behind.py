"""Locks that could not be given back, or not taken; and machines that are called the same."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from storebridge import (
    ConflictError,
    KeyValueStore,
    Lock,
    Owner,
    StoreFullError,
    StoreLockedError,
    open_database,
    this_process,
    times,
)
from storebridge import owner as owners


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device.db"


@pytest.fixture
def gpio(path: Path) -> Iterator[KeyValueStore]:
    with open_database(f"sqlite://{path}?durability=off&lock_timeout=0.1") as database:
        yield KeyValueStore(database, "gpio")


def leave(lock: Lock, path: Path) -> None:
    """Come to the end of the lock's block while somebody else writes for too long."""
    connection = sqlite3.connect(path, isolation_level=None)
    with closing(connection), pytest.raises(StoreLockedError, match=path.name), lock:
        connection.execute("begin immediate")


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_giving_back_again(gpio: KeyValueStore, path: Path) -> None:
    """A lock that could not be given back is still held, says so, and can be given back later."""
    lock = gpio.lock("pin")
    leave(lock, path)
    assert lock.held
    lock.release()
    assert list(gpio.locks()) == []
    with lock, pytest.raises(StoreLockedError, match="wait for itself"):
        gpio.lock("pin").acquire()


@pytest.mark.parametrize("which", ["the same", "another"])
def test_left_to_who_wants_it_next(gpio: KeyValueStore, path: Path, which: str) -> None:
    """A process does not keep itself out for the rest of its life with a lock that nobody in it
    holds any more; nor does it lock anybody out twice.
    """
    lock = gpio.lock("pin")
    leave(lock, path)
    token = lock.token or 0
    again = lock if which == "the same" else gpio.lock("pin")
    in_thread(lambda: again.acquire(timeout=0))
    assert again.token == token + 1
    with pytest.raises(StoreLockedError, match="lives"):
        gpio.lock("pin", timeout=0).acquire()
    if which == "another":
        with pytest.raises(ConflictError, match="lost"):
            lock.release()
    assert again.held
    again.release()
    assert list(gpio.locks()) == []


class Overtaken(Lock):
    """Another thread is quicker, when this one has failed and is about to clean up."""

    def _give_up(self) -> None:
        in_thread(self.quicker.acquire)
        super()._give_up()

    quicker: Lock


def test_the_token_of_two_threads() -> None:
    """A thread that failed to take a lock does not give back that of another thread, which has got
    the same token since.
    """
    full = False

    def clock() -> datetime:
        nonlocal full
        if full:
            full = False
            raise StoreFullError("no space left on the device")
        return times.now()

    with open_database("memory:", clock=clock) as database:
        gpio = KeyValueStore(database, "gpio")
        made = gpio.lock("pin", timeout=0)
        lock = Overtaken(made._locks, "pin", made._id, None, None, 0)
        lock.quicker = made
        full = True
        with pytest.raises(StoreFullError):
            lock.acquire()
        assert not lock.held
        assert made.held
        assert [held.token for held in gpio.locks()] == [made.token]


def test_machines_of_one_name(gpio: KeyValueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines of one image are called the same. Where nobody named them, none takes another's
    living processes for dead: their locks are free when they say so, or by a lease.
    """

    def process_of(boot: str) -> Owner:
        monkeypatch.setattr(owners, "boot_id", lambda: boot)
        return this_process(owners.unnamed_node.__wrapped__())

    there, here = process_of("a boot@one"), process_of("another@two")
    gpio.lock("pin", there).acquire()
    with pytest.raises(StoreLockedError, match="cannot be seen from here"):
        gpio.lock("pin", here, timeout=0).acquire()
    restarted = process_of("a later boot@one")
    assert gpio.lock("pin", restarted, timeout=0).acquire() == 2


def test_a_machine_without_an_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name alone says which it is."""
    monkeypatch.setattr(owners, "boot_id", lambda: "a boot")
    assert "@" not in owners.unnamed_node.__wrapped__()
