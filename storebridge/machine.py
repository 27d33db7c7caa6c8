"""State machines as data: a service can bring its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from storebridge.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class StateMachine:
    """The states of a record and how it may pass between them.

    `transitions` names for each state the states that may follow; one that none may follow is
    terminal. The first state is what a new record has if it says nothing else. `owned` states need
    a living owner: a record found in one at restart, whose owner is gone, is to be recovered.
    """

    transitions: Mapping[str, tuple[str, ...]]
    owned: frozenset[str] = frozenset()
    states: tuple[str, ...] = field(init=False)
    terminal: frozenset[str] = field(init=False)
    live: tuple[str, ...] = field(init=False)
    """The states that are not terminal."""

    def __post_init__(self) -> None:
        states = tuple(self.transitions)
        unknown = {to for after in self.transitions.values() for to in after}.union(self.owned)
        unknown -= set(states)
        if not states or unknown:
            raise ConfigurationError(f"state machine: unknown states {sorted(unknown)}")
        # A mapping that its owner changes later must not change the machine.
        object.__setattr__(self, "transitions", {s: tuple(t) for s, t in self.transitions.items()})
        object.__setattr__(self, "states", states)
        object.__setattr__(
            self, "terminal", frozenset(s for s in states if not self.transitions[s])
        )
        object.__setattr__(self, "live", tuple(s for s in states if self.transitions[s]))

    @property
    def initial(self) -> str:
        """The state of a new record that names none."""
        return self.states[0]
