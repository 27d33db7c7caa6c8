"""Label selectors in Kubernetes syntax: `app=web,tier in (a, b),!old,team,env!=test`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from storebridge.errors import InvalidQueryError, InvalidRecordError
from storebridge.limits import MAX_ID, check_text

_NAME = r"[^\s,=!()]+"
_set_based = re.compile(rf"({_NAME})\s+(in|notin)\s*\(([^()]*)\)$")
_equality = re.compile(rf"({_NAME})\s*(==|=|!=)\s*({_NAME})$")
_existence = re.compile(rf"(!?)\s*({_NAME})$")
_comma_outside_brackets = re.compile(r",(?![^(]*\))")


class Requirement(NamedTuple):
    """One condition of a selector."""

    label: str
    operator: Literal["in", "notin", "exists", "absent"]
    values: tuple[str, ...] = ()

    @property
    def has_index(self) -> bool:
        """Whether the label index lists what meets it."""
        return self.operator in ("in", "exists")

    def is_met_by(self, labels: Mapping[str, str]) -> bool:
        """As in Kubernetes, `!=` and `notin` are met by what lacks the label, too."""
        if self.operator == "in":
            return labels.get(self.label) in self.values
        if self.operator == "notin":
            return labels.get(self.label) not in self.values
        return (self.label in labels) == (self.operator == "exists")


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """The conditions of a selector, all of which are to be met. InvalidQueryError if malformed."""
    if not isinstance(text, str):
        raise InvalidQueryError(f"label selector: expected text, got {type(text).__name__}")
    if not text.strip():
        return ()
    parts = [_requirement(part.strip()) for part in _comma_outside_brackets.split(text)]
    try:
        for part in parts:
            for name in (part.label, *part.values):
                check_text("label selector", name, MAX_ID)
    except InvalidRecordError as error:
        raise InvalidQueryError(str(error)) from None
    return tuple(parts)


def _requirement(part: str) -> Requirement:
    if match := _set_based.match(part):
        values = tuple(value.strip() for value in match[3].split(","))
        if all(values):
            return Requirement(match[1], "in" if match[2] == "in" else "notin", values)
    elif match := _equality.match(part):
        return Requirement(match[1], "notin" if match[2] == "!=" else "in", (match[3],))
    elif match := _existence.match(part):
        return Requirement(match[2], "absent" if match[1] else "exists")
    raise InvalidQueryError(
        f"label selector {part!r}: write label=value, label!=value, label in (a, b),"
        " label notin (a, b), label or !label"
    )
