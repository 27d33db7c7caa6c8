"""`AtomicJSONStorage` is TinyDB's own storage, but nothing gets lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from storebridge_tinydb.storage import AtomicJSONStorage
from tinydb import JSONStorage, TinyDB, where
from tinydb.middlewares import CachingMiddleware
from tinydb.table import Document

from storebridge.errors import ConflictError, StoreLockedError
from tests.unit.tinydb_storage.conftest import Start
from tests.unit.users import OTHER


def ours(path: Path, **options: Any) -> TinyDB:
    return TinyDB(path, storage=AtomicJSONStorage, **options)


def documents(path: Path) -> list[Any]:
    return list(json.loads(path.read_bytes())["_default"].values())


@contextmanager
def not_as_root() -> Iterator[None]:
    user = os.geteuid()
    os.seteuid(user or OTHER)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"indent": 2, "sort_keys": True, "separators": (",", ": ")},
        {"encoding": "cp936", "ensure_ascii": False},
        {"access_mode": "r+", "create_dirs": True},
        {"default": str},
    ],
)
def test_the_file_is_the_one_that_tinydb_writes(tmp_path: Path, options: dict[str, Any]) -> None:
    """Byte for byte, whatever options are given to both."""
    files = []
    for name, storage in (("theirs", JSONStorage), ("ours", AtomicJSONStorage)):
        path = tmp_path / name
        with TinyDB(path, storage=storage, **options) as db:
            db.insert({"b": "世界", "a": [1.5, None, True, {"c": "x" * 1000}]})
            db.table("other").insert_multiple({"number": number} for number in range(20))
            db.remove(where("a").exists())
            db.table("other").update({"b": 1, "a": 2}, where("number") > 10)
        files.append(path.read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("mode", ["r", "rb", "r+", "rb+", "w", "w+", "x", "q"])
@pytest.mark.parametrize("content", [None, '{"_default": {"1": {"a": 1}}}'])
@pytest.mark.filterwarnings("ignore:Using an `access_mode`", "ignore::ResourceWarning")
def test_access_modes(tmp_path: Path, mode: str, content: str | None) -> None:
    """Each opens, makes, empties and refuses what it does with TinyDB's storage."""
    outcomes: list[object] = []
    for name, storage in (("theirs", JSONStorage), ("ours", AtomicJSONStorage)):
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        try:
            opened: Any = storage(str(path), access_mode=mode)
            opened.close()
        except (OSError, ValueError) as error:
            opened = type(error)
        outcomes.append((opened if isinstance(opened, type) else "opened", path.exists()))
        outcomes.append(path.read_bytes() if path.exists() else None)
    assert outcomes[:2] == outcomes[2:]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    """The errors are those of `open`, and come at once."""
    with pytest.raises(FileNotFoundError):
        ours(tmp_path / "none" / "db.json")
    with pytest.raises(IsADirectoryError):
        ours(tmp_path)
    with pytest.raises(LookupError):
        ours(tmp_path / "db.json", encoding="no such encoding")
    with pytest.raises(NotADirectoryError):
        ours(tmp_path / "db.json" / "db.json", create_dirs=True)
    ours(tmp_path / "new" / "folders" / "db.json", create_dirs=True).close()


def test_reading_only(tmp_path: Path) -> None:
    """With the access mode `r` a change is an OSError, and leaves the file alone."""
    path = tmp_path / "db.json"
    with ours(path) as db:
        db.insert({"a": 1})
    for mode in ("r", "rb"):
        with ours(path, access_mode=mode) as db:
            assert db.all() == [{"a": 1}]
            with pytest.raises(OSError, match=f'cannot be written with the access mode "{mode}"'):
                db.insert({"a": 2})
    assert documents(path) == [{"a": 1}]


def test_bytes_mode(tmp_path: Path) -> None:
    """`rb+`, which TinyDB offers and cannot write with, writes UTF-8."""
    with ours(tmp_path / "db.json", access_mode="rb+", ensure_ascii=False) as db:
        db.insert({"a": "世界"})
        assert db.all() == [{"a": "世界"}]
    assert "世界".encode() in (tmp_path / "db.json").read_bytes()


