"""A disk that remembers what was written and synced, and what a power cut could have left of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from storebridge_bolt.pybolt import DB
from storebridge_bolt.pybolt.datafile import DataFile

SECTOR = 512
WORD = 8  # harsher than any disk: what a torn sector would look like


@dataclass(frozen=True)
class Write:
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    size: int


@dataclass(frozen=True)
class Sync:
    pass


Op = Write | Truncate | Sync


@dataclass
class Tape:
    """All that a database did to its file, from an image that was safe on disk."""

    image: bytes
    ops: list[Op] = field(default_factory=list)


class RecordingFile(DataFile):
    """A data file that also writes a tape; syncs are only noted, which is what makes it fast."""

    tape: ClassVar[Tape]

    def write(self, data: bytes, offset: int) -> None:
        super().write(data, offset)
        self.tape.ops.append(Write(offset, data))

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self.tape.ops.append(Truncate(size))

    def sync_data(self) -> None:
        self.tape.ops.append(Sync())

    def sync(self) -> None:
        self.tape.ops.append(Sync())


class RecordedDB(DB):
    """A database on a recording file."""

    file_class = RecordingFile


def apply(image: bytearray, op: Op) -> None:
    if isinstance(op, Write):
        end = op.offset + len(op.data)
        if end > len(image):
            image.extend(bytes(end - len(image)))
        image[op.offset : end] = op.data
    elif isinstance(op, Truncate):
        del image[op.size :]
        image.extend(bytes(op.size - len(image)))


def pieces(op: Op, size: int) -> Iterator[Op]:
    """A write in parts that a power cut can keep or lose one by one."""
    if not isinstance(op, Write):
        yield op
        return
    start = 0
    while start < len(op.data):
        stop = (op.offset + start) // size * size + size - op.offset
        yield Write(op.offset + start, op.data[start:stop])
        start = stop


class Crashes:
    """Images that a power cut could leave, for cuts at every moment of a tape."""

    def __init__(self, tape: Tape, seed: int) -> None:
        self.tape = tape
        self.random = random.Random(seed)

    def images(self, each: int) -> Iterator[tuple[int, bytes]]:
        """(operations done, image): for each prefix of the tape all of it, and `each` subsets."""
        synced = bytearray(self.tape.image)
        waiting: list[Op] = []
        yield 0, bytes(synced)
        for number, op in enumerate(self.tape.ops, start=1):
            waiting.append(op)
            if isinstance(op, Sync):
                for done in waiting:
                    apply(synced, done)
                waiting = []
            yield number, self.image(synced, waiting)
            for _ in range(each if waiting else 0):
                yield number, self.image(synced, self.subset(waiting))

    @staticmethod
    def image(synced: bytearray, ops: list[Op]) -> bytes:
        image = bytearray(synced)
        for op in ops:
            apply(image, op)
        return bytes(image)

    def subset(self, ops: list[Op]) -> list[Op]:
        """Some of what was not synced: whole operations, sectors, or words; in any order lost."""
        kind = self.random.randrange(3)
        share = self.random.random()
        if kind:
            size = SECTOR if kind == 1 else WORD
            last = ops[-1]
            # Words only of the last operation: whole pages of them would take too long.
            ops = [*(ops[:-1] if kind == 2 else []), *self._cut(ops, last, size, kind)]
        return [op for op in ops if self.random.random() < share]

    @staticmethod
    def _cut(ops: list[Op], last: Op, size: int, kind: int) -> list[Op]:
        return [part for op in (ops if kind == 1 else [last]) for part in pieces(op, size)]
