"""One bar of a chart whose labels are the cells of a table: widths are shares, so it is as wide as
there is room."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.drawing.markup import NOTHING, Markup, element, join, text
from benchmarks.drawing.scales import Scale

_ROOM = 97.0
"""Per cent of the width that the axis takes: the rest is for its last mark."""
_MIDDLE = 13
_THICK = 14


def axis(scale: Scale, label: Callable[[float], str]) -> Markup:
    """What stands over the bars."""
    marks = [
        element(
            "text",
            text(label(tick)),
            x=_at(scale, tick),
            y=12,
            text_anchor=_anchor(index, len(scale.ticks)),
        )
        for index, tick in enumerate(scale.ticks)
    ]
    return element("svg", join(marks), class_="axis", width="100%", height=16, aria_hidden="true")


def bar(
    value: float,
    spread: tuple[float, float] | None,
    *,
    scale: Scale,
    kind: str,
    title: str,
    height: int = 26,
) -> Markup:
    """A value, and from where to where others like it lie. On a logarithmic axis a length would
    mean nothing: there it is a dot on a line."""
    return element(
        "svg",
        element("title", text(title)),
        _grid(scale, height),
        _dot(_at(scale, value)) if scale.logarithmic else _block(_at(scale, value)),
        _whisker(_at(scale, spread[0]), _at(scale, spread[1])) if spread else NOTHING,
        class_=f"bar {kind}",
        width="100%",
        height=height,
        role="img",
    )


def _block(end: str) -> Markup:
    top = _MIDDLE - _THICK / 2
    return element("rect", x="0", y=top, width=end, height=_THICK, rx=1.5, class_="mark")


def _dot(end: str) -> Markup:
    stem = element("line", x1="0", x2=end, y1=_MIDDLE, y2=_MIDDLE, class_="stem")
    return join([stem, element("circle", cx=end, cy=_MIDDLE, r=5, class_="mark")])


def _grid(scale: Scale, height: int) -> Markup:
    return join(
        element("line", x1=_at(scale, tick), x2=_at(scale, tick), y1=0, y2=height, class_="grid")
        for tick in scale.ticks
    )


def _whisker(low: str, high: str) -> Markup:
    caps = ((end, end, _MIDDLE - 4, _MIDDLE + 4) for end in (low, high))
    lines = ((low, high, _MIDDLE, _MIDDLE), *caps)
    return element(
        "g",
        *(element("line", x1=a, x2=b, y1=c, y2=d) for a, b, c, d in lines),
        class_="whisker",
    )


def _at(scale: Scale, value: float) -> str:
    return f"{scale.at(value) * _ROOM:.2f}%"


def _anchor(index: int, of: int) -> str:
    return "start" if index == 0 else "end" if index == of - 1 else "middle"
