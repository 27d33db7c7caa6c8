"""Locks, and processes that use the storages of TinyDB and aiotinydb themselves beside ours."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from aiotinydb.database import AIOTinyDB
from storebridge_tinydb.aiostorage import AtomicAIOJSONStorage
from storebridge_tinydb.sharedfile import SharedFile
from storebridge_tinydb.storage import AtomicJSONStorage
from tinydb import TinyDB

from storebridge.errors import StoreLockedError
from tests.unit.tinydb_storage.conftest import Start

KINDS = ["ours", "ours-async", "aiotinydb"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty file."""
    path = tmp_path / "db.json"
    path.touch()
    return path


def documents(path: Path) -> list[Any]:
    return list(json.loads(path.read_bytes())["_default"].values())


def wait_for(condition: Callable[[], bool]) -> None:
    """The system tells of some things only when asked."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_waiting(pid: int) -> bool:
    """Whether a process waits for an flock."""
    with open("/proc/locks") as locks:
        return any("-> FLOCK" in line and f" {pid} " in line for line in locks)


@pytest.mark.parametrize("kind", KINDS)
def test_the_lock_excludes_and_names_its_holder(path: Path, start: Start, kind: str) -> None:
    """Whoever holds it, and however: nobody else gets it, and is told who has it. It is free when
    its holder lets go or is killed.
    """
    holder = start("hold", path, kind)
    holder.hear()
    file = SharedFile(path)
    with pytest.raises(StoreLockedError, match=f"process {holder.pid}; waited 0.02 s") as caught:
        file.lock(0.02)
    assert caught.value.holder == holder.pid
    holder.go_on()
    assert holder.hear() == "done"
    file.lock(30)
    file.close()

    killed = start("hold", path, kind)
    killed.hear()
    killed.kill()
    file = SharedFile(path)
    file.lock(30)
    file.close()
    assert documents(path) == [{"by": "actor"}]


def test_the_holder_may_be_this_process(path: Path) -> None:
    """Two objects of one process exclude one another, too."""
    first, second = SharedFile(path), SharedFile(path)
    first.lock(0)
    with pytest.raises(StoreLockedError, match="locked by this process") as caught:
        second.lock(0.01)
    assert caught.value.holder == os.getpid()
    first.unlock()
    second.lock(0)
    second.close()
    second.close()
    with pytest.raises(ValueError, match="closed"):
        second.lock(0)


def test_the_lock_is_on_the_file_that_has_the_name(path: Path) -> None:
    """Who waited while the file was replaced has the lock of the new one."""
    holder, waiter = SharedFile(path), SharedFile(path)
    holder.lock(0)
    got = threading.Event()

    def wait() -> None:
        waiter.lock(30)
        got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    for number in range(3):
        holder.replace(b"%d" % number)
    assert not got.is_set()
    holder.unlock()
    thread.join()
    assert got.is_set()
    with pytest.raises(StoreLockedError):
        holder.lock(0)
    assert waiter.read() == b"2"
    waiter.close()


def test_replaced_when_the_lock_is_just_to_be_had(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gets the lock of a file that has just lost its name waits for that of its successor."""
    holder, waiter = SharedFile(path), SharedFile(path)
    flock = fcntl.flock
    holder.lock(0)

    def replace_first(file: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        holder.replace(b"new")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    with pytest.raises(StoreLockedError):
        waiter.lock(0.01)
    holder.unlock()
    waiter.lock(0)
    with pytest.raises(StoreLockedError):
        holder.lock(0)
    waiter.close()


def test_only_the_holder_replaces(path: Path) -> None:
    with pytest.raises(ValueError, match="only whoever has the lock"):
        SharedFile(path).replace(b"")


@pytest.mark.parametrize("kind", ["ours", "ours-async"])
def test_aiotinydb_waits_and_changes_what_we_wrote(path: Path, start: Start, kind: str) -> None:
    """aiotinydb's own storage, which waited for the lock of the file as it was, does not change a
    file that has lost its name: its change and ours are both there.
    """
    waiter = None

    def change(db: TinyDB) -> None:
        nonlocal waiter
        db.insert({"by": "us"})
        waiter = start("hold", path, "aiotinydb")
        wait_for(lambda: waiter is not None and is_waiting(waiter.pid))

    async def change_async() -> None:
        async with AIOTinyDB(path, storage=AtomicAIOJSONStorage) as db:
            change(db)

    if kind == "ours":
        with TinyDB(path, storage=AtomicJSONStorage, exclusive=True) as db:
            change(db)
            db.insert({"by": "us again"})
    else:
        asyncio.run(change_async())
    assert waiter is not None
    assert waiter.hear() == "locked"
    waiter.go_on()
    assert waiter.hear() == "done"
    assert documents(path)[0] == {"by": "us"}
    assert documents(path)[-1] == {"by": "actor"}
    assert list(path.parent.iterdir()) == [path]


def test_tinydb_that_has_the_file_open_is_not_cut_off(path: Path) -> None:
    """TinyDB's own storage, which keeps the file open for as long as it lives, sees what ours
    writes, and ours sees what it writes.
    """
    with TinyDB(path) as theirs, TinyDB(path, storage=AtomicJSONStorage) as ours:
        for number in range(3):
            ours.table("ours").insert({"number": number})
            assert len(theirs.table("ours").all()) == number + 1
            theirs.table("theirs").insert({"number": number})
            assert len(ours.table("theirs").all()) == number + 1
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_only_readers_have_open_is_replaced(path: Path) -> None:
    """Who has it open to read goes on reading the old content, whole."""
    file = SharedFile(path)
    file.lock(0)
    file.replace(b"old, and longer")
    with open(path, "rb") as reader:
        file.replace(b"new")
        assert reader.read() == b"old, and longer"
    assert path.read_bytes() == b"new"
    file.close()


def test_a_file_that_somebody_may_write_is_written_into(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has it open for writing sees the new content, and has the file that has the name; at
    no moment another one has it.
    """
    path.write_bytes(b"[1, 2, 3]")
    file = SharedFile(path)
    file.lock(0)
    with open(path, "r+b") as other, closing(LateOpeners(path, monkeypatch)) as renamed:
        for content in (b"[]", b"[1, 2, 3, 4, 5]", b""):
            file.replace(content)
            other.seek(0)
            assert other.read() == content == file.read()
        assert os.path.samestat(os.fstat(other.fileno()), path.stat())
        assert not renamed.files
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(StoreLockedError):
        SharedFile(path).lock(0)
    file.close()


def test_our_readers_see_no_half_written_file(path: Path) -> None:
    """Also while the file is written into."""
    contents = {b"a" * 10, b"b" * 300_000}
    file = SharedFile(path)
    file.lock(0)
    seen = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(SharedFile(path).read())

    with open(path, "r+b"):
        file.replace(b"a" * 10)
        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for content in [*contents] * 40:
            file.replace(content)
        stop.set()
        for reader in readers:
            reader.join()
    assert seen <= contents
    assert seen, "the reader never came to read"
    file.close()


class LateOpeners:
    """Open the file for writing just before it is renamed, each time it is, while this is used."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.files: list[BinaryIO] = []
        self._rename = os.replace
        monkeypatch.setattr(os, "replace", self.replace)

    def replace(self, source: Path, target: Path) -> None:
        if target == self.path:
            self.files.append(self.path.open("r+b"))
        self._rename(source, target)

    def close(self) -> None:
        for file in self.files:
            file.close()


def test_opened_at_the_moment_of_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens the old file at the last moment has the one that has the name, with the new
    content. Who opens the other file in the moments until then cannot read it, rather than change
    a file that has lost its name.
    """
    file = SharedFile(path)
    file.lock(0)
    with closing(LateOpeners(path, monkeypatch)) as late:
        file.replace(b"[1]")
        old, other = late.files
        assert old.read() == b"[1]" == path.read_bytes()
        assert os.path.samestat(os.fstat(old.fileno()), path.stat())
        with pytest.raises(json.JSONDecodeError):
            json.load(other)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(StoreLockedError):
        SharedFile(path).lock(0)
    file.close()


def test_opened_at_the_moment_of_the_rename_without_second_names(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without hard links: who opens the old file at the last moment cannot read
    it, rather than change a file that has lost its name.
    """

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    file = SharedFile(path)
    file.lock(0)
    with closing(LateOpeners(path, monkeypatch)) as late:
        file.replace(b"[1]")
        (old,) = late.files
        with pytest.raises(json.JSONDecodeError):
            json.load(old)
    assert path.read_bytes() == b"[1]"
    with pytest.raises(StoreLockedError):
        SharedFile(path).lock(0)
    file.close()


def test_no_room_to_write_into_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds what it did."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path.write_bytes(b"old")
    file = SharedFile(path)
    file.lock(0)
    with open(path, "r+b"):
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        for content in (b"new, and longer", b"x"):
            with pytest.raises(OSError) as caught:
                file.replace(content)
            assert caught.value.errno == errno.ENOSPC
            assert path.read_bytes() == b"old"
            assert list(path.parent.iterdir()) == [path]
    file.close()


@pytest.mark.parametrize("moment", range(1, 7))
def test_killed_while_the_file_is_written_into(path: Path, start: Start, moment: int) -> None:
    """At every moment the content is the old or the new for us; and as soon as one of us has had
    the lock, for everybody.
    """
    contents = [b"[1, 2]", b"[1, 2, 3]"]
    path.write_bytes(contents[0])
    actor = start("die", path, str(moment))
    assert actor.popen.wait() == (-signal.SIGKILL if moment < 6 else 0)
    file = SharedFile(path)
    content = file.read()
    assert content in contents
    assert (path.read_bytes() == content) == (moment not in (3, 4))
    file.lock(0)
    assert path.read_bytes() == content
    file.close()
    # What somebody changes now, though the copy may still lie there, stays.
    path.write_bytes(b"[1, 2, 3, 4]")
    file = SharedFile(path)
    file.lock(0)
    assert file.read() == b"[1, 2, 3, 4]"
    file.replace(b"[]")
    file.close()
    assert list(path.parent.iterdir()) == [path]


def test_a_copy_of_a_file_that_is_whole_is_not_used(path: Path) -> None:
    """Killed before it was marked as half written, or after it was whole again, a file may have
    been changed since by somebody who knows of no copy.
    """
    path.write_bytes(b"[2]")
    copy = path.with_name("db.json-redo")
    copy.write_bytes(b"[1]")
    file = SharedFile(path)
    assert file.read() == b"[2]"
    file.lock(0)
    assert path.read_bytes() == b"[2]"
    assert not copy.exists()
    file.close()


def test_a_failure_leaves_the_old_content_and_the_lock(path: Path) -> None:
    """Nothing is left beside the file; the next attempt succeeds."""
    path.write_bytes(b"old")
    (path.parent / "db.json-new").mkdir()
    file = SharedFile(path)
    file.lock(0)
    with pytest.raises(OSError):
        file.replace(b"new")
    assert path.read_bytes() == b"old"
    (path.parent / "db.json-new").rmdir()
    with pytest.raises(StoreLockedError):
        SharedFile(path).lock(0)
    file.replace(b"new")
    file.close()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def count(path: Path, start: Start, kinds: list[str], times: int) -> None:
    path.write_text(json.dumps({"_default": {"1": {"value": 0}}}))
    actors = [start("add", path, f"{kind},{times}") for kind in kinds]
    for actor in actors:
        assert actor.hear() == "done"
    assert documents(path) == [{"value": len(kinds) * times}]
    assert list(path.parent.iterdir()) == [path]


def test_all_kinds_take_turns(path: Path, start: Start) -> None:
    """Of what processes of all kinds add at the same time nothing is lost."""
    count(path, start, ["ours", "ours-async", "aiotinydb", "aiotinydb"], 25)


@pytest.mark.attack
@pytest.mark.timeout(600)
def test_all_kinds_take_turns_for_long(path: Path, start: Start) -> None:
    """As above: 3,200 changes by eight processes, of which four use aiotinydb's own storage."""
    count(path, start, ["ours", "ours", "ours-async", "ours-async", *["aiotinydb"] * 4], 400)
