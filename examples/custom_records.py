"""Records and states of your own: brews, and what becomes of old ones when the service is upgraded.

python custom_records.py [LOCATION]
"""

import sys
from typing import Any

from storebridge import Record, RecordSpec, RecordStore, StateMachine, open_database

BREWING = StateMachine(
    {"Mashing": ("Boiling",), "Boiling": ("Fermenting", "Spoiled"),
     "Fermenting": ("Ready", "Spoiled"), "Ready": (), "Spoiled": ()}
)  # fmt: skip


class FirstBrew(Record, kw_only=True, tag=1):
    """A brew as the first version of the service wrote it."""

    recipe: str
    state: str = ""
    gravity: str = ""


class Brew(Record, kw_only=True, tag=2):
    """A brew now. The gravity became a number; a new field with a default needs no upgrade."""

    recipe: str
    state: str = ""
    message: str = ""
    gravity: int | None = None


def upgrade(members: dict[str, Any]) -> dict[str, Any]:
    """The members of a body of version 1 as those of version 2."""
    degrees = members.pop("gravity", "").removesuffix(" Oe")
    return members | {"gravity": int(degrees) if degrees else None}


FILTERS = ("state", "recipe")
FIRST = RecordSpec(name="brew", type=FirstBrew, machine=BREWING, filters=FILTERS)
NOW = RecordSpec(name="brew", type=Brew, machine=BREWING, filters=FILTERS, upgrades={1: upgrade})


def main(location: str = "memory:") -> None:
    """Keep brews with the first version of the service, and go on with the second."""
    with open_database(location) as database:
        first = RecordStore(database, FIRST)
        brew = first.create(FirstBrew(recipe="porter", gravity="62 Oe"))
        first.set_state(brew.id, "Boiling")

        brews = RecordStore(database, NOW)
        print("read as now:", brews.get(brew.id).gravity)
        brews.set_state(brew.id, "Fermenting", message="in tank 3")
        print("found:", [found.recipe for found in brews.find(state="Fermenting")])
        print("counts:", {state: n for state, n in brews.counts().items() if n})


if __name__ == "__main__":
    main(*sys.argv[1:])
