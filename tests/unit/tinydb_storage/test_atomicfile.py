"""A file's content is replaced whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import random
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from storebridge_tinydb.atomicfile import replace

from tests.unit.tinydb_storage.conftest import Start


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_replaces_and_keeps_the_permissions(tmp_path: Path) -> None:
    """The content is the new one, permissions are the old ones, and nothing else is there."""
    path = tmp_path / "a.json"
    path.write_bytes(b"old, and longer")
    path.chmod(0o640)
    replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == {"a.json"}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_new_file_has_the_mode_asked_for(tmp_path: Path, umask: int) -> None:
    """Whatever the umask; by default the owner alone may read it."""
    before = os.umask(umask)
    try:
        replace(tmp_path / "private", b"")
        replace(str(tmp_path / "shared"), b"", mode=0o664)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o664


def test_the_owner_stays_the_owner(tmp_path: Path) -> None:
    """Root does not lock out whoever owns the file; whoever is not root keeps its group."""
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    if os.getuid() == 0:
        os.chown(path, 4711, 4712)
    before = path.stat()
    replace(path, b"new")
    after = path.stat()
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


def test_links_are_followed(tmp_path: Path) -> None:
    """A symbolic link stays one, and what it leads to is replaced, or made."""
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "a.json"
    link = tmp_path / "link.json"
    link.symlink_to(Path("elsewhere") / "a.json")
    for content in (b"made", b"replaced"):
        replace(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert names(tmp_path) == {"elsewhere", "link.json"}


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    """A device or pipe is not replaced by a file, nor a folder."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/null")):
        with pytest.raises(OSError) as caught:
            replace(path, b"new")
        assert caught.value.errno == errno.EINVAL
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == {"pipe"}


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    """Neither in the file nor beside it."""
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        replace(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"a.json"}
    with pytest.raises(FileNotFoundError):
        replace(tmp_path / "no folder" / "a.json", b"new")


def test_the_disk_has_the_content_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the power fails, the name is one of a file whose content is on the disk."""
    path = tmp_path / "a.json"
    calls: list[object] = []
    fsync, rename = os.fsync, os.replace

    def note_fsync(fd: int) -> None:
        calls.append((os.fstat(fd).st_ino, os.fstat(fd).st_size))
        fsync(fd)

    def note_rename(source: Any, target: Any) -> None:
        calls.append(os.stat(source).st_ino)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_rename)
    replace(path, b"content")
    made, folder = path.stat(), tmp_path.stat()
    assert calls == [(made.st_ino, 7), made.st_ino, (folder.st_ino, folder.st_size)]
    calls.clear()
    replace(path, b"content", durable=False)
    assert calls == [path.stat().st_ino]


def test_no_reader_sees_a_torn_file(tmp_path: Path) -> None:
    """While the content is replaced by more and by less, each reader sees one of both, whole."""
    path = tmp_path / "a.json"
    contents = [b"a" * 10, b"b" * 300_000]
    replace(path, contents[0])
    stop = threading.Event()
    seen = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        replace(path, contents[number % 2], durable=False)
    stop.set()
    reader.join()
    assert seen <= set(contents)
    assert seen, "the reader never came to read"


def test_kill_at_any_moment(tmp_path: Path, start: Start) -> None:
    """Killed at random moments, the content is the last one acknowledged, or the one after it."""
    path = tmp_path / "a.json"
    seed = os.environ.get("STOREBRIDGE_SEED", "1")
    print(f"again with STOREBRIDGE_SEED={seed}")
    moments = random.Random(seed)
    for _ in range(6):
        actor = start("replace", path)
        for _ in range(moments.randrange(1, 12)):
            last = actor.hear()
        time.sleep(moments.uniform(0, 0.01))
        last = [last, *actor.kill().split()][-1]
        found = json.loads(path.read_bytes())
        assert found[0] in (int(last), int(last) + 1)
        assert len(found) == (200_000 if found[0] % 2 else 10)
        assert names(tmp_path) <= {"a.json", "a.json-new"}
    replace(path, b"[]")
    assert names(tmp_path) == {"a.json"}