def test_a_closed_storage_is_closed(tmp_path: Path) -> None:
    db = ours(tmp_path / "db.json")
    db.close()
    for use in (db.all, lambda: db.insert({"a": 1})):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_only_who_may_write_replaces(shared: Path) -> None:
    """A file without permission to write is not replaced, though its folder would permit it."""
    path = shared / "db.json"
    ours(path).close()
    path.chmod(0o444)
    with not_as_root():
        with pytest.raises(PermissionError):
            ours(path)
        with ours(path, access_mode="r") as db:
            assert db.all() == []


def test_a_relative_path_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the current folder is later."""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with ours(Path("db.json")) as db:
        monkeypatch.chdir(tmp_path / "other")
        db.insert({"a": 1})
        assert db.all() == [{"a": 1}]
    assert documents(tmp_path / "db.json") == [{"a": 1}]


def test_what_json_does_not_know_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    with ours(path) as db:
        db.insert({"a": 1})
        with pytest.raises(TypeError):
            db.insert({"a": object()})
        assert db.all() == [{"a": 1}]
    with ours(path, encoding="latin-1", ensure_ascii=False) as db:
        with pytest.raises(UnicodeEncodeError):
            db.insert({"a": "世界"})
        assert db.all() == [{"a": 1}]


def test_a_change_on_an_outdated_base_is_refused(tmp_path: Path) -> None:
    """Somebody else's change between our reading and our writing is not overwritten."""
    path = tmp_path / "db.json"
    with ours(path) as db, ours(path) as other:
        db.insert({"value": 1})

        def change(document: Any) -> None:
            document["value"] += 1
            if other.count(where("value") == 1):
                other.update({"value": 10})

        with pytest.raises(ConflictError, match=r"changed it since it was read.* repeat"):
            db.update(change)
        assert documents(path) == [{"value": 10}]
        db.update(change)
        assert documents(path) == [{"value": 11}]


def test_a_cache_on_an_outdated_base_is_refused(tmp_path: Path) -> None:
    """What a middleware has kept for long does not overwrite what others did meanwhile."""
    path = tmp_path / "db.json"
    cached = TinyDB(path, storage=CachingMiddleware(AtomicJSONStorage))  # type: ignore[no-untyped-call]
    cached.insert({"by": "cache"})
    with ours(path) as other:
        other.insert({"by": "other"})
    with pytest.raises(ConflictError):
        cached.close()
    assert documents(path) == [{"by": "other"}]


@pytest.mark.parametrize("storage", [JSONStorage, AtomicJSONStorage])
def test_a_document_that_another_added_is_not_overwritten(tmp_path: Path, storage: Any) -> None:
    """TinyDB takes the ids that were free when it first looked, and would overwrite with
    `insert_multiple` what another process has added since.
    """
    path = tmp_path / "db.json"
    with ours(path) as db, TinyDB(path, storage=storage) as other:
        db.insert({"by": "us"})
        other.insert({"by": "other"})
        other.table("else").insert({"by": "other"})
        with pytest.raises(ConflictError, match=r"document 2 of table '_default'.*open the file"):
            db.insert_multiple([{"by": "us"}])
        assert documents(path) == [{"by": "us"}, {"by": "other"}]
    with ours(path) as db:
        db.insert_multiple([{"by": "us"}])
    assert documents(path) == [{"by": "us"}, {"by": "other"}, {"by": "us"}]


def test_what_another_added_can_be_changed(tmp_path: Path) -> None:
    """By all that changes documents in their place, and again and again; and be removed."""
    path = tmp_path / "db.json"
    with ours(path) as db, ours(path) as other:
        db.insert({"by": "us"})
        other.insert_multiple([{"by": "other"}] * 3)
        db.update({"seen": 1}, where("by") == "other")
        db.update({"seen": 2}, where("by") == "other")
        db.upsert(Document({"seen": 3}, 2))
        db.remove(doc_ids=[3])
        assert db.insert(Document({"by": "us"}, 9)) == 9
        assert [document.get("seen") for document in db.all()] == [None, 3, 2, None]
        other.drop_tables()
        assert db.all() == []
        db.insert({"by": "us"})


def test_dropping_all_needs_no_base(tmp_path: Path) -> None:
    """Whoever drops all tables means whatever is in them."""
    path = tmp_path / "db.json"
    with ours(path) as db, ours(path) as other:
        db.insert({"by": "us"})
        other.insert({"by": "other"})
        db.drop_tables()
        assert path.read_bytes() == b"{}"


