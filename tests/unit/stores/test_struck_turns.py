"""Wherever an exception out of a signal handler strikes, the turn is not left with a
thread that has gone on: nobody could ever write again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storebridge import Database, Job, JobStore, open_database
from storebridge.compaction.compact import reclaim
from storebridge.compaction.pace import Pace
from storebridge.driver import Field, Table
from storebridge.transaction import Unit
from tests.unit.strikes import Striking, strikes

FILES = (
    *("storebridge/turns.py", "storebridge/writing.py", "storebridge/database.py"),
    *("storebridge/blocks.py", "compaction/pace.py", "compaction/compact.py"),
)


def is_free(database: Database) -> bool:
    """Whether another thread can have the turn."""
    found = []

    def look() -> None:
        found.append(database._turn.try_take())
        database._turn.give()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found == [True]


def write_nothing(unit: Unit) -> None:
    pass


def a_block(database: Database) -> None:
    with database.transaction():
        database.write(write_nothing)


CALLS: dict[str, Callable[[Database], object]] = {
    "tables": lambda database: database._create_tables([Table("one", (Field("id"),))]),
    "check": lambda database: database.engine_check(),
    "write": lambda database: database.write(write_nothing),
    "write apart": lambda database: database.write_apart(write_nothing),
    "block": a_block,
    "reclaim": lambda database: reclaim(database, Pace(database), 0.0),
}


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.parametrize("name", CALLS)
def test_the_turn_is_given_back(
    name: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of everything that takes it."""
    location = f"memory:{tmp_path}" if backend == "memory" else f"sqlite://{tmp_path}/x"
    with open_database(f"{location}?durability=off") as database:
        JobStore(database).create(Job(id="j"))
        monkeypatch.setattr(database.driver, "check", lambda: iter(["a page is damaged"]))

        def act(striking: Striking) -> None:
            with striking():
                CALLS[name](database)
            assert is_free(database), striking.where
            assert not database.in_transaction, striking.where

        assert strikes(FILES, act) >= 5
        JobStore(database).create(Job(id="k"))
        assert JobStore(database).count() == 2


def test_closing(tmp_path: Path) -> None:
    """A database that was struck while it was being closed is open, or closed, but not in between
    for ever."""
    number = 0

    def act(striking: Striking) -> None:
        nonlocal number
        number += 1
        database = open_database(f"sqlite://{tmp_path}/{number}?durability=off")
        JobStore(database).create(Job(id="j"))
        with striking():
            database.close()
        assert is_free(database), striking.where
        if not database.closed:
            database.close()
        with open_database(f"sqlite://{tmp_path}/{number}?durability=off") as database:
            assert JobStore(database).count() == 1

    assert strikes(FILES, act) >= 5


def test_a_block_that_was_left(tmp_path: Path) -> None:
    """One whose end was struck is ended when its object goes; and that may be struck, too."""
    with open_database(f"memory:{tmp_path}") as database:

        def act(striking: Striking) -> None:
            block = database.transaction()
            block.__enter__()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("sys.unraisablehook", lambda unraisable: None)
                with striking():
                    del block
            assert is_free(database), striking.where
            assert not database.in_transaction

        assert strikes(FILES, act) >= 5
