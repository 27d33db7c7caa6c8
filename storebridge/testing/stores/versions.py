"""Three versions of a record, as services of different ages would have them."""

from __future__ import annotations

from typing import Any

from storebridge import Record, RecordSpec, StateMachine

MACHINE = StateMachine({"Open": ("Closed",), "Closed": ()})


class Old(Record, kw_only=True, tag=1):
    """The first version of a record."""

    state: str = ""
    kilobytes: int = 0


class New(Record, kw_only=True, tag=3):
    """Its third: kilobytes became bytes in the second, the third added a note."""

    state: str = ""
    bytes: int = 0
    note: str = ""


def to_bytes(members: dict[str, Any]) -> dict[str, Any]:
    """From 1 to 2."""
    return members | {"bytes": members.pop("kilobytes") * 1024}


def with_note(members: dict[str, Any]) -> dict[str, Any]:
    """From 2 to 3."""
    return members | {"note": "upgraded"}


OLD = RecordSpec(name="thing", type=Old, machine=MACHINE, filters=("state",))
NEW = RecordSpec(
    name="thing",
    type=New,
    machine=MACHINE,
    filters=("state",),
    upgrades={1: to_bytes, 2: with_note},
)
