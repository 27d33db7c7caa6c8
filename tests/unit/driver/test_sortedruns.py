"""Sorting in bounded memory."""

from __future__ import annotations

import random
import resource
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storebridge.driver import DriverError, ErrorKind
from storebridge.driver.sortedruns import SortedRuns

PART = st.binary(min_size=1, max_size=12).filter(lambda part: b"\0" not in part)


@given(st.lists(st.lists(st.tuples(PART, PART), max_size=60), max_size=12), st.data())
def test_any_pairs(
    tmp_path_factory: pytest.TempPathFactory,
    pages: list[list[tuple[bytes, bytes]]],
    data: st.DataObject,
) -> None:
    """However little memory there is, the same pairs come back in order."""
    memory = data.draw(st.sampled_from([1, 500, 10_000]))
    with closing(SortedRuns(2, tmp_path_factory.getbasetemp(), memory)) as runs:
        for page in pages:
            for kind in (0, 1):
                runs.fresh[kind] += [b"\0".join(pair) for pair in page[kind:]]
            runs.added()
        for kind in (0, 1):
            expected = sorted(chain.from_iterable(page[kind:] for page in pages))
            found = [
                pair
                for firsts, seconds in runs.sorted(kind)
                for pair in zip(firsts, seconds, strict=True)
            ]
            assert found == expected


def collect(runs: SortedRuns, count: int) -> None:
    """Pairs as those of an index are, in no order."""
    chance = random.Random(count)
    for _ in range(0, count, 100):
        runs.fresh[0] += [b"%032x\0%032x" % (chance.getrandbits(128), at) for at in range(100)]
        runs.added()


def test_memory(tmp_path: Path) -> None:
    """Ten times as much to sort takes as much memory; and that is about what it may be."""
    peaks = []
    for count in (50_000, 500_000):
        tracemalloc.start()
        with closing(SortedRuns(1, tmp_path, 2**21)) as runs:
            collect(runs, count)
            found, last = 0, b""
            for firsts, _ in runs.sorted(0):
                assert last < firsts[0]
                found, last = found + len(firsts), firsts[-1]
            assert found == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 2**24
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path: Path) -> None:
    """Where there is no room for it the error says so, and nothing is left behind."""
    with (
        closing(SortedRuns(1, tmp_path, 2**16)) as runs,
        file_size(2**17),
        pytest.raises(DriverError, match="no room") as raised,
    ):
        collect(runs, 20_000)
    assert raised.value.kind is ErrorKind.FULL
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_nul(tmp_path: Path) -> None:
    """A part that has the byte which parts end with is an error, not another pair."""
    for memory in (1, 2**20):
        with closing(SortedRuns(1, tmp_path, memory)) as runs:
            runs.fresh[0] += [b"a\0b", b"c\0d\0e"]
            runs.added()
            with pytest.raises(DriverError, match="NUL") as raised:
                list(runs.sorted(0))
            assert raised.value.kind is ErrorKind.CORRUPT


@contextmanager
def file_size(most: int) -> Iterator[None]:
    """No file may become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
