"""What the tinydb backend makes of other processes, killed ones, full disks and files of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storebridge_tinydb import backend

from storebridge import (
    ConfigurationError,
    CorruptStoreError,
    ForeignFileError,
    Job,
    JobStore,
    StoreLockedError,
    open_database,
)
from storebridge.check import check

ROOT = Path(__file__).parents[3]
SMALL_DISK = ["unshare", "--map-root-user", "--mount"]
MOUNTED = 'mount -t tmpfs -o size=2M none "$1" && shift && exec "$@"'
Start = Callable[..., Any]


def fill(*arguments: object, within: tuple[str, ...] = ()) -> None:
    module = [sys.executable, "-m", "tests.unit.full_disk"]
    done = subprocess.run(
        [*within, *module, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "usable\n", done.stderr


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_files_that_may_not_grow(path: Path, durability: str) -> None:
    """Where no more can be written a change is refused as FULL and gone whole, everything
    acknowledged is there, and the store goes on as soon as there is room.
    """
    fill("file-size", "tinydb", path, durability)


def test_a_full_disk(path: Path) -> None:
    """The same on a small disk that is really full."""
    within = (*SMALL_DISK, "sh", "-c", MOUNTED, "sh", str(path.parent))
    if subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("the system permits no mounts")
    fill("small-disk", "tinydb", path, "full", within=within)


@pytest.mark.parametrize("word", ["hold", "count"])
def test_a_killed_process_frees_the_file(path: Path, start: Start, word: str) -> None:
    """At once, with what it had committed and nothing else, in a write transaction or out of it."""
    holder = start(path, durability="full")
    assert [holder.do(word) for word in ("open", "write")] == ["opened", 1]
    holder.do(word)
    holder.kill()
    heir = start(path, lock_timeout=0.0)
    assert [heir.do(word) for word in ("open", "count", "write")] == ["opened", 1, 2]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_second_process_is_told_who_has_it(path: Path, start: Start, read_only: bool) -> None:
    """By number, in one line, also after the file was replaced; and opens it once that process has
    closed it.
    """
    holder = start(path)
    assert [holder.do(word) for word in ("open", "write")] == ["opened", 1]
    for turn in range(2):
        with pytest.raises(StoreLockedError) as caught:
            open_database(f"tinydb://{path}?lock_timeout=0.1", read_only=read_only)
        assert caught.value.holder == holder.pid
        assert f"process {holder.pid}" in str(caught.value)
        assert "\n" not in str(caught.value)
        if turn == 0:
            before = path.stat().st_ino
            holder.do("fold")
            assert path.stat().st_ino != before
    assert holder.do("close") == "closed"
    other = start(path, read_only=read_only)
    assert [other.do(word) for word in ("open", "count")] == ["opened", 101]


def test_readers_share(path: Path, start: Start) -> None:
    """Readers have it open beside each other; a writer is told of one of them."""
    owner = start(path)
    assert [owner.do(word) for word in ("open", "write", "close")] == ["opened", 1, "closed"]
    readers = [start(path, read_only=True) for _ in range(2)]
    for reader in readers:
        assert [reader.do(word) for word in ("open", "count")] == ["opened", 1]
    answer = start(path, lock_timeout=0.1).do("open")
    assert answer["error"] == "locked"
    assert any(f"process {reader.pid}" in answer["message"] for reader in readers)
    for reader in readers:
        reader.kill()
    assert owner.do("open") == "opened"


FOREIGN = (
    b"{}x",
    b"[]",
    b"[1, 2]",
    b'"storebridge"',
    b"\0" * 4096,
    b"{",
    b'{"_default": {"1": {"a": 1}}}',
    b'{"job": {"1": {"id": "j-1", "body": {}}}}',
    b'{"storebridge": {}}',
    b'{"storebridge": []}',
    b'{"storebridge": {"1": {"name": "layout", "body": 1}}}',
    b'{"storebridge": {"0": {"name": "journal", "body": {}}}}',
    b'{"storebridge": {"0": [1]}, "job": {}}',
    b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
)


@pytest.mark.parametrize("content", FOREIGN, ids=lambda content: content[:40].decode())
def test_files_of_other_programs(path: Path, content: bytes) -> None:
    """Refused without a byte changed or a file made, however they are opened."""
    path.write_bytes(content)
    path.chmod(0o640)
    before = path.stat()
    for read_only in (False, True):
        with pytest.raises(ForeignFileError, match="not"):
            open_database(f"tinydb://{path}", read_only=read_only)
    after = path.stat()
    assert path.read_bytes() == content
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime_ns,
    )
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("content", [b"", b"{}", b" { }\n"])
def test_a_file_without_tables_is_new(path: Path, content: bytes) -> None:
    """As TinyDB leaves one of which everything was dropped."""
    path.write_bytes(content)
    with open_database(f"tinydb://{path}") as database:
        JobStore(database).create(Job(id="j"))
    with open_database(path) as database:
        assert JobStore(database).get("j").id == "j"


def test_a_damaged_file(path: Path) -> None:
    """Cut short or with damage in it: corrupt, with what to do, and left as it is."""
    with open_database(f"tinydb://{path}") as database:
        for number in range(20):
            JobStore(database).create(Job(id=f"job-{number}"))
    whole = path.read_bytes()
    for size in range(40, len(whole) - 3, 97):
        path.write_bytes(whole[:size])
        for read_only in (False, True):
            with pytest.raises(CorruptStoreError, match=r"damaged, .*: restore a backup"):
                open_database(f"tinydb://{path}", read_only=read_only)
        assert path.read_bytes() == whole[:size]
    path.write_bytes(whole)
    with open_database(path) as database:
        assert JobStore(database).count() == 20
        assert list(check(database)) == []


@pytest.mark.parametrize("name", ["file.json", "node"])
def test_through_a_symbolic_link(path: Path, tmp_path: Path, name: str) -> None:
    """The file that it leads to is replaced and has the journal beside it; the link stays one."""
    link = tmp_path / name
    link.symlink_to(path)
    with open_database(f"tinydb://{link}") as database:
        jobs = JobStore(database)
        jobs.create(Job(id="1"))
        assert {entry.name for entry in path.parent.iterdir()} == {
            path.name,
            f"{path.name}-journal",
        }
    assert link.is_symlink()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with open_database(f"tinydb://{path}") as database:
        assert JobStore(database).get("1").id == "1"


def test_what_is_no_file(path: Path) -> None:
    """A folder, or a pipe, can never be opened; a folder that is missing is not made."""
    os.mkfifo(path)
    for target, says in (
        (path, "not a regular file"),
        (path.parent, "a folder"),
        (path.parent / "none" / "x.json", "no such folder"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            open_database(f"tinydb://{target}")
    assert os.listdir(path.parent) == [path.name]


def test_leftovers_of_a_kill_are_cleared(path: Path) -> None:
    """A half written new file is in nobody's way, and gone with the next fold."""
    open_database(f"tinydb://{path}").close()
    beside = Path(f"{path}-new")
    beside.write_text('{"half')
    with open_database(f"tinydb://{path}") as database:
        JobStore(database).create(Job(id="1"))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_kill_while_the_file_was_written_into(path: Path) -> None:
    """As it is where TinyDB has it open at the same time. It is known for what it is, by its path
    alone, too; whoever only reads it finds what it was to become, and whoever writes completes it.
    """
    with open_database(f"tinydb://{path}") as database:
        JobStore(database).create(Job(id="1"))
    whole = path.read_bytes()
    half = b"\x18" + whole[1:200]
    path.write_bytes(half)
    beside = Path(f"{path}-redo")
    beside.write_bytes(whole)
    with open_database(path, read_only=True) as database:
        assert JobStore(database).get("1").id == "1"
    assert (path.read_bytes(), beside.read_bytes()) == (half, whole)
    with open_database(path) as database:
        assert JobStore(database).get("1").id == "1"
    assert path.read_bytes() == whole
    assert os.listdir(path.parent) == [path.name]


