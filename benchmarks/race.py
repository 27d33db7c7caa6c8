"""Measure ours beside somebody else's in one run: one round of theirs, one of ours, and again, so
that a noisy machine disturbs both alike. What counts is the ratio of the medians."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

from pytest_benchmark.fixture import BenchmarkFixture


def race(
    benchmark: BenchmarkFixture,
    *,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    operations: int,
    rounds: int,
    target: float,
    than: str = "by hand",
    prepare: Callable[[], object] = lambda: None,
) -> float:
    """Alternate `rounds` rounds of `operations` operations each, print and return ours / theirs.

    `prepare` runs before both in each round and is not timed. A missed target is printed, not
    failed: the machine may be shared.
    """
    times: list[float] = []

    def before() -> None:
        prepare()
        started = perf_counter()
        theirs()
        times.append(perf_counter() - started)

    benchmark.pedantic(ours, setup=before, rounds=rounds, iterations=1)  # type: ignore[no-untyped-call]
    assert benchmark.stats is not None
    our_median, their_median = float(benchmark.stats.stats.median), median(times)
    ratio = our_median / their_median
    verdict = "reached" if ratio <= target else "MISSED"
    benchmark.extra_info.update(ratio=round(ratio, 3), target=target, verdict=verdict)
    print(
        f"\n{benchmark.name}: {our_median / operations * 1e6:.1f} us, {than}"
        f" {their_median / operations * 1e6:.1f} us: ratio {ratio:.2f}, target {target} {verdict}"
    )
    return ratio
