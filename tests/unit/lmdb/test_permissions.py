"""Two users: nobody who reads locks the owner out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from storebridge.driver import DriverError, ErrorKind
from tests.unit.lmdb.support import Open, names, put
from tests.unit.lmdb.test_processes import ready, run
from tests.unit.users import OWNER, two_users


@pytest.fixture
def path(shared: Path) -> Path:
    """A location that other users can get to."""
    return shared / "db.lmdb"


def owners(path: Path) -> dict[str, tuple[int, int]]:
    """Owner and mode of every file."""
    return {
        each.name: (each.stat().st_uid, stat.S_IMODE(each.stat().st_mode))
        for each in path.iterdir()
    }


@two_users
def test_another_user_may_not_read_by_default(path: Path, open_driver: Open) -> None:
    put(open_driver(), "a")
    assert run("as_nobody", path, "read") == "configuration"
    assert run("as_nobody", path, "write") == "configuration"


@two_users
def test_another_user_reads_without_leaving_a_file(path: Path, open_driver: Open) -> None:
    driver = open_driver(mode=0o644)
    put(driver, "a")
    before = owners(path)
    assert run("as_nobody", path, "read") == [["a"], "none: writers are kept out of each read"]
    assert run("as_nobody", path, "write") == "configuration"
    assert owners(path) == before
    put(driver, "b")
    driver.close()
    assert run("as_nobody", path, "read")[0] == ["a", "b"]  # type: ignore[index]
    (path / "lock.mdb").unlink()
    assert run("as_nobody", path, "read")[0] == ["a", "b"]  # type: ignore[index]
    assert "lock.mdb" not in owners(path)
    put(open_driver(), "c")


@two_users
def test_a_reader_that_cannot_register_waits_for_the_writer(path: Path, open_driver: Open) -> None:
    open_driver(mode=0o644).close()
    with ready("hold_writer", path):
        assert run("as_nobody", path, "read") == "locked"


@two_users
def test_another_user_of_an_open_mode_takes_part(path: Path, open_driver: Open) -> None:
    driver = open_driver(mode=0o666)
    path.chmod(0o777)
    put(driver, "a")
    assert run("as_nobody", path, "write") == [["a", "by nobody"], "lock.mdb"]
    put(driver, "b")
    assert {owner for owner, _ in owners(path).values()} <= {0}


@two_users
@pytest.mark.parametrize("what", ["read", "write"])
def test_root_does_not_lock_the_owner_out(path: Path, what: str) -> None:
    run("make_as_nobody", path, "600")
    for name in ("lock.mdb", "storebridge.lock"):
        (path / name).unlink(missing_ok=True)
    run("as_root", path, what)
    assert {owner for owner, _ in owners(path).values()} == {OWNER}
    assert {mode for _, mode in owners(path).values()} == {0o600}
    written = ["by root"] if what == "write" else []
    assert run("as_nobody", path, "write") == [["by nobody", *written, "made"], "lock.mdb"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o664])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_have_the_mode_whatever_the_umask(
    path: Path, open_driver: Open, mode: int, umask: int
) -> None:
    before = os.umask(umask)
    try:
        put(open_driver(mode=mode), "a")
    finally:
        os.umask(before)
    assert {found for _, found in owners(path).values()} == {mode}
    assert stat.S_IMODE(path.stat().st_mode) == mode | (mode & 0o444) >> 2


def test_a_read_only_database_of_nobody_s_is_made(path: Path, open_driver: Open) -> None:
    with pytest.raises(DriverError, match="no LMDB database") as caught:
        open_driver(read_only=True)
    assert caught.value.kind is ErrorKind.CONFIGURATION
    assert not path.exists()


def test_reading_makes_nothing(path: Path, open_driver: Open) -> None:
    driver = open_driver()
    put(driver, "a")
    driver.close()
    before = owners(path)
    reader = open_driver(read_only=True)
    assert names(reader) == ["a"]
    with pytest.raises(DriverError) as caught:
        reader.begin(True)
    assert caught.value.kind is ErrorKind.READ_ONLY
    assert owners(path) == before
