"""Numbers, axes and colours read as they should."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.drawing import style, units
from benchmarks.drawing.lines import apart
from benchmarks.drawing.markup import element, text
from benchmarks.drawing.scales import linear, logarithmic, scale


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0, "0 ns"),
        (640e-9, "640 ns"),
        (1.234e-6, "1.23 µs"),
        (999.6e-6, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (1234.5, "1,230 s"),
    ],
)
def test_seconds(value: float | None, read: str) -> None:
    """Three digits and the unit that people would take; what rounds up takes the next unit."""
    assert units.seconds(value) == read


def test_other_units() -> None:
    """Sizes are by thousands, and ratios keep two places where that says something."""
    assert [units.size(value) for value in (None, 0, 850, 21e3, 8.4e6)] == [
        *("–", "0 B", "850 B", "21.0 KB", "8.40 MB")
    ]
    assert [units.times(value) for value in (None, 0.996, 1.1, 12.34)] == [
        *("–", "1.00×", "1.10×", "12.3×")
    ]
    assert [units.count(value) for value in (640, 10_000, 1e6)] == ["640", "10k", "1M"]
    assert units.rate(12_345) == "12,300/s"
    assert units.mark(2.5e-4) == "250 µs"


@given(st.text())
def test_any_text_survives(said: str) -> None:
    """Whatever a name holds, an XML reader reads it back, but for what XML cannot say."""
    read = ElementTree.fromstring(element("a", text(said), title=said))
    expected = "".join(
        c if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff") else "\ufffd" for c in said
    )
    assert (read.text or "") == expected.replace("\r\n", "\n").replace("\r", "\n")


@given(st.lists(st.floats(1e-9, 1e9), min_size=1))
def test_every_value_is_on_its_axis(values: list[float]) -> None:
    """No bar is longer than its axis, and a longer value never has a shorter bar."""
    for axis in (linear(values), logarithmic(values), scale(values)):
        assert axis.ticks[-1] >= max(values) * (1 - 1e-9)
        assert axis.low <= min(values) * (1 + 1e-9)
        places = [axis.at(value) for value in sorted(values)]
        assert places == sorted(places)
        assert 2 <= len(axis.ticks) <= 22


def test_an_axis_is_logarithmic_only_if_it_must() -> None:
    """Lengths compare as the values do, unless most would be too short to see."""
    assert not scale([1, 20]).logarithmic
    assert scale([1, 200]).logarithmic
    assert not scale([]).logarithmic


@given(st.lists(st.floats(20, 200), max_size=12))
def test_labels_stay_apart(heights: list[float]) -> None:
    """No label covers another or leaves the picture."""
    placed = apart(heights, 14, 14, 234)
    assert all(14 - 1e-6 <= height <= 234 + 1e-6 for height in placed)
    for above, below in itertools.pairwise(sorted(placed)):
        assert below - above >= 14 - 1e-6


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_contrast(colours: dict[str, str]) -> None:
    """WCAG AA: 4.5 for text, 3 for what has to be seen."""
    for ground in ("paper", "panel"):
        for ink in ("ink", "muted", "ours", "good", "bad"):
            assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert _contrast(colours["peer"], colours[ground]) >= 3, ground
