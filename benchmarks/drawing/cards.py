"""A picture of its own: an SVG file with bars by group, which brings its colours with it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.drawing.markup import NOTHING, Markup, element, join, text
from benchmarks.drawing.scales import usable
from benchmarks.drawing.style import COLOURS, FONT

_WIDTH = 760
_EDGE = 24
_NAMES = 236
"""How far the names reach to the right; the bars begin there."""
_VALUE, _ASIDE = 84, 92
"""The room for the value after the longest bar, and for what stands at the right."""
_BAR, _GAP = 13, 3
_LINE, _NOTE = 17, 14
_NOTE_LETTERS = 34
_BETWEEN = 9
_STYLE = f"""
text{{font:14px {FONT};fill:var(--ink);font-variant-numeric:tabular-nums}}
.title{{font-size:19px;font-weight:650}}
.quiet,.note,.group{{fill:var(--muted)}}
.quiet{{font-size:13px}}.note{{font-size:12px}}.group{{font-size:12.5px;font-weight:650}}
.mine{{font-weight:650}}.value{{font-size:13px}}
.card{{fill:var(--paper);stroke:var(--rule)}}
.ours{{fill:var(--ours)}}.ours-soft{{fill:var(--ours-soft)}}
.peer{{fill:var(--peer)}}.peer-soft{{fill:var(--peer-soft)}}
.lesser,.lesser-soft{{fill:var(--paper);stroke:var(--peer);stroke-width:1.25}}
.lesser-soft{{stroke-dasharray:2 2}}
.gap{{stroke:var(--paper);stroke-width:6}}.cut{{stroke:var(--muted);stroke-width:1.5}}
.base{{stroke:var(--rule)}}
"""


class Bar(NamedTuple):
    """A value, how it is written, and its looks: `ours`, `peer`, `lesser`, each also `-soft`."""

    value: float
    label: str
    kind: str


class Row(NamedTuple):
    """Who it is, what is to be known about them, and what stands at the right."""

    name: str
    note: str
    mine: bool
    bars: Sequence[Bar]
    aside: str = ""


class Group(NamedTuple):
    """Rows to compare with each other."""

    title: str
    rows: Sequence[Row]


def card(
    title: str,
    subtitle: str,
    key: Sequence[tuple[str, str]],
    groups: Sequence[Group],
    *,
    description: str,
    aside: str = "",
    longest: float = math.inf,
) -> str:
    """A whole file. `key` says what kinds of bars mean; `aside` is what stands at the right. A bar
    that is over `longest` times as long as the middle one is cut, or nobody would see the others.
    """
    room = _WIDTH - _NAMES - _VALUE - _EDGE - (_ASIDE if aside else 0)
    top = _most([bar.value for group in groups for row in group.rows for bar in row.bars], longest)
    head, height = _head(title, subtitle, key, aside)
    parts = [head]
    if not groups:
        height += 30
        parts.append(_words("Nothing was measured.", _EDGE, height, None))
    for group in groups:
        height += 14
        parts.append(_words(group.title, _EDGE, height + 12, "group"))
        height += 22
        for row in group.rows:
            drawn, taken = _row(row, height, room, top)
            parts.append(drawn)
            height += taken
    height += _EDGE - _BETWEEN
    frame = element("rect", x=0.5, y=0.5, width=_WIDTH - 1, height=height - 1, rx=10, class_="card")
    return (
        element(
            "svg",
            element("title", text(title)),
            element("desc", text(description)),
            element("style", Markup(COLOURS + _STYLE)),
            frame,
            *parts,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {_WIDTH} {height}",
            width=_WIDTH,
            height=height,
            role="img",
        )
        + "\n"
    )


def _head(
    title: str, subtitle: str, key: Sequence[tuple[str, str]], aside: str
) -> tuple[Markup, int]:
    parts = [_words(title, _EDGE, 38, "title")]
    height = 42
    for line in textwrap.wrap(subtitle, 104):
        height += 18
        parts.append(_words(line, _EDGE, height, "quiet"))
    height += 24
    x = float(_EDGE)
    for kind, said in key:
        parts.append(element("rect", x=x, y=height - 10, width=16, height=11, rx=2, class_=kind))
        parts.append(_words(said, x + 22, height, "quiet"))
        x += 40 + 6.9 * len(said)
    if aside:
        height += 26
        parts.append(_words(aside, _WIDTH - _EDGE, height, "note", "end"))
        height -= 14
    return join(parts), height + 2


def _row(row: Row, top: int, room: float, most: float) -> tuple[Markup, int]:
    notes = textwrap.wrap(row.note, _NOTE_LETTERS, max_lines=3, placeholder=" …")
    parts = [_words(row.name, _EDGE, top + 11, "mine" if row.mine else None)]
    parts += [
        _words(line, _EDGE, top + 11 + _NOTE * (number + 1), "note")
        for number, line in enumerate(notes)
    ]
    parts.append(_words(row.aside, _WIDTH - _EDGE, top + 11, "value", "end"))
    for number, bar in enumerate(row.bars):
        parts += _bar(bar, top + number * (_BAR + _GAP), room, most)
    bars = len(row.bars) * (_BAR + _GAP) - _GAP
    height = max(bars, _LINE + _NOTE * len(notes))
    base = element(
        "line", x1=_NAMES, x2=_NAMES, y1=top - 2, y2=top + max(bars, _BAR) + 2, class_="base"
    )
    return join([base, *parts]), height + _BETWEEN


def _bar(bar: Bar, top: int, room: float, most: float) -> Iterator[Markup]:
    cut = bar.value > most
    width = max(room * min(bar.value / most, 1.0), 1.5)
    yield element("rect", x=_NAMES, y=top, width=width, height=_BAR, rx=2, class_=bar.kind)
    if cut:
        yield from _break(_NAMES + width - 20, top)
    yield _words(bar.label, _NAMES + width + 7, top + 11, "value")


def _break(x: float, top: int) -> Iterator[Markup]:
    for kind, offset in (("gap", 0), ("cut", -3), ("cut", 3)):
        left, bottom = x + offset, top + _BAR + 3
        yield element("line", x1=left, x2=left + 6, y1=bottom, y2=top - 3, class_=kind)


def _most(values: Sequence[float], longest: float) -> float:
    """The value that is as long as there is room; longer ones are cut."""
    found = sorted(usable(values))
    if not found:
        return 1.0
    middle = found[math.ceil(len(found) / 2) - 1]
    return max(value for value in found if value <= middle * longest)


def _words(said: str, x: float, y: float, class_: str | None, anchor: str | None = None) -> Markup:
    return (
        element("text", text(said), x=x, y=y, class_=class_, text_anchor=anchor)
        if said
        else NOTHING
    )
