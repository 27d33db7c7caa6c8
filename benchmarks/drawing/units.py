"""Numbers as people read them: three significant digits, with a unit. None is a dash."""

from __future__ import annotations

import math

UNKNOWN = "–"
_SECONDS = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")]


def number(value: float | None) -> str:
    """`0.0123`, `1.23`, `12.3`, `123`, `12,300`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    places = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{places}f}"


def seconds(value: float | None) -> str:
    """`640 ns`, `1.23 µs`, `12.3 ms`, `123 s`."""
    return _scaled(value, _SECONDS)


def mark(value: float) -> str:
    """Seconds on an axis: `1 µs`, `250 ms`."""
    return _scaled(value, _SECONDS, short=True)


def size(value: float | None) -> str:
    """`123 B`, `12.3 KB`; a KB is 1,000 bytes."""
    return _scaled(value, [(1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B")])


def count(value: float | None) -> str:
    """`640`, `10k`, `1M`."""
    return _scaled(value, [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")], short=True).replace(
        " ", ""
    )


def rate(value: float | None) -> str:
    """`12,300/s`."""
    return UNKNOWN if value is None else f"{number(value)}/s"


def times(value: float | None) -> str:
    """`1.23×`."""
    if value is None:
        return UNKNOWN
    return f"{value:.2f}×" if 0.1 <= value < 10 else f"{number(value)}×"


def _scaled(value: float | None, units: list[tuple[float, str]], *, short: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return f"0 {units[-1][1]}".strip()
    # What rounds up to a thousand is one of the next unit.
    factor, unit = next((u for u in units if abs(value) >= u[0] * 0.9995), units[-1])
    scaled = value / factor
    return f"{f'{scaled:g}' if short else number(scaled)} {unit}"
