"""Works on a TinyDB file in another process: `python -m tests.unit.tinydb_storage.actor ROLE PATH
[ARGUMENT]`. Says what it has done, a line each.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

from aiotinydb.database import AIOTinyDB
from aiotinydb.storage import AIOJSONStorage
from storebridge_tinydb import atomicfile
from storebridge_tinydb.aiostorage import AtomicAIOJSONStorage
from storebridge_tinydb.sharedfile import SharedFile
from storebridge_tinydb.storage import AtomicJSONStorage
from tinydb import TinyDB

ASYNC = {"ours-async": AtomicAIOJSONStorage, "aiotinydb": AIOJSONStorage}


def replace(path: Path, _: str) -> None:
    """Replace the content again and again, by more and by less."""
    for number in count():
        size = 200_000 if number % 2 else 10
        atomicfile.replace(path, json.dumps([number] * size).encode())
        _say(number)


def insert(path: Path, storage: str) -> None:
    """Insert documents of different sizes, one after the other, and remove most of them again."""
    for number in count(1):
        document = {"number": number, "text": "x" * (number * 7919 % 50_000)}
        if storage == "ours":
            with TinyDB(path, storage=AtomicJSONStorage) as db:
                _keep_last(db, document)
        else:
            asyncio.run(_insert_async(path, document))
        _say(number)


async def _insert_async(path: Path, document: dict[str, Any]) -> None:
    async with AIOTinyDB(path, storage=AtomicAIOJSONStorage) as db:
        _keep_last(db, document)


def _keep_last(db: TinyDB, document: dict[str, Any]) -> None:
    db.remove(doc_ids=[found.doc_id for found in db.all()[:-3]])
    db.insert(document)


def add(path: Path, argument: str) -> None:
    """Add one to a number in the file, so many times."""
    kind, times = argument.split(",")
    for _ in range(int(times)):
        if kind == "ours":
            with TinyDB(path, storage=AtomicJSONStorage, exclusive=True) as db:
                _add_one(db)
        else:
            asyncio.run(_add_async(path, kind))
    _say("done")


async def _add_async(path: Path, kind: str) -> None:
    async with AIOTinyDB(path, storage=ASYNC[kind]) as db:
        _add_one(db)


def _add_one(db: TinyDB) -> None:
    (document,) = db.all()
    db.update({"value": document["value"] + 1}, doc_ids=[document.doc_id])


def hold(path: Path, kind: str) -> None:
    """Take the lock, and insert a document when told to."""
    if kind == "ours":
        with TinyDB(path, storage=AtomicJSONStorage, exclusive=True) as db:
            _insert_when_told(db)
    else:
        asyncio.run(_hold_async(path, kind))
    _say("done")


async def _hold_async(path: Path, kind: str) -> None:
    async with AIOTinyDB(path, storage=ASYNC[kind]) as db:
        _insert_when_told(db)


def _insert_when_told(db: TinyDB) -> None:
    _say("locked")
    sys.stdin.readline()
    db.insert({"by": "actor"})


def fill(path: Path, storage: str) -> None:
    """Insert until no file may be larger, and say after how many documents that was."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for number in count():
        try:
            if storage == "ours":
                with TinyDB(path, storage=AtomicJSONStorage) as db:
                    db.insert({"text": "x" * 9000})
            else:
                asyncio.run(_insert_text(path))
        except OSError as error:
            _say(number)
            _say(error.strerror)
            return


async def _insert_text(path: Path) -> None:
    async with AIOTinyDB(path, storage=AtomicAIOJSONStorage) as db:
        db.insert({"text": "x" * 9000})


def die(path: Path, moment: str) -> None:
    """Write into the file, which somebody has open for writing, but be killed when it is to be
    synced for the so-manieth time.
    """
    fsync, calls = os.fsync, count(1)

    def die_at_the_moment(fd: Any) -> None:
        if next(calls) == int(moment):
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(fd)

    file = SharedFile(path)
    file.lock(0)
    with open(path, "r+b"):
        os.fsync = die_at_the_moment
        file.replace(b"[1, 2, 3]")
    file.close()


def _say(what: object) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    roles = (replace, insert, add, hold, fill, die)
    role, path, argument = [*sys.argv[1:], ""][:3]
    {function.__name__: function for function in roles}[role](Path(path), argument)
