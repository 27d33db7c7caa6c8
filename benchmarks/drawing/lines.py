"""A line chart with a logarithm on both axes: how something grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.drawing.markup import Markup, element, join, text
from benchmarks.drawing.scales import Scale, logarithmic

_WIDTH, _HEIGHT = 420, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 124, 10, 36
_APART = 14
"""Between two labels, so that none covers another."""
_DOT = "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z"
_SHAPES = (
    _DOT,
    "M-3.2-3.2h6.4v6.4h-6.4z",
    "M0-4.2l4.2 7.4h-8.4z",
    "M0-4.6l4.6 4.6-4.6 4.6-4.6-4.6z",
    "M0 4.2l4.2-7.4h-8.4z",
    "M-4-1.4h2.6v-2.6h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6z",
)


class Line(NamedTuple):
    """A curve, named at its end. `kind` is its class: `ours`, `peer`, `bad`."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


def lines(
    curves: Sequence[Line],
    *,
    title: str,
    description: str,
    across: Callable[[float], str],
    up: Callable[[float], str],
    below: str,
) -> Markup:
    """Curves over axes that are labelled by `across` and `up`; each has at least one point."""
    x = logarithmic(at for curve in curves for at, _ in curve.points)
    y = logarithmic(value for curve in curves for _, value in curve.points)
    return element(
        "svg",
        element("title", text(title)),
        element("desc", text(description)),
        _axes(x, y, across, up, below),
        join(_curve(curve, index, x, y) for index, curve in enumerate(curves)),
        _names(curves, x, y),
        class_="lines",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
    )


def _across(x: Scale, value: float) -> float:
    return _LEFT + x.at(value) * (_WIDTH - _LEFT - _RIGHT)


def _up(y: Scale, value: float) -> float:
    return _HEIGHT - _BOTTOM - y.at(value) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(
    x: Scale, y: Scale, across: Callable[[float], str], up: Callable[[float], str], below: str
) -> Markup:
    left, right, bottom = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in y.ticks:
        at = _up(y, tick)
        parts.append(element("line", x1=left, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(element("text", text(up(tick)), x=left - 9, y=at + 4, text_anchor="end"))
    for tick in x.ticks:
        at = _across(x, tick)
        parts.append(element("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="grid"))
        parts.append(element("text", text(across(tick)), x=at, y=bottom + 17, text_anchor="middle"))
    middle = (left + right) / 2
    parts.append(element("text", text(below), x=middle, y=_HEIGHT - 4, text_anchor="middle"))
    return element("g", *parts, class_="axes")


def _curve(curve: Line, index: int, x: Scale, y: Scale) -> Markup:
    places = [(_across(x, at), _up(y, value)) for at, value in curve.points]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    shape = _SHAPES[index % len(_SHAPES)]
    marks = (
        element("path", d=shape, transform=f"translate({a:.1f} {b:.1f})", class_="mark")
        for a, b in places
    )
    return element("g", element("polyline", points=path), *marks, class_=curve.kind)


def _names(curves: Sequence[Line], x: Scale, y: Scale) -> Markup:
    """At the end of each curve, moved apart where they would meet."""
    ends = [(_across(x, curve.points[-1][0]), _up(y, curve.points[-1][1])) for curve in curves]
    heights = apart([end[1] for end in ends], _APART, _TOP + 4, _HEIGHT - _BOTTOM)
    left = _WIDTH - _RIGHT + 22
    parts = []
    for index, (curve, (end_x, end_y), height) in enumerate(
        zip(curves, ends, heights, strict=True)
    ):
        leader = element("line", x1=end_x + 6, y1=end_y, x2=left - 12, y2=height, class_="leader")
        shape = _SHAPES[index % len(_SHAPES)]
        mark = element("path", d=shape, transform=f"translate({left - 6} {height:.1f})")
        name = element("text", text(curve.name), x=left + 2, y=height + 4)
        parts.append(element("g", leader, mark, name, class_=f"name {curve.kind}"))
    return join(parts)


def apart(heights: Sequence[float], distance: float, top: float, bottom: float) -> list[float]:
    """The heights moved as little as it takes to keep a distance, between top and bottom."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    distance = min(distance, (bottom - top) / max(len(heights) - 1, 1))
    placed: list[float] = []
    for index in order:
        placed.append(max(heights[index], placed[-1] + distance if placed else top))
    limit = bottom
    for position in reversed(range(len(placed))):
        placed[position] = min(placed[position], limit)
        limit = placed[position] - distance
    result = [0.0] * len(heights)
    for index, height in zip(order, placed, strict=True):
        result[index] = height
    return result
