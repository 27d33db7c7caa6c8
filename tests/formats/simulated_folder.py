"""A folder whose files are watched while a program changes them, and what a power cut could have
left of it.

The program runs as it is: calls that sync, rename or remove are noted on their way to the system,
and before each of them it is looked at what has been written since. What a sync has not covered can
get lost: of each file any part of it, of the folder any change of its names.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.formats.simulated_disk import SECTOR, WORD, Truncate, Write, apply, pieces

Content = Write | Truncate
LETTERS = b"0123456789abcdefx"
"""What garbage is made of: what cannot be told from text by looking at it."""


@dataclass(frozen=True)
class Written:
    """A change of a file's content. Files are numbered: their names come and go."""

    file: int
    change: Content


@dataclass(frozen=True)
class Synced:
    """A file's content is on disk."""

    file: int


@dataclass(frozen=True)
class Named:
    """A name is that of this file from now on, and another one, perhaps, of none; file None: the
    name is of none.
    """

    name: str
    file: int | None
    before: str | None = None


@dataclass(frozen=True)
class FolderSynced:
    """The names are on disk."""


Op = Written | Synced | Named | FolderSynced
Image = dict[str, bytes]


class Watch:
    """Watches a folder from now on, until `stop`. It must be empty."""

    def __init__(self, folder: Path) -> None:
        self.ops: list[Op] = []
        self._folder = folder
        self._contents: list[bytes] = []
        self._names: dict[str, int] = {}
        self._numbers: dict[int, int] = {}
        self._patch = pytest.MonkeyPatch()
        for call in ("fsync", "fdatasync"):
            self._patch.setattr(os, call, self._sync(getattr(os, call)))
        for call in ("replace", "rename"):
            self._patch.setattr(os, call, self._rename(getattr(os, call)))
        self._patch.setattr(os, "link", self._link(os.link))
        self._patch.setattr(os, "unlink", self._unlink(os.unlink))

    def stop(self) -> None:
        self._patch.undo()

    def look(self) -> None:
        """Note what was made and written since the last look."""
        for entry in sorted(os.scandir(self._folder), key=lambda entry: entry.name):
            number = self._numbers.get(entry.inode())
            if number is None or entry.name not in self._names:
                number = len(self._contents)
                self._contents.append(b"")
                self._numbers[entry.inode()] = number
                self._name(Named(entry.name, number))
            self._note_content(number, Path(entry.path).read_bytes())

    def _note_content(self, number: int, new: bytes) -> None:
        old = self._contents[number]
        if old == new:
            return
        start = len(os.path.commonprefix([old, new]))  # noqa: RUF071 - of bytes
        if len(new) < len(old):
            self.ops.append(Written(number, Truncate(len(new))))
        same = 0
        if len(new) == len(old):
            same = len(os.path.commonprefix([old[:start:-1], new[:start:-1]]))  # noqa: RUF071
        if new[start:]:
            self.ops.append(Written(number, Write(start, new[start : len(new) - same])))
        self._contents[number] = new

    def _name(self, op: Named) -> None:
        self.ops.append(op)
        rename(self._names, op)

    def _sync(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            self.look()
            status = os.fstat(fd)
            call(fd)
            if status.st_ino == os.stat(self._folder).st_ino:
                self.ops.append(FolderSynced())
            elif status.st_nlink:
                self.ops.append(Synced(self._numbers[status.st_ino]))

        return sync

    def _rename(self, call: Callable[..., None]) -> Callable[..., None]:
        def change(old: Any, new: Any) -> None:
            self.look()
            call(old, new)
            name = os.path.basename(old)
            self._name(Named(os.path.basename(new), self._names[name], name))

        return change

    def _link(self, call: Callable[..., None]) -> Callable[..., None]:
        def change(old: Any, new: Any) -> None:
            self.look()
            call(old, new)
            self._name(Named(os.path.basename(new), self._names[os.path.basename(old)]))

        return change

    def _unlink(self, call: Callable[..., None]) -> Callable[..., None]:
        def change(path: Any) -> None:
            self.look()
            call(path)
            self._name(Named(os.path.basename(path), None))

        return change


def rename(names: dict[str, int], op: Named) -> None:
    if op.before is not None:
        names.pop(op.before, None)
    if op.file is None:
        names.pop(op.name, None)
    else:
        names[op.name] = op.file


@dataclass
class Disk:
    """What is on disk for certain, and what may be."""

    contents: dict[int, bytearray] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    waiting: list[Op] = field(default_factory=list)

    def add(self, op: Op) -> None:
        if isinstance(op, Synced):
            self._settle(lambda each: isinstance(each, Written) and each.file == op.file)
        elif isinstance(op, FolderSynced):
            self._settle(lambda each: isinstance(each, Named))
        else:
            self.waiting.append(op)

    def _settle(self, is_safe: Callable[[Op], bool]) -> None:
        do(self.contents, self.names, [op for op in self.waiting if is_safe(op)])
        self.waiting = [op for op in self.waiting if not is_safe(op)]

    def image(self, ops: list[Op]) -> Image:
        """What the folder holds if these of the waiting changes came through."""
        contents = {file: bytearray(data) for file, data in self.contents.items()}
        names = dict(self.names)
        do(contents, names, ops)
        return {name: bytes(contents.get(file, b"")) for name, file in names.items()}


def do(contents: dict[int, bytearray], names: dict[str, int], ops: list[Op]) -> None:
    for op in ops:
        if isinstance(op, Written):
            apply(contents.setdefault(op.file, bytearray()), op.change)
        elif isinstance(op, Named):
            rename(names, op)


def images(ops: list[Op], each: int, seed: int) -> Iterator[tuple[int, Image]]:
    """(changes done, image): for a power cut after each change all of it, nothing that was not
    synced, and `each` random parts.
    """
    chance = random.Random(seed)
    disk = Disk()
    yield 0, {}
    for number, op in enumerate(ops, start=1):
        disk.add(op)
        yield number, disk.image(disk.waiting)
        if disk.waiting:
            yield number, disk.image([])
        for _ in range(each if disk.waiting else 0):
            yield number, disk.image(some(disk, chance))


def some(disk: Disk, chance: random.Random) -> list[Op]:
    """Some of the waiting changes: whole ones, or writes in sectors or words. Where a part is lost
    that would have made a file longer there is nothing, or what has been on that place of the disk
    before.
    """
    size, share = chance.choice((None, SECTOR, WORD)), chance.random()
    garbles = chance.random() < 0.3
    if garbles:
        share = 1 - share / 10  # in a text that is half garbage everybody finds it
    kept: list[Op] = []
    for op in disk.waiting:
        if size is None or not isinstance(op, Written):
            kept += [op] if chance.random() < share else []
            continue
        safe = len(disk.contents.get(op.file, b""))
        for part in pieces(op.change, size):
            if chance.random() < share:
                kept.append(Written(op.file, part))  # type: ignore[arg-type]
            elif garbles and isinstance(part, Write) and part.offset >= safe:
                garbage = bytes(chance.choices(LETTERS, k=len(part.data)))
                kept.append(Written(op.file, Write(part.offset, garbage)))
    return kept
