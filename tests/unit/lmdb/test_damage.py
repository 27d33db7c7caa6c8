"""What is not ours and what is damaged: the named error, and not a byte changed."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from storebridge_lmdb import backend, verify
from storebridge_lmdb.header import missing_pages, read_meta
from storebridge_lmdb.reach import is_whole

from storebridge.driver import DriverError, ErrorKind, Options
from tests.unit.lmdb.support import Open, names, put


def content(path: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {each.name: each.read_bytes() for each in path.iterdir()}


def refused(path: Path, kind: ErrorKind) -> str:
    """Open in every way; the message. Nothing must have changed."""
    before = content(path) if path.is_dir() else path.read_bytes()
    for options in (Options(), Options(create=False), Options(read_only=True)):
        with pytest.raises(DriverError) as caught:
            backend.open(str(path), options)
        assert caught.value.kind is kind
        assert "\n" not in str(caught.value)
    assert (content(path) if path.is_dir() else path.read_bytes()) == before
    return str(caught.value)


def plain_environment(path: Path) -> None:
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"someone's", b"value")


def with_our_names(path: Path) -> None:
    with lmdb.open(str(path), max_dbs=9) as environment:
        for name in (b"thing", b"thing-index.state", b"storebridge"):
            environment.open_db(name)


def with_a_key_of_our_name(path: Path) -> None:
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"storebridge", b"value")


def other_format(path: Path) -> None:
    plain_environment(path)
    data = bytearray((path / "data.mdb").read_bytes())
    for page in (0, 4096):
        data[page + 20] = 3
    (path / "data.mdb").write_bytes(data)


def noise(path: Path) -> None:
    path.mkdir()
    (path / "data.mdb").write_bytes(os.urandom(20_000))


def other_things(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    "make",
    [
        plain_environment,
        with_our_names,
        with_a_key_of_our_name,
        other_format,
        noise,
        other_things,
    ],
)
def test_what_is_not_ours_is_refused_unharmed(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    refused(path, ErrorKind.FOREIGN)


def test_our_own_without_its_mark_is_foreign(path: Path, open_driver: Open) -> None:
    open_driver().close()
    with lmdb.open(str(path), max_dbs=9) as environment:
        own = environment.open_db(b"storebridge")
        with environment.begin(write=True) as transaction:
            transaction.delete(b"layout", db=own)
    refused(path, ErrorKind.FOREIGN)


def test_a_file_is_no_folder(path: Path) -> None:
    path.write_text("a file")
    assert "folder" in refused(path, ErrorKind.CONFIGURATION)


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="missing") as caught:
        backend.open(str(tmp_path / "missing" / "db"), Options())
    assert caught.value.kind is ErrorKind.CONFIGURATION


@pytest.mark.parametrize("left", [0.9, 0.5, 0.1])
def test_a_truncated_file_is_damaged(path: Path, open_driver: Open, left: float) -> None:
    driver = open_driver()
    for number in range(200):
        put(driver, f"t{number}", bytes(2000))
    driver.close()
    size = (path / "data.mdb").stat().st_size
    os.truncate(path / "data.mdb", int(size * left))
    assert "truncated" in refused(path, ErrorKind.CORRUPT)


def test_a_file_that_lacks_free_pages_at_its_end_is_sound(path: Path, open_driver: Open) -> None:
    """LMDB does not write what a transaction both took and freed."""
    driver = open_driver()
    put(driver, "long", bytes(20_000))
    for turn in range(1000):
        transaction = driver.begin(True)
        for number in range(60):
            assert transaction.insert("thing", (f"{turn} {number}",), ("new",), bytes(1500))
        for number in range(turn % 20, 60):
            transaction.remove("thing", (f"{turn} {number}",), ("new",))
        transaction.commit()
        if missing_pages(path / "data.mdb", read_meta(path / "data.mdb")):
            break
    else:
        raise AssertionError("LMDB wrote them all")
    held = names(driver)
    driver.close()
    driver = open_driver()
    assert names(driver) == held
    assert list(driver.check()) == []
    driver.close()
    for shorter in range(4096, 40_960, 4096):
        size = (path / "data.mdb").stat().st_size
        os.truncate(path / "data.mdb", size - shorter)
        if not is_whole(path / "data.mdb", read_meta(path / "data.mdb")):
            break
    assert "truncated" in refused(path, ErrorKind.CORRUPT)


@pytest.mark.parametrize("size", [20, 100, 4096, 5000, 8191])
def test_a_file_that_ends_within_its_meta_pages_is_damaged(
    path: Path, open_driver: Open, size: int
) -> None:
    open_driver().close()
    os.truncate(path / "data.mdb", size)
    refused(path, ErrorKind.CORRUPT)


def test_a_meta_page_overwritten_is_damaged(path: Path, open_driver: Open) -> None:
    open_driver().close()
    with (path / "data.mdb").open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))
    refused(path, ErrorKind.CORRUPT)


def test_a_page_size_that_none_has_is_damaged(path: Path, open_driver: Open) -> None:
    open_driver().close()
    with (path / "data.mdb").open("r+b") as file:
        file.seek(40)
        file.write(struct.pack("I", 12345))
    refused(path, ErrorKind.CORRUPT)


@pytest.mark.skipif(verify._walker() is None, reason="py-lmdb has its verifier since 3.0")
def test_check_finds_a_page_overwritten_and_survives_it(path: Path, open_driver: Open) -> None:
    driver = open_driver()
    for number in range(500):
        put(driver, f"t{number:03d}", bytes(500))
    assert list(driver.check()) == []
    size = (path / "data.mdb").stat().st_size
    with (path / "data.mdb").open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))
    assert list(driver.check()) != []


def test_check_does_not_wait_for_a_writer(open_driver: Open) -> None:
    driver = open_driver()
    put(driver, "a")
    writer = driver.begin(True)
    writer.insert("thing", ("b",), ("new",), b"{}")
    assert list(driver.check()) == []
    writer.rollback()


def test_without_its_own_check_lmdb_reads_everything(
    open_driver: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = open_driver()
    put(driver, "a")
    monkeypatch.setattr(verify, "_walker", lambda: None)
    assert list(driver.check()) == []


def test_killed_while_making_it_is_new_again(path: Path, open_driver: Open) -> None:
    """An empty folder, an empty file, an environment without tables: whoever made them was killed
    before the first table, and nothing is in them.
    """
    path.mkdir()
    open_driver().close()
    for name in os.listdir(path):
        (path / name).unlink()
    (path / "data.mdb").touch()
    open_driver().close()
    shutil.rmtree(path)
    lmdb.open(str(path)).close()
    driver = open_driver()
    put(driver, "a")
    assert names(driver) == ["a"]


def test_a_second_opening_in_one_process_is_a_clear_error(path: Path, open_driver: Open) -> None:
    driver = open_driver()
    with pytest.raises(DriverError, match="already open in this process") as caught:
        backend.open(str(path), Options())
    assert caught.value.kind is ErrorKind.CONFIGURATION
    put(driver, "a")


def test_lmdb_s_own_tools_read_it(path: Path, open_driver: Open) -> None:
    driver = open_driver()
    put(driver, "e-1", b'{"id":"e-1"}', "Running")
    driver.close()
    if shutil.which("mdb_dump") is None:
        pytest.skip("lmdb-utils are not installed")
    command = ["mdb_dump", "-p", "-s", "thing-index.state", str(path)]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "\n Running e-1\n e-1\n" in dump
    stat = subprocess.run(["mdb_stat", "-a", str(path)], capture_output=True, text=True, check=True)
    for name in ("storebridge", "thing", "thing-history", "thing-index.state"):
        assert f"Status of {name}\n" in stat.stdout


def test_it_recognises_lmdb_folders(path: Path, tmp_path: Path, open_driver: Open) -> None:
    open_driver().close()
    assert backend.recognises(path, b"")
    assert not backend.recognises(tmp_path, b"")
    assert not backend.recognises(path / "data.mdb", b"")
    assert backend.shell(str(path)) is None


def test_describe_uses_the_words_of_mdb_stat(open_driver: Open) -> None:
    described = open_driver(map_size="64M").describe()
    assert described["mapsize"] == 2**26
    assert described["psize"] == 4096 or isinstance(described["psize"], int)
    assert {"pages", "readers", "maxreaders", "last_txnid", "databases"} <= described.keys()