def test_opening_and_closing_changes_nothing(path: Path) -> None:
    """Not even the file's time; nor does a transaction that changes nothing."""
    with open_database(f"tinydb://{path}") as database:
        JobStore(database).create(Job(id="1"))
    before = path.stat()
    with open_database(f"tinydb://{path}") as database:
        JobStore(database).get("1")
    with open_database(f"tinydb://{path}", read_only=True) as database:
        JobStore(database).get("1")
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_what_it_says_of_itself(path: Path) -> None:
    with open_database(f"tinydb://{path}") as database:
        JobStore(database).create(Job(id="1"))
        said = database.describe()
        assert said["engine"] == "tinydb"
        assert said["documents"] == sum(
            len(documents) for documents in json.loads(path.read_bytes()).values()
        ) - 1 + len(rows_in_memory(database))
        assert said["journal_size"] == Path(f"{path}-journal").stat().st_size
    assert backend.shell(str(path)) is None


def rows_in_memory(database: Any) -> list[Any]:
    """Documents that only the journal has yet."""
    lines = Path(f"{database.location.target}-journal").read_bytes().splitlines()[1:]
    documents: dict[tuple[str, str], Any] = {}
    for line in lines:
        for table, texts in json.loads(line)["tables"].items():
            documents |= {(table, number): text for number, text in texts.items()}
    return [text for text in documents.values() if text is not None]
