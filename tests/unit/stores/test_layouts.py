"""What a database notes of its stores: states that another process adds, and a note gone bad."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storebridge import (
    Job,
    JobStore,
    Record,
    RecordSpec,
    RecordStore,
    StateMachine,
    TransactionError,
    open_database,
)
from storebridge.check import check, repair


class Brew(Record, kw_only=True, tag=1):
    state: str = ""


def spec(*more: str) -> RecordSpec[Brew]:
    states = ("Mashing", *more)
    machine = StateMachine(dict.fromkeys(states, (*states, "Drunk")) | {"Drunk": ()})
    return RecordSpec(name="brew", type=Brew, machine=machine, filters=("state",))


NEWER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_layouts import Brew, RecordStore, open_database, spec

with open_database(sys.argv[1]) as database:
    brews = RecordStore(database, spec("Lagering"))
    for number in range(3):
        brews.create(Brew(id=f"b-{number}", state="Lagering"))
"""


def test_states_that_another_process_added(tmp_path: Path) -> None:
    """A process that knows fewer states neither reports the others' counters nor clears them."""
    location = f"sqlite://{tmp_path}/brews.db"
    with open_database(location) as database:
        brews = RecordStore(database, spec())
        brews.create(Brew(id="mine"))
        newer = [sys.executable, "-c", NEWER, location, str(Path(__file__).parent)]
        subprocess.run(newer, check=True, timeout=60)
        assert list(check(database)) == []
        repair(database)
    with open_database(location) as database:
        assert RecordStore(database, spec("Lagering")).counts()["Lagering"] == 3


def test_new_states_are_not_noted_in_a_transaction() -> None:
    """What a block undoes must not stay in memory as if the file had it."""
    with open_database("memory:states") as database:
        RecordStore(database, spec())
        with database.transaction(), pytest.raises(TransactionError, match="open it before"):
            RecordStore(database, spec("Lagering"))
        assert RecordStore(database, spec("Lagering")).counts()["Lagering"] == 0


def test_an_unreadable_note_of_a_store(tmp_path: Path) -> None:
    """It is reported, keeps no other store from opening, and is written anew by its own."""
    location = f"sqlite://{tmp_path}/node.db"
    with open_database(location) as database:
        RecordStore(database, spec()).create(Brew(id="b"))
        JobStore(database).create(Job(id="j"))
        key = ("store brew",)
        database.write(
            lambda unit: unit.engine.replace("storebridge-meta", key, (), (), b"{damaged")
        )
    with open_database(location) as database:
        assert JobStore(database).get("j").id == "j"
        assert [fault.key for fault in check(database)] == [key]
        assert RecordStore(database, spec()).get("b").id == "b"
        assert list(check(database)) == []


def test_a_state_that_one_service_holds_to_be_live(tmp_path: Path) -> None:
    """Where two versions of a service disagree on whether a state is final, it is noted as live,
    whoever comes last: no record goes as done that another service would go on with.
    """
    location = f"sqlite://{tmp_path}/brews.db"
    final = spec()
    machine = StateMachine({"Mashing": ("Drunk",), "Drunk": ("Mashing",)})
    reopened = RecordSpec(name="brew", type=Brew, machine=machine, filters=("state",))
    for service, terminal in ((final, ("Drunk",)), (reopened, ()), (final, ())):
        with open_database(location) as database:
            RecordStore(database, service)
        with open_database(location, read_only=True) as database:
            assert database.layouts["brew"].terminal == terminal
