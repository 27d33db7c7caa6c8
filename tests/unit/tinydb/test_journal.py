"""The journal: cut short, damaged, on a disk that refuses."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from storebridge_tinydb import journal
from storebridge_tinydb.driver import FLOOR, TinyDriver

from storebridge.driver import DriverError, ErrorKind
from storebridge.testing.harness import reading, refused, writing
from storebridge.testing.samples import LOG
from tests.unit.tinydb.conftest import open_at

COMMITS = 6


def commit(driver: TinyDriver, note: str = "") -> int:
    """Add an entry; its number."""
    with writing(driver) as transaction:
        number = transaction.tally({"n": 1})["n"]
        body = b'{"n":%d,"note":"%s"}' % (number, note.encode())
        assert transaction.insert(LOG.name, (number,), ("w",), body)
    return number


def count(driver: TinyDriver) -> int:
    """How many there are, and that nothing else is."""
    with reading(driver) as transaction:
        number = transaction.totals("n").get("n", 0)
        assert all(transaction.get(LOG.name, (n,)) for n in range(1, number + 1))
        assert transaction.get(LOG.name, (number + 1,)) is None
    return number


def opened(path: Path, **options: object) -> int:
    """How many there are for whoever opens it now."""
    driver = open_at(path, **options)
    try:
        assert list(driver.check()) == []
        return count(driver)
    finally:
        driver.close()


@pytest.fixture(params=["full", "relaxed", "off"])
def killed(request: pytest.FixtureRequest, path: Path) -> tuple[Path, bytes]:
    """A file whose process was killed, and its journal, of some commits behind one of tables."""
    driver = open_at(path, durability=request.param)
    for _ in range(COMMITS):
        commit(driver)
    driver.leave()
    beside = journal.path_beside(path)
    return beside, beside.read_bytes()


def test_a_line_is_a_commit(killed: tuple[Path, bytes], path: Path) -> None:
    """As text; gone when the file has it all."""
    lines = killed[1].splitlines()
    assert len(lines) == 1 + 1 + COMMITS
    assert all(line.startswith(b'{"sum":"') for line in lines)
    assert killed[1].endswith(b"\n")
    assert opened(path) == COMMITS
    assert not killed[0].exists()
    assert opened(path) == COMMITS


def test_cut_short_anywhere(killed: tuple[Path, bytes], path: Path) -> None:
    """What is left of a line does not count, all lines before it do, and it can be written on."""
    beside, whole = killed
    base = path.read_bytes()
    start = len(whole.splitlines(keepends=True)[0])
    ends = [end for end in range(start, len(whole)) if b"\n" in whole[end - 1 : end + 2]]
    for size in sorted({*range(start, len(whole) + 1, 9), *ends, len(whole)}):
        beside.write_bytes(whole[:size])
        # A line is whole without the end of the line, too.
        lines = whole[: size + 1].count(b"\n")
        driver = open_at(path, read_only=True, durability="off")
        assert count(driver) == max(lines - 2, 0)
        driver.close()
        if size % 3 == 0:
            driver = open_at(path, durability="off")
            assert commit(driver) == max(lines - 2, 0) + 1
            driver.close()
            assert opened(path) == max(lines - 2, 0) + 1
            path.write_bytes(base)


def test_damage_before_the_end(killed: tuple[Path, bytes], path: Path) -> None:
    """In a line that others follow it is CORRUPT, as no power cut does it to what was synced; the
    message names the line, and both files stay as they are. What was not synced may be gone from
    the end: then all before it is there.
    """
    beside, whole = killed
    base, last = path.read_bytes(), whole.rindex(b"\n", 0, -1)
    chance = random.Random(1)
    for place in range(0, last, 11):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        beside.write_bytes(damaged)
        line = whole[: place + 1].count(b"\n", 0, place) + 1
        if line == 1 or b'"durability":"full"' in whole:
            with pytest.raises(DriverError, match=rf"line {line} is damaged") as caught:
                open_at(path)
            assert caught.value.kind is ErrorKind.CORRUPT
        else:
            driver = open_at(path, read_only=True)
            assert count(driver) == max(line - 3, 0)
            driver.close()
        assert (beside.read_bytes(), path.read_bytes()) == (bytes(damaged), base)


def test_damage_to_what_was_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `relaxed`, too, what a later line says was on disk must be there."""
    due = iter([False, True, False, False, False])
    monkeypatch.setattr(journal.Journal, "_is_sync_due", lambda self: next(due))
    driver = open_at(path, durability="relaxed")
    for _ in range(4):
        commit(driver)
    driver.leave()
    beside = journal.path_beside(path)
    lines = beside.read_bytes().splitlines(keepends=True)
    for number, synced in ((2, True), (3, True), (4, False), (5, False)):
        damaged = [*lines]
        damaged[number - 1] = damaged[number - 1].replace(b'"commit"', b'"commit!')
        beside.write_bytes(b"".join(damaged))
        if synced:
            with pytest.raises(DriverError, match=f"line {number} is damaged"):
                open_at(path)
        else:
            assert opened(path, read_only=True) == number - 3


