"""Opening: new files, locks, what is refused and how it is said."""

from __future__ import annotations

import fcntl
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from storebridge_bolt.pybolt import (
    DB,
    DatabaseClosedError,
    DatabaseTooLargeError,
    InvalidFileError,
    LockTimeoutError,
    ReadOnlyError,
    TxError,
)
from storebridge_bolt.pybolt.datafile import DataFile
from storebridge_bolt.pybolt.meta import META_END, Meta, decode_meta


def fill(path: Path, commits: int = 3, page_size: int = 1024) -> None:
    with DB(path, durability="off", page_size=page_size) as db:
        for number in range(commits):
            with db.update() as tx:
                tx.create_bucket_if_missing(b"b").put(b"n", b"%d" % number)


def value(path: Path) -> bytes | None:
    with DB(path, read_only=True) as db, db.view() as tx:
        return tx.bucket(b"b").get(b"n")


def test_a_new_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    old = os.umask(0)
    try:
        DB(path).close()
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.db"]


def test_the_mode_of_a_new_file(tmp_path: Path) -> None:
    DB(tmp_path / "t.db", mode=0o664).close()
    assert (tmp_path / "t.db").stat().st_mode & 0o777 == 0o664
    DB(tmp_path / "t.db", mode=0o600).close()
    assert (tmp_path / "t.db").stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
def test_page_sizes(tmp_path: Path, page_size: int) -> None:
    path = tmp_path / "t.db"
    fill(path, page_size=page_size)
    with DB(path) as db:
        assert db.page_size == page_size
    assert value(path) == b"2"


def test_bad_options(tmp_path: Path) -> None:
    for page_size in (1000, 512, 1 << 17):
        with pytest.raises(ValueError, match="page size"):
            DB(tmp_path / "t.db", page_size=page_size)
    with pytest.raises(ValueError, match="durability"):
        DB(tmp_path / "t.db", durability="sometimes")  # type: ignore[arg-type]
    assert not (tmp_path / "t.db").exists()


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    (tmp_path / "t.db").touch()
    fill(tmp_path / "t.db")
    assert value(tmp_path / "t.db") == b"2"


def test_what_the_system_refuses_stays_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DB(tmp_path / "none" / "t.db")
    with pytest.raises(FileNotFoundError):
        DB(tmp_path / "t.db", read_only=True)
    with pytest.raises(IsADirectoryError):
        DB(tmp_path)


