"""Several users of one TinyDB file: nobody who writes it anew locks the owner out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.one_process.support import NO_PERMISSION, Start, made, owners
from tests.unit.users import OTHER, OWNER, ROOT, two_users


@pytest.fixture
def path(shared: Path) -> Path:
    return shared / "node.json"


def both(path: Path, mode: int) -> dict[str, tuple[int, int]]:
    """The file and the journal of an owner who has written something."""
    return dict.fromkeys((path.name, f"{path.name}-journal"), (OWNER, mode))


@two_users
def test_the_group_takes_part(path: Path, start: Start) -> None:
    """Of a file for the owner's group, in a folder that the group may change, each member writes.
    Whoever writes it anew owns it from then on; group and mode stay, so nobody is locked out.
    """
    owner = made(path, start, mode=0o660)
    member = start(path, OTHER, OWNER)
    said = [member.do(word) for word in ("open", "write", "close")]
    assert said == ["opened", 2, "closed"]
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (OTHER, OWNER, 0o660)
    assert [owner.do(word) for word in ("open", "write")] == ["opened", 3]
    owner.kill()
    member = start(path, OTHER, OWNER)
    assert [member.do(word) for word in ("open", "write")] == ["opened", 4]


@two_users
def test_a_member_who_may_not_change_the_folder(path: Path, start: Start) -> None:
    """Can make neither the journal nor the file anew, and is told so."""
    owner = made(path, start, mode=0o660)
    os.chown(path.parent, OWNER, OWNER)
    os.chmod(path.parent, 0o755)
    answer = start(path, OTHER, OWNER).do("open")
    assert answer == {"error": "configuration", "message": NO_PERMISSION.format(path)}
    reader = start(path, OTHER, OWNER, read_only=True)
    assert [reader.do(word) for word in ("open", "count", "close")] == ["opened", 1, "closed"]
    assert [owner.do(word) for word in ("open", "write")] == ["opened", 2]


@two_users
def test_somebody_outside_of_the_group(path: Path, start: Start) -> None:
    """Even if everybody may write: a file of theirs in its place would lock the owner out."""
    owner = made(path, start, mode=0o666)
    answer = start(path, OTHER).do("open")
    assert answer["error"] == "configuration"
    assert "would lock its owner out" in answer["message"]
    assert owners(path) == {path.name: (OWNER, 0o666)}
    assert [owner.do(word) for word in ("open", "write")] == ["opened", 2]


@two_users
def test_root_who_writes_leaves_the_files_to_the_owner(path: Path, start: Start) -> None:
    """Even when it is killed, or has written the file anew."""
    owner = made(path, start)
    root = start(path, ROOT)
    assert [root.do(word) for word in ("open", "write")] == ["opened", 2]
    root.kill()
    assert owners(path) == both(path, 0o600)
    assert [owner.do(word) for word in ("open", "write", "close")] == ["opened", 3, "closed"]
    root = start(path, ROOT)
    assert [root.do(word) for word in ("open", "fold", "close")] == ["opened", 103, "closed"]
    assert owners(path) == {path.name: (OWNER, 0o600)}
