"""Whoever opens a database read-only leaves its owner nothing that stands in the way.

SQLite's own `mode=ro` makes a write-ahead log and its index where it finds none. Made by another
user, they lock the owner out: "attempt to write a readonly database".
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storebridge_sqlite import backend, files

from storebridge.driver import DriverError, ErrorKind, Options, Range
from storebridge.testing.harness import reading, writing
from storebridge.testing.samples import LAYOUT, LOG, TABLES
from tests.unit.users import OTHER, OWNER, ROOT, two_users


@pytest.fixture
def path(shared: Path) -> Path:
    return shared / "node.db"


def assert_all_of_owner(path: Path) -> None:
    owners = {entry.name: entry.stat().st_uid for entry in os.scandir(path.parent)}
    assert set(owners.values()) == {OWNER}, owners


@two_users
@pytest.mark.parametrize("reader", [OTHER, ROOT])
class TestAnotherUser:
    def test_reads_a_closed_database(
        self, path: Path, start: Callable[..., Any], reader: int
    ) -> None:
        """Nothing is made, and the owner opens it again and goes on."""
        owner = start(path, OWNER, mode=0o644)
        assert [owner.do(word) for word in ("open", "write", "close")] == ["opened", 1, "closed"]
        before = sorted(os.listdir(path.parent))
        guest = start(path, reader, read_only=True)
        assert [guest.do(word) for word in ("open", "count")] == ["opened", 1]
        assert sorted(os.listdir(path.parent)) == before
        assert [owner.do(word) for word in ("open", "write")] == ["opened", 2]
        assert guest.do("close") == "closed"
        assert owner.do("write") == 3
        assert_all_of_owner(path)

    def test_reads_while_the_owner_writes(
        self, path: Path, start: Callable[..., Any], reader: int
    ) -> None:
        """Each sees what the other does, and the owner can go on after the reader has gone, or
        close before it.
        """
        owner = start(path, OWNER, mode=0o644)
        guest = start(path, reader, read_only=True)
        assert [owner.do(word) for word in ("open", "write")] == ["opened", 1]
        assert [guest.do(word) for word in ("open", "count")] == ["opened", 1]
        assert [owner.do("write"), guest.do("count")] == [2, 2]
        assert [owner.do("fold"), guest.do("count")] == [102, 102]
        assert owner.do("close") == "closed"
        assert guest.do("count") == 102
        assert_all_of_owner(path)
        assert [owner.do(word) for word in ("open", "write")] == ["opened", 103]
        assert guest.do("count") == 103
        assert guest.do("close") == "closed"
        assert owner.do("write") == 104
        assert_all_of_owner(path)

    def test_sees_a_writer_come(self, path: Path, start: Callable[..., Any], reader: int) -> None:
        """A reader who came first reads on when a writer opens, writes, folds and closes."""
        owner = start(path, OWNER, mode=0o644)
        assert [owner.do(word) for word in ("open", "write", "close")] == ["opened", 1, "closed"]
        guest = start(path, reader, read_only=True)
        assert [guest.do(word) for word in ("open", "count")] == ["opened", 1]
        for expected in (2, 3):
            assert [owner.do("open"), owner.do("write")] == ["opened", expected]
            assert guest.do("count") == expected
            assert owner.do("close") == "closed"
            assert guest.do("count") == expected
        assert_all_of_owner(path)

    def test_reads_after_a_crash(self, path: Path, start: Callable[..., Any], reader: int) -> None:
        """What a killed owner had committed is read out of its log, which stays the owner's."""
        owner = start(path, OWNER, mode=0o644)
        assert [owner.do(word) for word in ("open", "write")] == ["opened", 1]
        owner.kill()
        guest = start(path, reader, read_only=True)
        assert [guest.do(word) for word in ("open", "count")] == ["opened", 1]
        assert_all_of_owner(path)
        again = start(path, OWNER)
        assert [again.do(word) for word in ("open", "write")] == ["opened", 2]
        assert guest.do("count") == 2
        assert guest.do("close") == "closed"
        assert again.do("write") == 3
        assert_all_of_owner(path)

    def test_reads_in_a_read_only_folder(
        self, path: Path, start: Callable[..., Any], reader: int
    ) -> None:
        """A closed database is read where nothing can be written."""
        owner = start(path, OWNER, mode=0o644)
        assert [owner.do(word) for word in ("open", "write", "close")] == ["opened", 1, "closed"]
        os.chmod(path.parent, 0o555)
        guest = start(path, reader, read_only=True)
        assert [guest.do(word) for word in ("open", "count")] == ["opened", 1]


@two_users
def test_root_who_writes_gives_the_files_to_the_owner(
    path: Path, start: Callable[..., Any]
) -> None:
    """Even after root has written and was killed, the owner goes on."""
    owner = start(path, OWNER)
    assert [owner.do(word) for word in ("open", "write", "close")] == ["opened", 1, "closed"]
    path.with_name("node.db-lock").unlink()
    root = start(path, ROOT)
    assert [root.do(word) for word in ("open", "write")] == ["opened", 2]
    assert_all_of_owner(path)
    root.kill()
    assert [owner.do(word) for word in ("open", "write")] == ["opened", 3]


