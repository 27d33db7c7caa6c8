"""Where a value lies on an axis: from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SPREAD = 25
"""From how many times the smallest value the largest makes a linear axis hide the small ones."""


class Scale(NamedTuple):
    """Linear from 0, or logarithmic from `low`."""

    low: float
    high: float
    logarithmic: bool
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        """From 0 to 1; what lies outside is at the end."""
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = value / self.high
        return min(max(share, 0.0), 1.0)


def scale(values: Iterable[float]) -> Scale:
    """One that shows all of them: linear, unless that would hide the small ones."""
    found = usable(values)
    if found and max(found) / min(found) > SPREAD:
        return logarithmic(found)
    return linear(found)


def linear(values: Iterable[float]) -> Scale:
    """From 0 to the next round number over the largest."""
    high = max(usable(values), default=1.0)
    power = 10.0 ** math.floor(math.log10(high / 4))
    step = next(power * by for by in (1, 2, 2.5, 5, 10) if high / (power * by) <= 4.0001)
    ticks = [step * n for n in range(math.ceil(high / step - 1e-9) + 1)]
    return Scale(0.0, ticks[-1], False, ticks)


def logarithmic(values: Iterable[float]) -> Scale:
    """From a power of ten below the smallest to one over the largest."""
    found = usable(values) or [1.0]
    low, high = math.floor(math.log10(min(found)) + 1e-9), math.ceil(math.log10(max(found)) - 1e-9)
    high = max(high, low + 1)
    return Scale(10.0**low, 10.0**high, True, [10.0**power for power in range(low, high + 1)])


def usable(values: Iterable[float]) -> list[float]:
    """Those that have a place on an axis."""
    return [value for value in values if math.isfinite(value) and value > 0]
