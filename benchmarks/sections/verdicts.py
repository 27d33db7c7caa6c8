"""What each target came to."""

from __future__ import annotations

import re

from benchmarks.drawing import units
from benchmarks.drawing.bars import bar
from benchmarks.drawing.markup import NOTHING, Markup, element, join, text
from benchmarks.drawing.scales import Scale
from benchmarks.drawing.tables import body, cell, heads, name, row, table
from benchmarks.record import Outcome

_LIMIT = re.compile(r"at (least|most) ([\d.,]+(?:e[+-]?\d+)?)")
_USED = Scale(0.0, 2.0, False, (1.0,))
"""The limit is in the middle; what is more than twice over it ends at the edge."""
_KINDS = {"MISSED": ("✗ ", "bad"), "reached": ("✓ ", "good")}


def verdicts(outcomes: list[Outcome]) -> Markup:
    """The missed first, those that were not measured last."""
    if not outcomes:
        return element("p", text("No target was looked at."))
    lead = (
        "A missed target fails no build: the machine may be shared. The bar is the part of its"
        " limit that a figure uses; the line in the middle is the limit."
    )
    order = [*_KINDS, ""]
    ordered = sorted(
        outcomes, key=lambda each: order.index(each.verdict if each.verdict in _KINDS else "")
    )
    columns = heads("verdict", "target", "of its limit", "found", "asked", numbers=[3])
    drawn = table(
        columns,
        body(*map(_outcome, ordered)),
        caption="Targets and what they came to",
        class_="stack verdicts",
    )
    return join([element("p", text(lead)), drawn])


def used(outcome: Outcome) -> float | None:
    """The part of its limit that a figure uses: over 1 is missed. None if that cannot be told."""
    found = _LIMIT.match(outcome.asked)
    if found is None or outcome.value is None or outcome.value <= 0:
        return None
    limit = float(found[2].replace(",", ""))
    if limit <= 0:
        return None
    return limit / outcome.value if found[1] == "least" else outcome.value / limit


def _outcome(outcome: Outcome) -> Markup:
    mark, kind = _KINDS.get(outcome.verdict, ("", "quiet"))
    found = "" if outcome.value is None else f"{units.number(outcome.value)} {_unit(outcome.unit)}"
    cells = (
        cell(text(mark + outcome.verdict), f"verdict {kind}"),
        name(text(outcome.what)),
        cell(_bar(outcome), "used"),
        cell(text(found), "number", "found"),
        cell(text(outcome.asked.replace(" us", " µs")), None, "asked"),
    )
    return row(cells)


def _bar(outcome: Outcome) -> Markup:
    part = used(outcome)
    if part is None:
        return NOTHING
    kind = "bad" if outcome.verdict == "MISSED" else "ours"
    title = f"{units.number(part * 100)} % of its limit"
    return bar(part, None, scale=_USED, kind=kind, title=title)


def _unit(unit: str) -> str:
    return "µs" if unit == "us" else unit
