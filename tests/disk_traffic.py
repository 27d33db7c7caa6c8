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
_TRACED = (*_WRITES, *_COPIES, *_SYNCS, *_GLOBAL_SYNCS, *_OPENS)
_NO_FILE = -1
_MARK = "mark "

_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"\) += (-?\d+)")
_FILE = re.compile(r"(?:^|, )(\d+)<(/[^>]*)>")
_MARKED = re.compile(rf'{_NO_FILE}, "{_MARK}([^"]*)"')


class Traffic(NamedTuple):
    """What was handed to the disk."""

    bytes: int = 0
    syncs: int = 0

    def plus(self, other: Traffic) -> Traffic:
        return Traffic(self.bytes + other.bytes, self.syncs + other.syncs)


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
        strace = ["strace", "-f", "-y", "-s", "200", "-e", f"trace={calls}", "-e", "signal=none"]
        subprocess.run(
            [*strace, "-o", log, *command], cwd=cwd, env=env, check=True, capture_output=True
        )
        return sections(log.read_text(errors="replace").splitlines(), under.resolve())


def sections(lines: Iterable[str], under: Path) -> dict[str, Traffic]:
    """The traffic by section, from the lines of a log of strace."""
    found: dict[str, Traffic] = {}
    section = ""
    synced: set[str] = set()  # descriptors whose every write waits for the disk
    for name, arguments, result in _calls(lines):
        marked = _MARKED.match(arguments)
        if marked is not None:
            section = marked[1]
            found.setdefault(section, Traffic())
        elif result >= 0 and name in _OPENS:
            (synced.add if "SYNC" in arguments else synced.discard)(str(result))
        elif result >= 0 and section:
            traffic = _traffic(name, arguments, result, under, synced)
            found[section] = found[section].plus(traffic)
    found.pop("", None)
    return found


def _traffic(name: str, arguments: str, result: int, under: Path, synced: set[str]) -> Traffic:
    if name in _GLOBAL_SYNCS:
        return Traffic(syncs=1)
    files = _FILE.findall(arguments)
    # `sendfile` and `writev` name the file that is written first, the other copies last.
    descriptor, path = files[0 if name not in _COPIES[2:] else -1] if files else ("", "")
    if not path.startswith(f"{under}{os.sep}") and path != str(under):
        return Traffic()
    if name in _SYNCS:
        return Traffic(syncs=1)
    return Traffic(result, int(descriptor in synced))


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
