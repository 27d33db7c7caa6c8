"""Several users of one bolt file: those of its group, and root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.one_process.support import Start, made, owners
from tests.unit.users import OTHER, OWNER, ROOT, two_users


@pytest.fixture
def path(shared: Path) -> Path:
    return shared / "node.bolt"


@two_users
def test_the_group_takes_part(path: Path, start: Start) -> None:
    """Of a file for the owner's group each member writes, in a folder that is the owner's alone,
    and the file stays the owner's.
    """
    owner = made(path, start, mode=0o660)
    os.chown(path.parent, OWNER, OWNER)
    os.chmod(path.parent, 0o755)
    member = start(path, OTHER, OWNER)
    assert [member.do(word) for word in ("open", "write")] == ["opened", 2]
    member.kill()
    assert [owner.do(word) for word in ("open", "write")] == ["opened", 3]
    assert owners(path) == {path.name: (OWNER, 0o660)}


@two_users
def test_root_who_writes_leaves_the_file_to_the_owner(path: Path, start: Start) -> None:
    """Even when it is killed."""
    owner = made(path, start)
    root = start(path, ROOT)
    assert [root.do(word) for word in ("open", "write")] == ["opened", 2]
    root.kill()
    assert [owner.do(word) for word in ("open", "write")] == ["opened", 3]
    assert owners(path) == {path.name: (OWNER, 0o600)}
