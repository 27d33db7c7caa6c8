"""Files that are moved, damaged, and compared."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storebridge import open_database
from storebridge.testing.stores.awkward import Clock, fill, seed

ROOT = Path(__file__).parents[3]
SUFFIXES = {"sqlite": ".db", "lmdb": ".lmdb", "bolt": ".bolt", "tinydb": ".json"}
FILES = tuple(SUFFIXES)
"""The backends whose databases are files."""
_PAGE, _HEAD = 4096, 64
_NOT_DATA = ("lock.mdb", "storebridge.lock", "-lock", "-shm", "-wait")


class Mover:
    """A process that migrates, and a new one whenever damaged files have ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def move(self, source: str, target: str, **asked: Any) -> str:
        """`complete`, `stopped`, the name of an error of ours, or `died`."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.transfer.mover"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"source": source, "target": target, **asked}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self.close()
            assert code < 0, "it failed otherwise than by a signal"
            return "died"
        outcome: str = json.loads(line)
        return outcome

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def make(backend: str, folder: Path, changes: int) -> str:
    """A closed database with content of every kind; where it is."""
    folder.mkdir()
    location = f"{backend}://{folder}/store{SUFFIXES[backend]}"
    chance = random.Random(f"make {seed()}")
    with open_database(f"{location}?durability=off", clock=Clock(chance)) as database:
        fill(database, chance, changes)
    return location


def copied(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to


def data_files(folder: Path) -> list[Path]:
    """The files with content, not those that are locked or shared."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(_NOT_DATA)
    ]


def data_in(folder: Path) -> dict[str, bytes]:
    """All of it, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in data_files(folder)}


def flip(folder: Path, chance: random.Random) -> str:
    """Turn one bit over in what is there; says which. Half of the time among the first bytes of a
    page, where engines have what the rest hangs on."""
    files = [path for path in data_files(folder) if path.stat().st_size]
    sizes = [path.stat().st_size for path in files]
    path = chance.choices(files, sizes)[0]
    data = bytearray(path.read_bytes())
    at, bit = chance.randrange(len(data)), chance.randrange(8)
    if chance.random() < 0.5:
        at = at // _PAGE * _PAGE + at % _HEAD
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"{path.name}: bit {bit} of byte {at}"


def flips(count: int, name: str) -> Iterator[random.Random]:
    """Chance for each of so many attempts."""
    chosen = seed()
    for number in range(count):
        yield random.Random(f"{name} {number} {chosen}")
