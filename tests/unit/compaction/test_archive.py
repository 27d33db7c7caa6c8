"""The archive: what is in it can be read, by zcat too, whatever happened while it was written."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import re
import stat
import subprocess
from pathlib import Path

import pytest

from storebridge import (
    Archiver,
    ConfigurationError,
    CorruptStoreError,
    Event,
    Removal,
    from_json,
    read_archive,
)
from storebridge.times import EPOCH


def removal(name: str, size: int = 10) -> Removal:
    body = json.dumps({"id": name, "text": "ä" * size}, separators=(",", ":")).encode()
    told = Event(sequence=1, store="job", record_id=name, kind="created", at=EPOCH, revision=1)
    return Removal("job", name, "Completed", body, (told,))


def names(path: Path) -> list[str]:
    return [archived.id for archived in read_archive(path)]


def test_there_and_back(tmp_path: Path) -> None:
    """Bodies come back byte by byte, with their histories, in order, from any number of runs."""
    path = tmp_path / "gone.gz"
    given = [removal(f"j-{number}", number * 100) for number in range(20)]
    Archiver(path)(given[:7])
    again = Archiver(path)
    again(given[7:8])
    again(given[8:])
    found = list(read_archive(path))
    assert [bytes(archived.record) for archived in found] == [each.body for each in given]
    assert [archived.history for archived in found] == [each.history for each in given]
    assert {archived.store for archived in found} == {"job"}
    assert from_json(found[3].record)["id"] == "j-3"


def test_other_tools_read_it(tmp_path: Path) -> None:
    """It is gzip to everybody, and each line JSON."""
    path = tmp_path / "gone.gz"
    for number in range(3):
        Archiver(path)([removal(f"{number}-{n}") for n in range(2)])
    shown = subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout
    assert shown == gzip.decompress(path.read_bytes())
    lines = [json.loads(line) for line in shown.splitlines()]
    assert [line["id"] for line in lines] == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    assert lines[0]["record"]["text"] == "ä" * 10


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Records are as private in the archive as in the database."""
    path = tmp_path / "gone.gz"
    before = os.umask(0)
    try:
        Archiver(path)([removal("j")])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_cut_off_anywhere(tmp_path: Path) -> None:
    """An end that was not written, wherever it was cut off, keeps nobody from what is before it,
    and is taken away by the next who appends."""
    path = tmp_path / "gone.gz"
    archiver = Archiver(path)
    archiver([removal("a")])
    first = path.stat().st_size
    archiver([removal("b", 3000)])
    whole = path.read_bytes()
    zeros = whole[: first + 30] + bytes(len(whole) - first - 30)
    for torn in (*(whole[:size] for size in range(first, len(whole))), zeros):
        path.write_bytes(torn)
        assert names(path) == ["a"]
    for torn in (whole[:5], whole[: first + 1], whole[: first + 40], whole[:-1], zeros):
        path.write_bytes(torn)
        Archiver(path)([removal("c")])
        assert names(path) == (["a", "c"] if len(torn) > first else ["c"])
        assert gzip.decompress(path.read_bytes()).count(b"\n") == len(names(path))


def test_one_archiver_goes_on(tmp_path: Path) -> None:
    """An archiver that is used for long sees what others appended, and a file that was rotated."""
    path = tmp_path / "gone.gz"
    mine, other = Archiver(path), Archiver(path)
    for number in range(3):
        mine([removal(f"m{number}")])
        other([removal(f"o{number}", number)])
    assert names(path) == ["m0", "o0", "m1", "o1", "m2", "o2"]
    path.rename(tmp_path / "gone.1.gz")
    mine([removal("after")])
    assert (names(path), len(names(tmp_path / "gone.1.gz"))) == (["after"], 6)


def test_rotated_in_place(tmp_path: Path) -> None:
    """Also where the file keeps its number: emptied by a rotation that has copied it, or begun
    anew by another who was given the number of the one that is gone."""
    path = tmp_path / "gone.gz"
    mine, other = Archiver(path), Archiver(path)
    for size in (10, 500):
        mine([removal("first", size)])
        os.truncate(path, 0)
        mine([removal("second", size)])
        assert names(path) == ["second"]
        os.truncate(path, 0)
        for number in range(9):
            other([removal(f"o{number}")])
        mine([removal("third", size)])
        assert names(path) == [*(f"o{number}" for number in range(9)), "third"]
        os.truncate(path, 0)


def test_the_name_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What returns is on disk, the file's name, too: also of a file whose maker was killed before
    he could see to that."""
    synced: list[bool] = []
    sync = os.fsync

    def fsync(fd: int) -> None:
        sync(fd)
        synced.append(stat.S_ISDIR(os.fstat(fd).st_mode))

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "begun").touch()
    for name in ("new", "begun"):
        archiver = Archiver(tmp_path / name)
        for expected in ([False, True], [False]):
            archiver([removal("j")])
            assert synced == expected
            synced.clear()


@pytest.mark.parametrize(
    "content",
    # Without the time, which would name the test otherwise in each worker.
    [b"hello", b"h", gzip.compress(b"{}\n", mtime=0), b"\x1f\x8b\x08\x00", b"{}" * 500],
)
def test_something_else(tmp_path: Path, content: bytes) -> None:
    """A file that is something else is refused and left as it is."""
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="no archive of storebridge's"):
        Archiver(path)([removal("j")])
    assert path.read_bytes() == content
    with pytest.raises(ConfigurationError):
        names(path)


def test_damage(tmp_path: Path) -> None:
    """Damage is reported, wherever it is, never passed over; and what is behind it is not cut off
    by the next who appends."""
    path = tmp_path / "gone.gz"
    archiver = Archiver(path)
    for name in "abc":
        archiver([removal(name, 500)])
    whole = path.read_bytes()
    chance = random.Random(1)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises((CorruptStoreError, ConfigurationError), match=re.escape(str(path))):
            names(path)
        with contextlib.suppress(ConfigurationError):
            Archiver(path)([removal("d")])
        assert path.read_bytes().startswith(damaged)
