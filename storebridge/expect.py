"""What a write requires of a record as it stands."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from storebridge.errors import InvalidRecordError
from storebridge.owner import Owner


@dataclass(frozen=True)
class Expect:
    """What a write requires of the record as it stands; else it is a ConflictError."""

    states: Collection[str] | None = None
    not_states: Collection[str] | None = None
    revision: int | None = None
    owner: Owner | None = None
    """The process that must hold it: one that has lost it meanwhile learns so."""

    def __post_init__(self) -> None:
        if self.revision is not None and type(self.revision) is not int:
            raise InvalidRecordError(f"expected revision: a whole number, not {self.revision!r}")
        if self.owner is not None and not isinstance(self.owner, Owner):
            raise InvalidRecordError(f"expected owner: an Owner, not {self.owner!r}")
        for states in (self.states, self.not_states):
            if states is not None and type(states) is not tuple:
                _check_collection(states)

    def mismatch(self, record: Any) -> str | None:
        """What is not as expected, in words; None if all is."""
        if self.revision is not None and record.revision != self.revision:
            return f"is at revision {record.revision}, not {self.revision}"
        state = getattr(record, "state", None)
        if self.states is not None and state not in self.states:
            return f"is {state}, not {' or '.join(self.states)}"
        if self.not_states is not None and state in self.not_states:
            return f"is {state}"
        if self.owner is not None and (holder := getattr(record, "owner", None)) != self.owner:
            return f"is held by {holder or 'nobody'}, not by {self.owner}"
        return None


def _check_collection(states: Any) -> None:
    # Any part of a text would do for a state.
    if isinstance(states, str | bytes) or not isinstance(states, Collection):
        raise InvalidRecordError(f"expected states: a collection of states, not {states!r}")
