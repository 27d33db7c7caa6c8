"""Opening and closing in several threads: each waits for what concerns its own location only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storebridge import Database, Job, JobStore, StoreLockedError, open_database, opening
from storebridge.location import Location, location_of
from storebridge.opening import is_open_here, kept_closed
from tests.unit.strikes import Striking, strikes

PATIENCE = 10.0


@pytest.fixture
def locations(tmp_path: Path) -> list[str]:
    return [f"sqlite://{tmp_path}/{name}?durability=off&lock_timeout=30" for name in "ab"]


class Started:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.outcome: object = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self._call()
        except BaseException as error:
            self.outcome = error

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> object:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.outcome


@contextmanager
def closing_for_long(database: Database) -> Iterator[Started]:
    """In the block another thread is closing it, and waits for a third one, which writes."""
    writes, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with database.transaction():
            JobStore(database).create(Job(id="late"))
            writes.set()
            go_on.wait(60)

    writer = Started(write)
    assert writes.wait(PATIENCE)
    closing = Started(database.close)
    give_up = time.monotonic() + PATIENCE
    while not database._turn.line and time.monotonic() < give_up:
        time.sleep(0.001)
    try:
        yield closing
    finally:
        go_on.set()
        writer.end()


def make(location: str) -> Database:
    database = open_database(location)
    JobStore(database)
    return database


def test_another_one_while_one_is_closed(locations: list[str]) -> None:
    """It is opened and closed at once."""
    with closing_for_long(make(locations[0])) as closing:
        other = Started(lambda: make(locations[1]))
        database = other.end()
        assert isinstance(database, Database)
        assert Started(database.close).end() is None
        assert closing.goes_on
    assert closing.end() is None


def test_the_same_one_while_it_is_closed(locations: list[str]) -> None:
    """Whoever opens it waits until it is closed, and has it anew, with all that was written."""
    database = make(locations[0])
    with closing_for_long(database) as closing:
        again = Started(lambda: open_database(locations[0]))
        time.sleep(0.2)
        assert again.goes_on
    assert closing.end() is None
    anew = again.end()
    assert isinstance(anew, Database)
    assert anew is not database
    assert JobStore(anew).get("late")
    anew.close()


def test_two_who_close_it(locations: list[str]) -> None:
    """The second one waits, and finds it closed."""
    database = make(locations[0])
    with closing_for_long(database) as closing:
        second = Started(database.close)
        time.sleep(0.1)
        assert second.goes_on
    assert closing.end() is None
    assert second.end() is None
    assert database.closed


def test_replacing_it_while_it_is_closed(locations: list[str]) -> None:
    """Whoever wants it closed waits until it is."""
    location = location_of(locations[0])

    def keep() -> str:
        with kept_closed(location):
            return "kept"

    with closing_for_long(make(locations[0])) as closing:
        assert is_open_here(location)
        keeping = Started(keep)
        time.sleep(0.1)
        assert keeping.goes_on
    assert closing.end() is None
    assert keeping.end() == "kept"


def test_one_that_stays_open(tmp_path: Path) -> None:
    """Where closing is refused, whoever waited to open it has the same one."""
    location = f"sqlite://{tmp_path}/x?durability=off&lock_timeout=0.5"
    database = make(location)
    with closing_for_long(database) as closing:
        again = Started(lambda: open_database(location))
        assert isinstance(closing.end(), StoreLockedError)
        assert again.end() is database
    database.close()
    assert not database.closed
    database.close()
    assert database.closed


def test_a_writer_who_opens_another_one(locations: list[str]) -> None:
    """Whoever closes the one waits for a writer, and the writer not for whoever closes."""
    database = make(locations[0])
    make(locations[1]).close()
    writes = threading.Event()

    def write() -> None:
        with database.transaction():
            writes.set()
            while not database._turn.line:
                time.sleep(0.001)
            open_database(locations[1]).close()

    writer = Started(write)
    assert writes.wait(PATIENCE)
    closing = Started(database.close)
    assert writer.end() is None
    assert closing.end() is None


def test_opening_what_takes_another_one_to_open(
    locations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While that waits for the other one to be closed, nobody else opens the first once more."""
    open_one, other = opening._open, make(locations[1])

    def open_both(location: Location, *args: Any) -> Database:
        if location.target.endswith("a"):
            open_database(locations[1]).close()
        return open_one(location, *args)

    monkeypatch.setattr(opening, "_open", open_both)
    with closing_for_long(other) as closing:
        first = Started(lambda: open_database(locations[0]))
        second = Started(lambda: open_database(locations[0]))
        time.sleep(0.2)
        assert first.goes_on
        assert second.goes_on
    assert closing.end() is None
    database = first.end()
    assert isinstance(database, Database)
    assert second.end() is database
    database.close()
    database.close()
    assert database.closed


def test_struck(tmp_path: Path) -> None:
    """Wherever an exception out of a signal handler strikes who closes, nobody waits for it."""

    def act(striking: Striking) -> None:
        database = open_database(f"memory:{tmp_path}")
        with striking():
            database.close()
        opened = Started(lambda: open_database(f"memory:{tmp_path}")).end()
        assert isinstance(opened, Database), striking.where
        opened.close()
        if not opened.closed:
            opened.close()
        assert not is_open_here(location_of(f"memory:{tmp_path}")), striking.where

    assert strikes(("storebridge/opening.py",), act) > 10
