"""An ordered map of bytes in memory, of which a snapshot costs nothing.

A `SortedMap` never changes. A writer takes a `Draft` of it, which copies a chunk the first time it
changes something in it; `frozen` makes that the next map. Readers keep the map they began with, and
to roll back is to forget the draft.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

_MOST = 512
"""Keys in a chunk before it is split: large enough that few chunks are looked through, small
enough that copying one is cheap."""

Items = list[tuple[bytes, bytes]]


class _Chunk:
    """Some neighbouring keys and their values, changed only by the draft whose token it bears."""

    __slots__ = ("keys", "owner", "values")

    def __init__(self, keys: list[bytes], values: list[bytes], owner: object) -> None:
        self.keys = keys
        self.values = values
        self.owner = owner


class SortedMap:
    """Bytes by bytes, in order of the keys."""

    __slots__ = ("_chunks", "_firsts", "_length")

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._firsts: list[bytes] = []  # a lower bound of each chunk's keys, above the chunk before
        self._length = 0

    @classmethod
    def of(cls, values: Mapping[bytes, bytes]) -> SortedMap:
        """A map of these, made at once."""
        made, owner, keys = cls(), object(), sorted(values)
        for start in range(0, len(keys), _MOST):
            some = keys[start : start + _MOST]
            made._chunks.append(_Chunk(some, [values[key] for key in some], owner))
            made._firsts.append(some[0] if start else b"")
        made._length = len(keys)
        return made

    def __len__(self) -> int:
        return self._length

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        place = bisect_right(self._firsts, key) - 1
        if place < 0:
            return None
        chunk = self._chunks[place]
        index = bisect_left(chunk.keys, key)
        if index < len(chunk.keys) and chunk.keys[index] == key:
            return chunk.values[index]
        return None

    def items(self, start: bytes, stop: bytes | None, reverse: bool, limit: int) -> Items:
        """At most `limit` pairs from `start` on, up to and without `stop`; `reverse`: the last
        ones, from the end.
        """
        first, last = self._place(start), self._place(stop)
        step = -1 if reverse else 1
        found: Items = []
        for chunk in self._chunks[first : last + 1][::step]:
            low, high = _cut(chunk, start, stop)
            taken = range(low, high)[::step][: limit - len(found)]
            found += [(chunk.keys[i], chunk.values[i]) for i in taken]
            if len(found) >= limit:
                break
        return found

    def count(self, start: bytes, stop: bytes | None) -> int:
        """The pairs from `start` on, up to and without `stop`."""
        first, last = self._place(start), self._place(stop)
        cuts = (_cut(chunk, start, stop) for chunk in self._chunks[first : last + 1])
        return sum(high - low for low, high in cuts)

    def draft(self) -> Draft:
        """A copy to be changed, while this map stays as it is."""
        return Draft(self)

    def _place(self, key: bytes | None) -> int:
        """The chunk that a key belongs into; None: the last one."""
        if key is None:
            return len(self._chunks) - 1
        return max(bisect_right(self._firsts, key) - 1, 0)


class Draft(SortedMap):
    """A sorted map that one writer is changing."""

    __slots__ = ("_token",)

    def __init__(self, base: SortedMap) -> None:
        self._chunks = base._chunks.copy()
        self._firsts = base._firsts.copy()
        self._length = base._length
        # Not the draft itself: chunks outlive it, and would keep its lists alive.
        self._token = object()

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        if not self._chunks:
            self._chunks.append(_Chunk([], [], self._token))
            self._firsts.append(b"")
        place = self._place(key)
        chunk = self._own(place)
        index = bisect_left(chunk.keys, key)
        if index < len(chunk.keys) and chunk.keys[index] == key:
            chunk.values[index] = value
            return
        chunk.keys.insert(index, key)
        chunk.values.insert(index, value)
        self._length += 1
        if len(chunk.keys) > _MOST:
            self._split(place, chunk)

    def delete(self, key: bytes) -> None:
        """Take a key out, if it is there."""
        place = self._place(key)
        if self.get(key) is None:
            return
        chunk = self._own(place)
        index = bisect_left(chunk.keys, key)
        del chunk.keys[index], chunk.values[index]
        self._length -= 1
        if not chunk.keys:
            del self._chunks[place], self._firsts[place]
            if place == 0 and self._firsts:
                self._firsts[0] = b""

    def frozen(self) -> SortedMap:
        """What this draft came to, as a map of its own. The draft must not be used any more."""
        result = SortedMap()
        result._chunks, result._firsts = self._chunks, self._firsts
        result._length = self._length
        return result

    def _own(self, place: int) -> _Chunk:
        chunk = self._chunks[place]
        if chunk.owner is not self._token:
            chunk = _Chunk(chunk.keys.copy(), chunk.values.copy(), self._token)
            self._chunks[place] = chunk
        return chunk

    def _split(self, place: int, chunk: _Chunk) -> None:
        # Keys that only ever grow (sequence numbers) leave full chunks behind, not half-full ones.
        grows = place == len(self._chunks) - 1
        half = len(chunk.keys) - 1 if grows else len(chunk.keys) // 2
        upper = _Chunk(chunk.keys[half:], chunk.values[half:], self._token)
        del chunk.keys[half:], chunk.values[half:]
        self._chunks.insert(place + 1, upper)
        self._firsts.insert(place + 1, upper.keys[0])


def _cut(chunk: _Chunk, start: bytes, stop: bytes | None) -> tuple[int, int]:
    """Which of a chunk's keys are from `start` on and before `stop`."""
    high = len(chunk.keys) if stop is None else bisect_left(chunk.keys, stop)
    return min(bisect_left(chunk.keys, start), high), high
