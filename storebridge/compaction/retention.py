"""Retention: what may go, as data, from code, the environment or the command line.

As text, rules are separated by `;` and the parts of a rule by blanks:
`keep=30d states=Completed,Failed; stores=job versions_count=10`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from storebridge.errors import ConfigurationError
from storebridge.spec import StoreLayout

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_age = re.compile(r"([0-9]{1,9})([smhdw])")
_LONGEST = timedelta(days=365 * 1000)
T = TypeVar("T", int, timedelta)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """A rule of what may go; what no rule names stays for ever.

    Ages are counted from the last change of a record, from when an event happened or a version was
    made. Where an age and a count are given, what is beyond either goes.
    """

    stores: tuple[str, ...] | None = None
    """Which stores it is about. None: every store; but records without states, such as settings,
    only go from stores that are named."""
    states: tuple[str, ...] | None = None
    """In which states records go. None: the terminal ones. Live records go only if their state is
    named."""
    keep: timedelta | None = None
    """Records go when they have not been changed for longer than this, and with them their labels,
    versions and events."""
    count: int | None = None
    """In each store, only so many of the records that might go stay: those made last."""
    events_keep: timedelta | None = None
    """Events of records that are there go when they are older, but for each record's last."""
    events_count: int | None = None
    """Of each record only so many events stay, the last ones; at least one."""
    versions_keep: timedelta | None = None
    """Old versions of a record go when they were made longer ago."""
    versions_count: int | None = None
    """Of each record only so many old versions stay, the last ones."""
    deleted_keep: timedelta | None = None
    """The history of a record goes when it was deleted longer ago. None: as `keep`; where only
    `count` lets records go, as `checkpoints_keep`, since each of them leaves an event."""
    checkpoints_keep: timedelta = timedelta(days=30)
    """No event goes that a checkpoint has not passed which was set within this time. A reader that
    is alive sets its own again now and then; one that is forgotten holds nothing for ever."""

    def __post_init__(self) -> None:
        for name in ("stores", "states"):
            _check_names(name, getattr(self, name))
        for name in _AGES:
            _check_age(name, getattr(self, name))
        for name in _COUNTS:
            _check_count(name, getattr(self, name), least=1 if name == "events_count" else 0)

    @property
    def history_of_deleted(self) -> timedelta | None:
        """How long the history of a deleted record is kept; None: for ever."""
        if self.deleted_keep is not None:
            return self.deleted_keep
        return self.checkpoints_keep if self.keep is None and self.count is not None else self.keep

    @property
    def removes_events(self) -> bool:
        """Whether it lets any event go."""
        ages = (self.history_of_deleted, self.events_keep, self.events_count)
        return any(limit is not None for limit in ages)

    def is_about(self, layout: StoreLayout) -> bool:
        """Whether the rule speaks of a store at all."""
        return self.stores is None or layout.name in self.stores

    def leaving(self, layout: StoreLayout) -> tuple[str, ...] | None:
        """The states in which records of a store may go, `()` for a store without states that may
        lose records; None: its records stay."""
        if not self.is_about(layout) or (self.keep is None and self.count is None):
            return None
        if not layout.states:
            return () if self.stores is not None and self.states is None else None
        wanted = layout.terminal if self.states is None else self.states
        return tuple(state for state in layout.states if state in wanted) or None


class Limits(NamedTuple):
    """What all rules together say of a store's events and versions."""

    events_keep: timedelta | None
    events_count: int | None
    versions_keep: timedelta | None
    versions_count: int | None
    deleted_keep: timedelta | None
    checkpoints_keep: timedelta


def limits_of(rules: Iterable[Retention], layout: StoreLayout) -> Limits:
    """What is beyond the limit of one rule goes, but for what another's checkpoints hold."""
    about = [rule for rule in rules if rule.is_about(layout)]
    return Limits(
        events_keep=_least(rule.events_keep for rule in about),
        events_count=_least(rule.events_count for rule in about),
        versions_keep=_least(rule.versions_keep for rule in about),
        versions_count=_least(rule.versions_count for rule in about),
        deleted_keep=_least(rule.history_of_deleted for rule in about),
        checkpoints_keep=max((rule.checkpoints_keep for rule in about), default=timedelta(0)),
    )