def test_what_is_no_bolt_file(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    for content in (b"x", b"SQLite format 3\0" * 1000, bytes(1 << 15)):
        path.write_bytes(content)
        for read_only in (True, False):
            with pytest.raises(InvalidFileError):
                DB(path, read_only=read_only)
        assert path.read_bytes() == content


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    fill(path)
    os.truncate(path, 5 * 1024)
    with pytest.raises(InvalidFileError, match="cut short"):
        DB(path)


def damage(path: Path, page: int, page_size: int = 1024) -> None:
    with path.open("r+b") as file:
        file.seek(page * page_size + 30)
        file.write(b"\xaa\xbb")


@pytest.mark.parametrize("page_size", [1024, 16384])
@pytest.mark.parametrize("page", [0, 1])
def test_one_bad_meta_page(tmp_path: Path, page: int, page_size: int) -> None:
    """The other one counts, wherever it is: the last state, or the one before."""
    path = tmp_path / "t.db"
    fill(path, commits=3, page_size=page_size)
    newest = 0
    with path.open("rb") as file:
        for number in (0, 1):
            file.seek(number * page_size)
            newest = max(newest, decode_meta(file.read(META_END)).txid)
    damage(path, page, page_size)
    assert value(path) == (b"1" if newest % 2 == page else b"2")


def test_two_bad_meta_pages(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    fill(path)
    damage(path, 0)
    damage(path, 1)
    with pytest.raises(InvalidFileError):
        DB(path)


def test_a_meta_without_checksum_is_refused() -> None:
    page = bytearray(Meta(4096, 3, 0, 2, 4, 1).encode())
    page[-8:] = bytes(8)
    with pytest.raises(InvalidFileError, match="checksum"):
        decode_meta(bytes(page))


HOLD = """
import sys
from storebridge_bolt.pybolt import DB
with DB(sys.argv[1], read_only=sys.argv[2] == "read"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path, kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("read_only", [False, True])
def test_a_locked_file_names_its_holder(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "t.db"
    fill(path)
    with holder(path, "write") as process:
        with pytest.raises(LockTimeoutError, match=f"process {process.pid}") as caught:
            DB(path, lock_timeout=0.1, read_only=read_only)
        assert caught.value.holder == process.pid
        assert isinstance(caught.value, TimeoutError)
        process.communicate("")
    assert value(path) == b"2"


def test_a_lock_that_is_let_go_in_time(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    fill(path)
    with holder(path, "write") as process:
        assert process.stdin is not None
        process.stdin.close()
        DB(path, lock_timeout=5).close()


def test_readers_share(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    fill(path)
    with holder(path, "read") as process, DB(path, read_only=True) as db:
        with db.view() as tx:
            assert tx.bucket(b"b").get(b"n") == b"2"
        with pytest.raises(LockTimeoutError):
            DB(path, lock_timeout=0.1)
        with pytest.raises(ReadOnlyError):
            db.begin(writable=True)
        process.communicate("")


def test_the_lock_is_go_s(tmp_path: Path) -> None:
    """A flock on the file itself, as bbolt takes it."""
    path = tmp_path / "t.db"
    with DB(path), path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_file_replaced_while_waiting_for_it(tmp_path: Path) -> None:
    """The lock counts for the file that has the name now, not for the one that had it."""
    path = tmp_path / "t.db"
    fill(path)
    real = os.path.samestat
    replaced: list[bool] = []

    def samestat(one: os.stat_result, two: os.stat_result) -> bool:
        if not replaced:
            replaced.append(True)
            fill(tmp_path / "new.db", commits=7)
            os.rename(tmp_path / "new.db", path)
            two = os.stat(path)
        return real(one, two)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os.path, "samestat", samestat)
        assert value(path) == b"6"


def test_small_address_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a 32-bit machine a file beyond 2 GiB is refused, and a commit that grows to it fails."""
    path = tmp_path / "t.db"
    fill(path)
    monkeypatch.setattr(DataFile, "address_limit", 64 << 10)
    with DB(path, durability="off") as db:
        with pytest.raises(DatabaseTooLargeError, match="compact it"), db.update() as tx:
            tx.bucket(b"b").put(b"big", bytes(100 << 10))
        copy = tmp_path / "copy.db"
        copy.write_bytes(path.read_bytes())
        assert value(copy) == b"2"  # nothing of the failed commit is in the file
        with db.update() as tx:
            tx.bucket(b"b").put(b"small", b"v")
    assert path.stat().st_size <= 64 << 10
    os.truncate(path, 100 << 10)
    with pytest.raises(DatabaseTooLargeError):
        DB(path)


CRAMPED = """
import gc, resource, sys
from storebridge_bolt.pybolt import DB
gc.disable()
value = bytes(8 << 20)
with DB(sys.argv[1], durability="off") as db:
    with db.update() as tx:
        tx.create_bucket(b"b")
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (640 << 20),) * 2)
    for number in range(24):
        with db.update() as tx:
            tx.bucket(b"b").put(b"%d" % number, value)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited on Linux only")
def test_maps_of_earlier_states_make_room(tmp_path: Path) -> None:
    """A file that grows step by step needs room for its map and the last one, not for all that
    there were.
    """
    path = tmp_path / "t.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", CRAMPED, path], check=True, env=environment)
    assert path.stat().st_size > 192 << 20


def test_a_closed_database_refuses(tmp_path: Path) -> None:
    db = DB(tmp_path / "t.db")
    reader, writer = db.view(), db.update()
    db.close()
    db.close()
    for call in (db.begin, db.update, lambda: db.batch(lambda tx: None)):
        with pytest.raises(DatabaseClosedError):
            call()
    for tx in (reader, writer):
        with pytest.raises(TxError):
            tx.bucket(b"b")
    DB(tmp_path / "t.db", lock_timeout=0).close()


def test_a_second_write_transaction_in_one_thread(tmp_path: Path) -> None:
    with DB(tmp_path / "t.db") as db, db.update() as tx:
        with pytest.raises(TxError, match="this thread"):
            db.begin(writable=True)
        tx.create_bucket(b"b")


def forget(things: list[object]) -> None:
    things.clear()
    gc.collect()


def test_forgotten_transactions_and_databases(tmp_path: Path) -> None:
    """They warn, and neither block writers nor keep the file locked."""
    db = DB(tmp_path / "t.db")
    forgotten: list[object] = [db.begin(writable=True)]
    with pytest.warns(ResourceWarning, match="unfinished"):
        forget(forgotten)
    with db.update() as tx:
        tx.create_bucket(b"b")
    del tx
    forgotten = [db]
    del db
    with pytest.warns(ResourceWarning, match="unclosed"):
        forget(forgotten)
    DB(tmp_path / "t.db", lock_timeout=0).close()


def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    """And the parent goes on, its lock unharmed, whatever the child does."""
    path = tmp_path / "t.db"
    fill(path)
    with DB(path) as db, db.view() as tx:
        bucket = tx.bucket(b"b")
        pid = os.fork()
        if pid == 0:
            os._exit(_in_child(db, bucket.items))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert bucket.get(b"n") == b"2"
        with pytest.raises(LockTimeoutError):
            DB(path, lock_timeout=0)
        with db.update() as write:
            write.bucket(b"b").put(b"n", b"parent")
    assert value(path) == b"parent"


def _in_child(db: DB, read: object) -> int:
    try:
        db.begin()
    except DatabaseClosedError as problem:
        if "fork" not in str(problem):
            return 1
    else:
        return 2
    try:
        assert callable(read)
        read()
    except TxError:
        pass
    else:
        return 3
    db.close()
    return 0


def test_an_unkept_freelist(tmp_path: Path) -> None:
    """Without a list in the file the free pages are found again, and used."""
    path = tmp_path / "t.db"
    for _ in range(20):
        db = DB(path, durability="off", keep_freelist=False, page_size=1024)
        with db, db.update() as tx:
            tx.create_bucket_if_missing(b"b").put(b"k", bytes(5000))
    assert path.stat().st_size == 32 << 10
    with DB(path, read_only=True) as db, db.view() as tx:
        assert not tx._meta.keeps_freelist
