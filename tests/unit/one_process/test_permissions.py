"""Several users of one file: nobody who reads locks the owner out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storebridge import ConfigurationError, JobStore, open_database
from tests.unit.one_process.support import NO_PERMISSION, Start, made, owners
from tests.unit.users import OTHER, OWNER, ROOT, two_users


@two_users
@pytest.mark.parametrize(("reader", "mode"), [(OTHER, 0o664), (ROOT, 0o644)])
class TestAReader:
    def test_leaves_nothing_behind(self, path: Path, start: Start, reader: int, mode: int) -> None:
        """It reads what is there, makes no file, and the owner goes on."""
        owner = made(path, start, mode=mode)
        assert owners(path) == {path.name: (OWNER, mode)}
        guest = start(path, reader, read_only=True)
        assert [guest.do(word) for word in ("open", "count")] == ["opened", 1]
        assert guest.do("close") == "closed"
        assert [owner.do(word) for word in ("open", "write")] == ["opened", 2]
        assert set(owners(path).values()) == {(OWNER, mode)}
        assert owner.do("close") == "closed"
        assert owners(path) == {path.name: (OWNER, mode)}

    def test_keeps_the_owner_waiting_no_longer_than_it_reads(
        self, path: Path, start: Start, reader: int, mode: int
    ) -> None:
        """While it has the file open the owner is told who that is; killed, it is in no one's
        way.
        """
        owner = made(path, start, mode=mode, lock_timeout=0.1)
        guest = start(path, reader, read_only=True)
        assert guest.do("open") == "opened"
        answer = owner.do("open")
        assert answer["error"] == "locked"
        assert f"process {guest.pid}" in answer["message"]
        guest.kill()
        assert [owner.do(word) for word in ("open", "write")] == ["opened", 2]
        assert set(owners(path).values()) == {(OWNER, mode)}
        assert owner.do("close") == "closed"
        assert owners(path) == {path.name: (OWNER, mode)}

    def test_waits_for_the_owner(self, path: Path, start: Start, reader: int, mode: int) -> None:
        """A reader who comes while the owner writes is told who that is, and disturbs nothing."""
        owner = start(path, OWNER, mode=mode)
        assert [owner.do(word) for word in ("open", "write")] == ["opened", 1]
        answer = start(path, reader, read_only=True, lock_timeout=0.1).do("open")
        assert answer["error"] == "locked"
        assert f"process {owner.pid}" in answer["message"]
        assert owner.do("write") == 2

    def test_reads_in_a_read_only_folder(
        self, path: Path, start: Start, reader: int, mode: int
    ) -> None:
        made(path, start, mode=mode)
        os.chmod(path.parent, 0o555)
        guest = start(path, reader, read_only=True)
        assert [guest.do(word) for word in ("open", "count")] == ["opened", 1]


@two_users
@pytest.mark.parametrize(("mode", "options"), [
    (0o600, {}),
    (0o600, {"read_only": True}),
    (0o660, {}),
    (0o660, {"read_only": True}),
    (0o644, {}),
])  # fmt: skip
def test_no_permission(path: Path, start: Start, mode: int, options: dict[str, bool]) -> None:
    """Who may not open the file is told in one line what to do, and leaves it as it was."""
    owner = made(path, start, mode=mode)
    answer = start(path, OTHER, **options).do("open")
    assert answer == {"error": "configuration", "message": NO_PERMISSION.format(path)}
    assert owners(path) == {path.name: (OWNER, mode)}
    assert [owner.do(word) for word in ("open", "write")] == ["opened", 2]


@two_users
@pytest.mark.parametrize("options", [{}, {"read_only": True}])
def test_no_permission_for_the_folder(path: Path, start: Start, options: dict[str, bool]) -> None:
    """The same is said where the folder cannot even be entered."""
    owner = made(path, start, mode=0o666)
    os.chown(path.parent, OWNER, OWNER)
    os.chmod(path.parent, 0o700)
    answer = start(path, OTHER, **options).do("open")
    assert answer == {"error": "configuration", "message": NO_PERMISSION.format(path)}
    assert [owner.do(word) for word in ("open", "write")] == ["opened", 2]


@two_users
def test_no_permission_to_make_it(path: Path, start: Start) -> None:
    """Nor is anything half made left in the folder."""
    os.chmod(path.parent, 0o755)
    answer = start(path, OTHER).do("open")
    assert answer == {"error": "configuration", "message": NO_PERMISSION.format(path)}
    assert owners(path) == {}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o664, 0o666])
@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_the_mode_is_exact_whatever_the_umask(
    path: Path, engine: str, mode: int, umask: int
) -> None:
    """And stays that of the file, whatever a later opener says."""
    before = os.umask(umask)
    try:
        for asked in (mode, 0o600):
            with open_database(f"{engine}://{path}?mode={asked:04o}") as database:
                JobStore(database)
            assert owners(path) == {path.name: (os.geteuid(), mode)}
    finally:
        os.umask(before)


def test_reading_makes_nothing(path: Path, engine: str) -> None:
    """What is not there is not made by a reader, nor in a folder that is not there."""
    with pytest.raises(ConfigurationError, match=r"no \w+ database there yet"):
        open_database(f"{engine}://{path}", read_only=True)
    assert owners(path) == {}
    with pytest.raises(ConfigurationError, match="no such folder: make it first"):
        open_database(f"{engine}://{path.parent / 'none' / path.name}")
    assert owners(path) == {}