def _least(limits: Iterable[T | None]) -> T | None:
    return min((limit for limit in limits if limit is not None), default=None)


_AGES = ("keep", "events_keep", "versions_keep", "deleted_keep", "checkpoints_keep")
_COUNTS = ("count", "events_count", "versions_count")


def parse_retention(text: str, source: str = "retention") -> tuple[Retention, ...]:
    """The rules that a text says. ConfigurationError names `source`, and what is accepted."""
    rules = [_rule(part, source) for part in text.split(";") if part.strip()]
    if not rules:
        raise ConfigurationError(f"{source}={text!r}: no rule; write such as keep=30d")
    return tuple(rules)


def _rule(text: str, source: str) -> Retention:
    given: dict[str, Any] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if name not in _PARSERS or not value:
            raise ConfigurationError(f"{source}: {word!r}: accepted are {'=, '.join(_PARSERS)}=")
        if name in given:
            raise ConfigurationError(f"{source}: {name} comes twice in {text.strip()!r}")
        given[name] = _PARSERS[name](value, f"{source}: {name}")
    return Retention(**given)


def parse_age(text: str, source: str = "age") -> timedelta:
    """A time such as `90m`, `12h`, `30d` or `2w`."""
    found = _age.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"{source}={text!r}: accepted are such as 90m, 12h, 30d, 2w")
    seconds = int(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST.total_seconds():
        raise ConfigurationError(f"{source}={text!r}: accepted are up to 1,000 years")
    return timedelta(seconds=seconds)


def parse_count(text: str, source: str = "count") -> int:
    """A whole number."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ConfigurationError(f"{source}={text!r}: accepted is a whole number")
    return int(text)


def parse_names(text: str, source: str = "names") -> tuple[str, ...]:
    """Names separated by commas."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ConfigurationError(f"{source}={text!r}: accepted are names separated by commas")
    return names


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    field.name: parse_age
    if field.name in _AGES
    else parse_count
    if field.name in _COUNTS
    else parse_names
    for field in fields(Retention)
}


def check_rules(rules: Iterable[Retention], layouts: Iterable[StoreLayout]) -> None:
    """ConfigurationError for a rule about a store or a state that there is none of: misspelt, it
    would keep for ever what was to go."""
    layouts = list(layouts)
    known = {layout.name for layout in layouts}
    for rule in rules:
        if unknown := sorted(set(rule.stores or ()) - known):
            raise ConfigurationError(f"retention: no store is called {', '.join(unknown)}")
        states = {state for each in layouts if rule.is_about(each) for state in each.states}
        if unknown := sorted(set(rule.states or ()) - states):
            raise ConfigurationError(
                f"retention: {', '.join(unknown)} is no state of its stores; there are"
                f" {', '.join(sorted(states)) or 'none'}"
            )


def _check_names(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, tuple) or not value or not all(isinstance(v, str) for v in value):
        raise ConfigurationError(f"retention: {name}: expected a tuple of names, got {value!r}")


def _check_age(name: str, value: Any) -> None:
    if name == "checkpoints_keep" and value is None:
        raise ConfigurationError("retention: checkpoints_keep: a time; nothing is held for ever")
    if value is not None and not (
        isinstance(value, timedelta) and timedelta(0) <= value <= _LONGEST
    ):
        raise ConfigurationError(
            f"retention: {name}: expected a timedelta of up to 1,000 years, got {value!r}"
        )


def _check_count(name: str, value: Any, *, least: int) -> None:
    if value is not None and (type(value) is not int or value < least):
        raise ConfigurationError(
            f"retention: {name}: expected a whole number from {least}, got {value!r}"
        )