def test_exclusive_keeps_others_out(tmp_path: Path, start: Start) -> None:
    """From opening to closing; others wait, and are told for whom if it takes too long."""
    path = tmp_path / "db.json"
    holder = start("hold", path, "ours")
    holder.hear()
    with pytest.raises(StoreLockedError) as caught:
        ours(path, exclusive=True, lock_timeout=0.02)
    assert caught.value.holder == holder.pid
    with ours(path, lock_timeout=0.02) as db:
        with pytest.raises(StoreLockedError):
            db.insert({"by": "us"})
        assert db.all() == []  # reading needs no lock
        holder.go_on()
        holder.hear()
        assert db.all() == [{"by": "actor"}]


def test_exclusive_is_not_for_a_forked_child(tmp_path: Path) -> None:
    """A child can neither write under its parent's lock nor give that back."""
    path = tmp_path / "db.json"
    with ours(path, exclusive=True) as db:
        child = os.fork()
        if child == 0:
            try:
                db.insert({"by": "child"})
            except ValueError as error:
                db.close()
                os._exit(0 if "before a fork" in str(error) else 2)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        with ours(path, lock_timeout=0.02) as other, pytest.raises(StoreLockedError):
            other.insert({"by": "other"})
        db.insert({"by": "parent"})
    assert documents(path) == [{"by": "parent"}]


def test_racing_for_changes(tmp_path: Path) -> None:
    """Threads that repeat what was refused lose nothing of each other."""
    path = tmp_path / "db.json"
    with ours(path) as db:
        db.insert({"value": 0})

    def add() -> None:
        with ours(path) as db:
            for _ in range(25):
                while True:
                    try:
                        db.update(lambda document: document.update(value=document["value"] + 1))
                    except ConflictError:
                        continue
                    break

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert documents(path) == [{"value": 100}]


@pytest.mark.parametrize("storage", ["ours", "ours-async"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, start: Start, storage: str) -> None:
    """A real limit on the size of files: all that was acknowledged is there, and it goes on when
    there is room.
    """
    path = tmp_path / "db.json"
    actor = start("fill", path, storage)
    acknowledged = int(actor.hear())
    assert actor.hear() == "File too large"
    assert len(documents(path)) == acknowledged > 5
    assert list(tmp_path.iterdir()) == [path]
    with ours(path) as db:
        db.insert({"a": 1})
    assert len(documents(path)) == acknowledged + 1


def kills(path: Path, start: Start, storage: str, rounds: int) -> None:
    seed = os.environ.get("STOREBRIDGE_SEED", "1")
    print(f"again with STOREBRIDGE_SEED={seed}")
    moments = random.Random(seed)
    for _ in range(rounds):
        actor = start("insert", path, storage)
        for _ in range(moments.randrange(1, 15)):
            last = actor.hear()
        time.sleep(moments.uniform(0, 0.01))
        last = [last, *actor.kill().split()][-1]
        numbers = [document["number"] for document in documents(path)]
        assert numbers[-1] in (int(last), int(last) + 1)
        assert len(numbers) <= 4
    with ours(path) as db:
        db.truncate()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("storage", ["ours", "ours-async"])
def test_kill_at_any_moment(tmp_path: Path, start: Start, storage: str) -> None:
    """Killed at random moments, the file is whole and has all that was acknowledged, and the next
    process goes on without waiting.
    """
    kills(tmp_path / "db.json", start, storage, rounds=5)


@pytest.mark.attack
@pytest.mark.timeout(600)
@pytest.mark.parametrize("storage", ["ours", "ours-async"])
def test_many_kills(tmp_path: Path, start: Start, storage: str) -> None:
    """As above."""
    kills(tmp_path / "db.json", start, storage, rounds=50)


def test_no_reader_sees_a_torn_file(tmp_path: Path, start: Start) -> None:
    """Whatever reads the file while two processes change it, each in its way, finds JSON."""
    path = tmp_path / "db.json"
    ours(path).close()
    writers = [start("insert", path, "ours-async"), start("insert", path, "ours-async")]
    seen: set[int] = set()
    for writer in writers:
        writer.hear()
    while len(seen) < 40:
        seen.add(documents(path)[-1]["number"])
    assert all(writer.popen.poll() is None for writer in writers)


def test_the_package_needs_no_tinydb() -> None:
    """`import storebridge_tinydb` imports neither TinyDB nor asyncio."""
    code = (
        "import sys, storebridge_tinydb; print({'tinydb', 'aiotinydb', 'asyncio'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout == "set()\n"
