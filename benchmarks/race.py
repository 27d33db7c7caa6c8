"""Measure ours beside somebody else's in one run: one round of theirs, one of ours, and again, so
that a noisy machine disturbs both alike. What counts is the ratio of the medians."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.targets import judge


def race(
    benchmark: BenchmarkFixture,
    *,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    operations: int,
    rounds: int,
    target: str,
    than: str = "by hand",
    prepare: Callable[[], object] = lambda: None,
) -> float:
    """Alternate `rounds` rounds of `operations` operations each, print and return ours / theirs.

    `target` is the key of what that is held to. `prepare` runs before both in each round and is not
    timed.
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
    outcome = judge(target, ratio)
    benchmark.extra_info.update(ratio=round(ratio, 3), verdict=outcome.verdict)
    print(
        f"{benchmark.name}: {our_median / operations * 1e6:.1f} us, {than}"
        f" {their_median / operations * 1e6:.1f} us"
    )
    return ratio