@two_users
@pytest.mark.parametrize("options", [{}, {"read_only": True}])
def test_another_users_private_file(
    path: Path, start: Callable[..., Any], options: dict[str, bool]
) -> None:
    """Files are private: another user is told so, in one line."""
    owner = start(path, OWNER)
    assert owner.do("open") == "opened"
    answer = start(path, OTHER, **options).do("open")
    assert answer["error"] == "configuration"
    assert "permission" in answer["message"]
    assert "\n" not in answer["message"]
    assert owner.do("write") == 1
    assert_all_of_owner(path)


@two_users
def test_a_readable_file_opened_to_write(path: Path, start: Callable[..., Any]) -> None:
    """Who may only read cannot open to write, and leaves nothing behind."""
    owner = start(path, OWNER, mode=0o644)
    assert [owner.do(word) for word in ("open", "close")] == ["opened", "closed"]
    before = sorted(os.listdir(path.parent))
    assert start(path, OTHER).do("open")["error"] == "configuration"
    assert sorted(os.listdir(path.parent)) == before


def test_a_log_without_its_index_is_not_read(path: Path) -> None:
    """A copy of a file and its log, without the index, can only be read by making one: refused
    with what to do, and nothing is made; opening it to write mends it.
    """
    original = backend.open(str(path), Options())
    original.create_tables(TABLES, LAYOUT)
    with writing(original) as transaction:
        transaction.insert(LOG.name, (1,), ("w",), b"{}")
    copy = path.with_name("copy.db")
    for ending in ("", "-wal"):
        copy.with_name(copy.name + ending).write_bytes(
            path.with_name(path.name + ending).read_bytes()
        )
    original.close()
    with pytest.raises(DriverError) as caught:
        backend.open(str(copy), Options(read_only=True))
    assert caught.value.kind is ErrorKind.CONFIGURATION
    assert not copy.with_name("copy.db-shm").exists()
    mended = backend.open(str(copy), Options())
    mended.create_tables(TABLES, LAYOUT)
    with reading(mended) as again:
        assert again.get(LOG.name, (1,)) == b"{}"
    mended.close()


def test_a_change_in_the_middle_of_a_frozen_read_is_noticed(path: Path) -> None:
    """Without locks a writer may fold changes into the file between two reads of a transaction:
    the second is an error of kind CONFLICT, rather than of two times; the next transaction reads
    what is there now.
    """
    writer = backend.open(str(path), Options(durability="off"))
    writer.create_tables(TABLES, LAYOUT)
    writer.close()
    guest = backend.open(str(path), Options(read_only=True))
    guest.create_tables(TABLES, LAYOUT)
    transaction = guest.begin(write=False)
    assert transaction.count(LOG.name, Range()) == 0
    writer = backend.open(str(path), Options(durability="off"))
    writer.create_tables(TABLES, LAYOUT)
    with writing(writer) as change:
        change.insert(LOG.name, (1,), ("w",), b"{}")
    writer.close()
    with pytest.raises(DriverError) as caught:
        transaction.count(LOG.name, Range())
    assert caught.value.kind is ErrorKind.CONFLICT
    transaction.rollback()
    with reading(guest) as again:
        assert again.count(LOG.name, Range()) == 1
    guest.close()


def test_an_empty_log_hides_nothing(path: Path) -> None:
    """What a guest of SQLite's own leaves that came as the last writer went: an empty log without
    an index. The file is read as it lies.
    """
    driver = backend.open(str(path), Options())
    driver.create_tables(TABLES, LAYOUT)
    with writing(driver) as transaction:
        transaction.insert(LOG.name, (1,), ("w",), b"{}")
    driver.close()
    path.with_name(path.name + "-wal").touch()
    guest = backend.open(str(path), Options(read_only=True))
    guest.create_tables(TABLES, LAYOUT)
    with reading(guest) as transaction:
        assert transaction.get(LOG.name, (1,)) == b"{}"
    guest.close()
    assert not path.with_name(path.name + "-shm").exists()


def test_a_file_that_grows_while_it_is_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header that says more than the file has is looked at again: only a file that nobody is
    writing to has been cut off.
    """
    driver = backend.open(str(path), Options())
    driver.create_tables(TABLES, LAYOUT)
    driver.close()
    looks = iter([path.read_bytes()[:100], path.read_bytes()[:100]])
    sizes = iter([4096, path.stat().st_size])
    monkeypatch.setattr(files, "_look", lambda *_: (next(looks), next(sizes)))
    files.prepare(path, Options())
    assert list(sizes) == []


@two_users
def test_beside_an_owner_that_comes_and_goes(path: Path, start: Callable[..., Any]) -> None:
    """Another user who opens at the very moment at which the owner leaves makes nothing that stays:
    the owner writes on, and every file is his.
    """
    owner = start(path, OWNER, mode=0o644)
    assert [owner.do(word) for word in ("open", "write", "close")] == ["opened", 1, "closed"]
    stop, opened, strange = threading.Event(), [0], list[DriverError]()

    def look() -> None:
        while not stop.is_set():
            try:
                backend.open(str(path), Options(read_only=True)).close()
                opened[0] += 1
            except DriverError as error:
                strange.append(error)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for turn in range(2, 60):
            done = [owner.do(word) for word in ("open", "write", "close")]
            assert done == ["opened", turn, "closed"]
    finally:
        stop.set()
        looking.join()
    assert opened[0] > 10
    assert strange == []
    assert_all_of_owner(path)