def test_another_database_s_journal(killed: tuple[Path, bytes], tmp_path: Path) -> None:
    """Beside a file that it is not of it is refused, whatever the numbers of its commits."""
    other = tmp_path / "other.json"
    driver = open_at(other)
    for _ in range(20):
        commit(driver)
    driver.close()
    journal.path_beside(other).write_bytes(killed[1])
    with pytest.raises(DriverError, match="move the journal away"):
        open_at(other)
    journal.path_beside(other).unlink()
    assert opened(other) == 20


def test_a_line_of_another_journal(killed: tuple[Path, bytes], path: Path, tmp_path: Path) -> None:
    """Sums begin with the journal's own first line: no other's line passes."""
    beside, whole = killed
    other = tmp_path / "other.json"
    driver = open_at(other)
    for _ in range(COMMITS + 1):
        commit(driver)
    driver.leave()
    line = journal.path_beside(other).read_bytes().splitlines(keepends=True)[-1]
    beside.write_bytes(whole + line)
    assert opened(path) == COMMITS


class Refusing:
    """Calls of `os` that fail: `Refusing(patch, "fdatasync", errno.EIO)`."""

    def __init__(self, patch: pytest.MonkeyPatch, call: str, number: int) -> None:
        self.real: Callable[..., object] = getattr(os, call)
        self.number = number
        self.on = True
        patch.setattr(os, call, self)

    def __call__(self, *arguments: object) -> object:
        if self.on:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_sync_that_fails(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The change is refused and gone, here and after a kill. The journal is not relied on any more:
    the next commit writes all into the file, and only if that is synced it is acknowledged.
    """
    driver = open_at(path)
    assert commit(driver) == 1
    before = path.read_bytes()
    refusing = Refusing(monkeypatch, "fdatasync", number)
    kind = ErrorKind.FULL if number == errno.ENOSPC else ErrorKind.OTHER
    with refused(kind, driver=driver):
        commit(driver)
    assert count(driver) == 1
    assert path.read_bytes() == before
    whole = Refusing(monkeypatch, "fsync", number)
    with refused(kind, driver=driver):
        commit(driver)
    assert (count(driver), path.read_bytes()) == (1, before)
    whole.on = refusing.on = False
    assert commit(driver) == 2
    assert path.read_bytes() != before
    driver.leave()
    assert opened(path) == 2


def test_a_kill_after_a_sync_that_failed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused does not come back."""
    driver = open_at(path)
    assert commit(driver) == 1
    refusing = Refusing(monkeypatch, "fdatasync", errno.EIO)
    with refused(ErrorKind.OTHER, driver=driver):
        commit(driver)
    refusing.on = False
    driver.leave()
    assert opened(path) == 1


def test_a_fold_that_cannot_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits go on in the journal, and the file is written as soon as it can be; a database that
    cannot be folded when it is closed is whole all the same.
    """
    refusing = Refusing(monkeypatch, "replace", errno.ENOSPC)
    refusing.on = False
    driver = open_at(path)
    assert commit(driver) == 1
    before = path.read_bytes()
    refusing.on = True
    note = "x" * (FLOOR // 8)
    for number in range(2, 20):
        assert commit(driver, note) == number
    assert path.read_bytes() == before
    driver.close()
    assert path.read_bytes() == before
    assert opened(path, read_only=True) == 19
    driver = open_at(path)
    with refused(ErrorKind.FULL, driver=driver):
        commit(driver)
    assert count(driver) == 19
    refusing.on = False
    for number in range(20, 40):
        assert commit(driver, note) == number
    assert len(path.read_bytes()) > len(before) + FLOOR
    driver.close()
    assert opened(path) == 39


def test_the_journal_is_folded_when_it_has_outgrown_the_file(path: Path) -> None:
    """So both together are never much larger than twice the content, and a half of a megabyte."""
    driver = open_at(path, durability="off")
    folds, inode = 0, path.stat().st_ino
    for _ in range(399):
        commit(driver, "x" * 5000)
        size = path.stat().st_size
        beside = journal.path_beside(path)
        assert not beside.exists() or beside.stat().st_size < max(size, FLOOR) + 6000
        folds += path.stat().st_ino != inode
        inode = path.stat().st_ino
    assert 3 <= folds <= 6
    driver.close()
    assert opened(path) == 399


def test_a_newer_journal(killed: tuple[Path, bytes], path: Path) -> None:
    """Of a version that is not known nothing is guessed."""
    beside, whole = killed
    first, _, rest = whole.partition(b"\n")
    text = first[journal._REST :].replace(b'"journal":1', b'"journal":2')
    beside.write_bytes(journal._summed(text, 0) + b"\n" + rest)
    with pytest.raises(DriverError, match="newer storebridge: upgrade"):
        open_at(path)
