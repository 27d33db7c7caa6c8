"""Sorting more pairs of bytes than memory should hold.

What has come together in memory is sorted and put away in a file without a name, as a *run*; at the
end the runs are merged. A pair is one string in memory and in the file, its two parts joined by a
NUL, which neither may have: that sorts as the first parts do, takes half the memory of a tuple, and
a file of them is read again by splitting it.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from storebridge.driver.contract import DriverError, ErrorKind

Pairs = tuple[list[bytes], list[bytes]]
"""The first parts, and the second ones."""
_MEMORY = 2**24
_EACH = 48
"""What a string takes besides its bytes, and its place in a list."""
_LEAST, _MOST = 2**11, 2**16
"""How much of a run is read at once."""
_BLOCK = 1000
_END = b"\0\0"
"""Ends a pair in the file: neither part is empty, so it cannot be mistaken."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SortedRuns:
    """Collects pairs of several kinds, and gives those of one kind after the other, sorted."""

    def __init__(self, kinds: int, folder: Path, memory: int = _MEMORY) -> None:
        """`folder`: where what does not fit in so much memory is put away."""
        self._folder = folder
        self._memory = memory
        self._size = 0
        self.fresh: list[list[bytes]] = [[] for _ in range(kinds)]
        """By kind: the pairs that are in memory. Whoever adds some calls `added`."""
        self._counts = [0] * kinds
        self._runs: list[list[tuple[int, int]]] = [[] for _ in range(kinds)]
        self._file: IO[bytes] | None = None

    def added(self) -> None:
        """Take note of what was added to `fresh`, and put it away if it has become too much.
        DriverError of kind FULL where the disk has no room for it."""
        for kind, pairs in enumerate(self.fresh):
            new = len(pairs) - self._counts[kind]
            if new:
                self._counts[kind] += new
                self._size += _EACH * new + sum(map(len, pairs[-new:]))
        if self._size > self._memory:
            self._put_away()

    def _put_away(self) -> None:
        try:
            if self._file is None:
                from tempfile import TemporaryFile  # takes longer to import than most need

                self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - see `close`
            for kind, pairs in enumerate(self.fresh):
                if pairs:
                    pairs.sort()
                    self._runs[kind].append(self._write(self._file, pairs))
                    pairs.clear()
            self._file.flush()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise DriverError(
                ErrorKind.FULL, f"{self._folder}: no room for what has to be sorted"
            ) from error
        self._counts = [0] * len(self.fresh)
        self._size = 0

    @staticmethod
    def _write(file: IO[bytes], pairs: list[bytes]) -> tuple[int, int]:
        begin = file.tell()
        for start in range(0, len(pairs), _BLOCK):
            file.write(_END.join(pairs[start : start + _BLOCK]) + _END)
        return begin, file.tell()

    def sorted(self, kind: int) -> Iterator[Pairs]:
        """The pairs of a kind in order, some at a time. DriverError of kind CORRUPT where a part
        had a NUL."""
        if self._file is not None:
            self._put_away()  # what writes the pairs needs memory, too
        fresh, self.fresh[kind] = self.fresh[kind], []
        fresh.sort()
        runs = self._runs[kind]
        size = min(_MOST, max(_LEAST, self._memory // 8 // (len(runs) or 1)))
        blocks = [self._read(begin, end, size) for begin, end in runs]
        for pairs in _merged([*blocks, _cut(fresh)]):
            yield _split(pairs)

    def _read(self, begin: int, end: int, size: int) -> Iterator[list[bytes]]:
        """The pairs of a run."""
        assert self._file is not None
        rest = b""
        while begin < end:
            self._file.seek(begin)
            data = self._file.read(min(size, end - begin))
            begin += len(data)
            whole, found, rest = (rest + data).rpartition(_END)
            if found:
                yield whole.split(_END)

    def close(self) -> None:
        """Forget everything."""
        if self._file is not None:
            self._file.close()


def _cut(pairs: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(pairs), _BLOCK):
        yield pairs[start : start + _BLOCK]


def _merged(runs: list[Iterator[list[bytes]]]) -> Iterator[list[bytes]]:
    """Sorted lists out of runs of sorted lists: each time all that is known to come before the
    rest. Sorting finds that they are pieces in order, and merges them."""
    heads = [(block, run) for run in runs if (block := next(run, None)) is not None]
    while heads:
        end = min(block[-1] for block, _ in heads)
        ready: list[bytes] = []
        left = []
        for block, run in heads:
            ready += block[: (upto := bisect_right(block, end))]
            rest = block[upto:] or next(run, [])
            if rest:
                left.append((rest, run))
        heads = left
        ready.sort()
        yield ready


def _split(pairs: list[bytes]) -> Pairs:
    parts = b"\0".join(pairs).split(b"\0")
    if len(parts) != 2 * len(pairs):
        raise DriverError(ErrorKind.CORRUPT, "a key with a NUL in it: check the source")
    return parts[0::2], parts[1::2]
