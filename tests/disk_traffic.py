"""What a program hands to the disk: bytes and syncs, as `strace` sees them.

Seen are the calls that write to files and those that wait for the disk; a write through a
descriptor opened with O_SYNC or O_DSYNC (so LMDB writes its meta page) is both. Not seen is what
reaches a file through a shared memory mapping, other than by `msync`: of the engines measured here
none writes its data so (LMDB without WRITEMAP and bbolt map only to read; SQLite's `-shm` is no
more than a cache).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

INSTALLED = shutil.which("strace") is not None
_WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
_COPIES = ("sendfile", "sendfile64", "copy_file_range", "splice")
_SYNCS = ("fsync", "fdatasync", "sync_file_range", "arm_sync_file_range")
_GLOBAL_SYNCS = ("msync", "sync", "syncfs")
_OPENS = ("open", "openat", "openat2", "creat")
_SEEKS = ("lseek", "_llseek")
_POSITIONED = ("pwrite64", "pwritev")
_TRACED = (*_WRITES, *_COPIES, *_SYNCS, *_GLOBAL_SYNCS, *_OPENS, *_SEEKS)
BLOCK = 4096
_NO_FILE = -1
_MARK = "mark "

_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"\) += (-?\d+)")
_FILE = re.compile(r"(?:^|, )(\d+)<(/[^>]*)>")
_OFFSET = re.compile(r", (\d+)\) += \d+$")
_OPENED = re.compile(r"\) += (\d+)<(/[^>]*)>")
_MARKED = re.compile(rf'{_NO_FILE}, "{_MARK}([^"]*)"')

_File = tuple[str, str]
"""Number and path: so the files of several processes are told apart."""


class Traffic(NamedTuple):
    """What was handed to the disk."""

    bytes: int = 0
    """As the program wrote them."""
    syncs: int = 0
    """Calls that wait for the disk."""
    blocks: int = 0
    """Of `BLOCK` bytes, which is what the disk is given: those that were written to since the file
    was last synced, each once. What the file system writes for itself comes on top."""


def mark(section: str) -> None:
    """In the program that is measured: what it does from here on belongs to this section, until the
    next mark. The empty one is not reported.

    A write to no file, which fails and leaves only its trace.
    """
    with suppress(OSError):
        os.write(_NO_FILE, f"{_MARK}{section}".encode())


def traffic_of(
    command: Sequence[str | Path],
    under: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Traffic]:
    """Run a program and return what each of its sections did to files in the folder `under`.

    CalledProcessError, with what it wrote to stderr, if the program fails.
    """
    with TemporaryDirectory() as folder:
        log = Path(folder, "log")
        calls = ",".join(f"?{name}" for name in _TRACED)
        strace = [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-y",
            "-s",
            "200",
            "-e",
            f"trace={calls}",
            "-e",
            "signal=none",
        ]
        subprocess.run(
            [*strace, "-o", log, *command], cwd=cwd, env=env, check=True, capture_output=True
        )
        return sections(log.read_text(errors="replace").splitlines(), under.resolve())


def sections(lines: Iterable[str], under: Path) -> dict[str, Traffic]:
    """The traffic by section, from the lines of a log of strace."""
    found: dict[str, Traffic] = {}
    section = ""
    observer = _Observer(under)
    for name, arguments, result in _calls(lines):
        marked = _MARKED.match(arguments)
        if marked is not None:
            found[section] = observer.take(found.get(section, Traffic()))
            section = marked[1]
        elif result >= 0:
            observer.see(name, arguments, result)
    found[section] = observer.take(found.get(section, Traffic()))
    found.pop("", None)
    return found


class _Observer:
    """What has been written since it was last taken."""

    def __init__(self, under: Path) -> None:
        self._under = str(under)
        self._bytes = self._syncs = self._blocks = 0
        self._dirty: dict[str, set[int]] = {}
        self._positions: dict[_File, int] = {}
        self._waiting: set[_File] = set()  # whose every write waits for the disk

    def take(self, before: Traffic) -> Traffic:
        """Add it to what was there before. What was not synced is written some time later."""
        for path in list(self._dirty):
            self._flush(path)
        found = Traffic(
            before.bytes + self._bytes, before.syncs + self._syncs, before.blocks + self._blocks
        )
        self._bytes = self._syncs = self._blocks = 0
        return found

    def see(self, name: str, arguments: str, result: int) -> None:
        """A call that succeeded."""
        files = _FILE.findall(arguments)
        # `sendfile` and `writev` name the file that is written first, the other copies last.
        descriptor, path = files[0 if name not in _COPIES[2:] else -1] if files else ("", "")
        if name in _OPENS:
            self._open(arguments)
        elif name in _SEEKS:
            self._positions[descriptor, path] = result
        elif name in _GLOBAL_SYNCS:
            self._sync(*self._dirty)
        elif not f"{path}{os.sep}".startswith(f"{self._under}{os.sep}"):
            return
        elif name in _SYNCS:
            self._sync(path)
        else:
            self._write(name, arguments, result, (descriptor, path))

    def _open(self, arguments: str) -> None:
        opened = _OPENED.search(arguments)
        if opened is not None:
            file = opened[1], opened[2]
            self._positions[file] = 0
            (self._waiting.add if "SYNC" in arguments else self._waiting.discard)(file)

    def _write(self, name: str, arguments: str, length: int, file: _File) -> None:
        offset = _OFFSET.search(arguments)
        if name in _POSITIONED and offset is not None:
            start = int(offset[1])
        else:
            start = self._positions.get(file, 0)
            self._positions[file] = start + length
        self._bytes += length
        blocks = range(start // BLOCK, (start + length + BLOCK - 1) // BLOCK)
        self._dirty.setdefault(file[1], set()).update(blocks)
        if file in self._waiting:
            self._sync(file[1])

    def _sync(self, *paths: str) -> None:
        self._syncs += 1
        for path in paths:
            self._flush(path)

    def _flush(self, path: str) -> None:
        self._blocks += len(self._dirty.pop(path, ()))


def _calls(lines: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Name, arguments and result of each call; where a thread was interrupted, put together."""
    begun: dict[str, str] = {}
    for line in lines:
        call, resumed = _CALL.match(line), _RESUMED.match(line)
        if call is not None and line.endswith(_UNFINISHED):
            begun[call[1]] = call[3].removesuffix(_UNFINISHED)
        elif call is not None:
            yield from _finished(call[2], call[3])
        elif resumed is not None:
            yield from _finished(resumed[2], begun.pop(resumed[1], "") + resumed[3])


def _finished(name: str, text: str) -> Iterator[tuple[str, str, int]]:
    results = _RESULT.findall(text)
    if results:
        yield name, text, int(results[-1])
