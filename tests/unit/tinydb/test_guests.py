"""TinyDB and aiotinydb themselves, on our file."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiotinydb.database import AIOTinyDB
from storebridge_tinydb import backend
from storebridge_tinydb.driver import TinyDriver
from tinydb import TinyDB, where

from storebridge import (
    CorruptStoreError,
    Database,
    Execution,
    ExecutionStore,
    Job,
    JobStore,
    StorageError,
    StoreLockedError,
    meta,
    open_database,
    to_json,
)
from storebridge.check import check, repair
from storebridge.driver import Options

SPEC = to_json({"é😀\u2028": [1e16, -0.0, 2**63 - 1, {"a\\": "\x7f"}], "args": ["x"] * 3})


@pytest.fixture
def kept(path: Path) -> dict[str, bytes]:
    """A closed database with jobs and executions, and every body in it."""
    with open_database(f"tinydb://{path}") as database:
        jobs, executions = JobStore(database), ExecutionStore(database)
        for number in range(5):
            jobs.create(Job(id=f"j-{number}", labels={"zone": "é"}, spec=SPEC))
            executions.create(Execution(id=f"e-{number}", job_id=f"j-{number}"))
        jobs.set_state("j-1", "Running")
        return bodies_of(database)


def bodies_of(database: Database) -> dict[str, bytes]:
    """Every body, by table and key."""
    return {
        f"{table.name} {key}": body
        for table in database.tables()
        for key, body in database.rows(table.name)
        if "opener" not in str(key)
    }


def bodies_at(path: Path) -> dict[str, bytes]:
    with open_database(f"tinydb://{path}", read_only=True) as database:
        return bodies_of(database)


def problems_at(path: Path) -> list[str]:
    with open_database(f"tinydb://{path}", read_only=True) as database:
        return [fault.problem for fault in check(database)]


def test_tinydb_finds_everything(path: Path, kept: dict[str, bytes]) -> None:
    """A table per table, documents with integer ids, our key and the record in them."""
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with TinyDB(path, access_mode="r") as db:
        assert {"job", "job-history", "execution", "storebridge", "storebridge-meta"} < db.tables()
        assert all(db.table(name).all() for name in ("job", "job-history", "execution"))
        (found,) = db.table("job").search(where("body").state == "Running")
        assert (found["id"], found["state"], found["body"]["spec"]) == (
            "j-1",
            "Running",
            json.loads(bytes(SPEC)),
        )
        assert type(found.doc_id) is int
        assert db.table("job").get(doc_id=found.doc_id) == found
        assert len(db.table("execution")) == 5


def test_aiotinydb_finds_everything(path: Path, kept: dict[str, bytes]) -> None:
    async def look() -> None:
        async with AIOTinyDB(str(path)) as db:
            assert len(db.table("job").search(where("state") == "Pending")) == 4

    asyncio.run(look())
    assert bodies_at(path) == kept


def test_what_tinydb_wrote_opens_again(path: Path, kept: dict[str, bytes]) -> None:
    """TinyDB writes the file anew in its own style. Every body of ours is as it was, byte for byte,
    what it changed and took out is changed and out, what others keep in the file stays."""
    with TinyDB(path) as db:
        db.table("other").insert({"mine": 1})
        db.insert({"mine": 2})
        db.table("job").update({"note": "mine"}, where("id") == "j-2")
    assert bodies_at(path) == kept
    assert problems_at(path) == []
    with TinyDB(path) as db:
        job = db.table("job").get(where("id") == "j-0")
        assert isinstance(job, dict)
        body = {**job["body"], "message": "edited"}
        db.table("job").update({"body": body}, where("id") == "j-0")
        db.table("execution").remove(where("id") == "e-3")
    with open_database(f"tinydb://{path}") as database:
        found = bodies_of(database)
        assert {key for key in kept if found.get(key) != kept[key]} == {
            "job ('j-0',)",
            "execution ('e-3',)",
        }
        jobs = JobStore(database)
        assert jobs.get("j-0").message == "edited"
        jobs.set_state("j-2", "Running")  # and all is written
    with TinyDB(path) as db:
        assert db.table("other").all() == db.table("other").search(where("mine") == 1) != []
        assert db.all() == db.search(where("mine") == 2) != []
        changed = db.table("job").get(where("id") == "j-2")
        assert isinstance(changed, dict)
        assert (changed["note"], changed["body"]["state"]) == ("mine", "Running")


def test_columns_that_were_edited_are_mended(path: Path, kept: dict[str, bytes]) -> None:
    """The body is the truth: `check` tells what disagrees with it, `repair` makes it agree."""
    with TinyDB(path) as db:
        db.table("job").update({"state": "Failed", "created_at": "then"}, where("id") == "j-0")
        execution = db.table("execution").get(where("id") == "e-0")
        assert isinstance(execution, dict)
        document = {"id": "e-9", "body": {**execution["body"], "id": "e-9"}}
        db.table("execution").insert(document)
        db.table("execution").remove(where("id") == "e-1")
    assert problems_at(path) != []
    with open_database(f"tinydb://{path}") as database:
        assert repair(database).faults
        assert list(check(database)) == []
        assert {job.id for job in JobStore(database).find(state="Pending")} == {
            "j-0",
            "j-2",
            "j-3",
            "j-4",
        }
        assert ExecutionStore(database).get("e-9").job_id == "j-0"
    assert problems_at(path) == []


STRANGERS: dict[str, dict[str, Any]] = {
    "no key": {"hello": 1},
    "not of JSON": {"hello": float("nan")},
    "half a character": {"hello": "\ud800"},
    "a key of another kind": {"id": 1, "body": {}},
    "a key that is taken": {"id": "j-0", "body": {"mine": True}},
}


@pytest.mark.parametrize("document", STRANGERS.values(), ids=list(STRANGERS))
def test_documents_that_are_no_entries(
    path: Path, kept: dict[str, bytes], document: dict[str, Any]
) -> None:
    """They are reported, disturb nobody, and are still there when we have written the file."""
    with TinyDB(path) as db:
        number = db.table("job").insert(document)
    with open_database(f"tinydb://{path}") as database:
        (fault,) = check(database)
        assert fault.problem.startswith(f"table job: document {number} is no entry: ")
        assert bodies_of(database) == kept
        new = JobStore(database).create(Job())
    with TinyDB(path, access_mode="r") as db:
        found = db.table("job").get(doc_id=number)
        assert json.dumps(found) == json.dumps(document)
        (ours,) = db.table("job").search(where("id") == new.id)
        assert ours.doc_id != number


def test_what_is_no_table_stays(path: Path, kept: dict[str, bytes]) -> None:
    """Other things that somebody has put into the file, in whatever form; documents without a
    number, too. In the place of a table of ours that is damage."""
    content = json.loads(path.read_bytes())
    others = {"a": 1, "b": [1, {"c": None}], "d": {"e": 5, "007": {}}}
    path.write_text(json.dumps({**others, **content}, indent=1))
    with open_database(f"tinydb://{path}") as database:
        assert {fault.problem for fault in check(database)} == {
            "a: not a table of documents",
            "b: not a table of documents",
        }
        JobStore(database).create(Job())
    now = json.loads(path.read_bytes())
    assert {name: now[name] for name in others} == others
    content["job"]["x1"] = {"id": "x", "body": {}}
    path.write_text(json.dumps(content))
    assert [problem for problem in problems_at(path) if "x1" in problem] == [
        "table job: document x1 is no entry: its id is not an integer, as TinyDB wants it"
    ]
    content["job"] = []
    path.write_text(json.dumps(content))
    before = path.read_bytes()
    with pytest.raises(CorruptStoreError, match="'job' in the file is not a table"):
        open_database(f"tinydb://{path}")
    assert path.read_bytes() == before


def write_behind_our_back(path: Path) -> bytes:
    with TinyDB(path) as db:
        db.table("other").insert({"mine": 1})
    return path.read_bytes()


def test_changed_while_it_is_open(path: Path, kept: dict[str, bytes]) -> None:
    """The next commit is refused; what the others wrote stays, what was here lies beside it whole;
    and whichever of the two gets the name is opened.
    """
    database = open_database(f"tinydb://{path}")
    jobs = JobStore(database)
    jobs.set_state("j-3", "Running")
    theirs = write_behind_our_back(path)
    for _ in range(2):
        with pytest.raises(StorageError, match="changed by another program while it was open"):
            jobs.set_state("j-4", "Running")
    assert any("changed by another" in fault.problem for fault in check(database))
    ours = bodies_of(database)
    with pytest.raises(StorageError, match="changed by another program"):
        database.close()
    assert path.read_bytes() == theirs
    beside, journal = Path(f"{path}-kept"), Path(f"{path}-journal")
    assert beside.stat().st_mode & 0o777 == 0o600
    for read_only in (False, True):
        with pytest.raises(CorruptStoreError, match="changed by another program, and"):
            open_database(f"tinydb://{path}", read_only=read_only)
    assert path.read_bytes() == theirs
    both = {file: file.read_bytes() for file in (path, beside, journal)}
    journal.unlink()
    assert bodies_at(path) == kept
    for file, content in both.items():
        file.write_bytes(content)
    beside.rename(path)
    assert bodies_at(path) == ours
    with open_database(f"tinydb://{path}") as database:
        assert JobStore(database).get("j-3").state == "Running"
    assert not journal.exists()


def test_removed_while_it_is_open(path: Path, kept: dict[str, bytes]) -> None:
    """Nothing is lost by that, either."""
    database = open_database(f"tinydb://{path}")
    jobs = JobStore(database)
    jobs.set_state("j-3", "Running")
    path.unlink()
    with pytest.raises(StorageError, match=f"what was here is in {path}-kept"):
        jobs.set_state("j-4", "Running")
    ours = bodies_of(database)
    with pytest.raises(StorageError, match="changed by another program"):
        database.close()
    Path(f"{path}-kept").rename(path)
    assert bodies_at(path) == ours


def test_changed_while_nothing_was_written_here(path: Path, kept: dict[str, bytes]) -> None:
    """Then there is nothing to lose here: it is told to open it again, which finds what is new."""
    database = open_database(f"tinydb://{path}")
    theirs = write_behind_our_back(path)
    with pytest.raises(StorageError, match="close it and open it again"):
        JobStore(database).set_state("j-3", "Running")
    database.close()
    assert path.read_bytes() == theirs
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with open_database(f"tinydb://{path}") as database:
        JobStore(database).set_state("j-3", "Running")
    with TinyDB(path, access_mode="r") as db:
        assert db.table("other").all() == [{"mine": 1}]


def test_changed_after_a_crash(path: Path, kept: dict[str, bytes]) -> None:
    """A journal with commits, and a file that is not the one they are of: nothing is guessed.
    With its own file back in place it is read.
    """
    driver = open_bare(path)
    count_up(driver)
    before = path.read_bytes()
    driver.leave()
    write_behind_our_back(path)
    theirs = path.read_bytes()
    with pytest.raises(CorruptStoreError, match="put that back, or move the journal away"):
        open_database(f"tinydb://{path}")
    assert path.read_bytes() == theirs
    path.write_bytes(before)
    assert bodies_at(path) == kept
    path.unlink()
    with pytest.raises(StorageError, match="changed by another program"):
        open_database(f"tinydb://{path}")
    assert [entry.name for entry in path.parent.iterdir()] == [f"{path.name}-journal"]


def open_bare(path: Path, *, read_only: bool = False) -> TinyDriver:
    """A database of stores, without the stores."""
    driver = backend.open(str(path), Options(read_only=read_only))
    driver.create_tables((), meta.LAYOUT)
    return driver


def count_up(driver: TinyDriver) -> None:
    """Commit something."""
    transaction = driver.begin(write=True)
    transaction.tally({"n": 1})
    transaction.commit()


def test_touched_or_copied(path: Path, kept: dict[str, bytes]) -> None:
    """Another time or another inode with the same content is no change."""
    driver = open_bare(path)
    count_up(driver)
    path.touch()
    count_up(driver)
    copy = path.read_bytes()
    path.unlink()
    path.write_bytes(copy)
    count_up(driver)
    assert list(driver.check()) == []
    with pytest.raises(StoreLockedError):
        open_database(f"tinydb://{path}?lock_timeout=0")
    driver.close()
    driver = open_bare(path, read_only=True)
    reader = driver.begin(write=False)
    assert reader.totals("n") == {"n": 3}
    driver.close()


def test_aiotinydb_and_we_exclude_each_other(path: Path, kept: dict[str, bytes]) -> None:
    """While one has the file open the other waits; and then it changes what is there, not a file
    that has lost its name.
    """
    database = open_database(f"tinydb://{path}")
    jobs = JobStore(database)
    waits = threading.Event()

    async def insert() -> None:
        waits.set()
        async with AIOTinyDB(str(path)) as db:
            (found,) = db.table("job").search(where("id") == "j-4")
            assert found["state"] == "Running"
            db.table("other").insert({"mine": 1})
            with pytest.raises(StoreLockedError):
                open_database(f"tinydb://{path}?lock_timeout=0.1")

    other = threading.Thread(target=asyncio.run, args=(insert(),))
    other.start()
    assert waits.wait(10)
    jobs.set_state("j-4", "Running")
    jobs.database.driver.reclaim(lambda: None)  # type: ignore[attr-defined]
    other.join(0.2)
    assert other.is_alive()
    database.close()
    other.join(10)
    assert not other.is_alive()
    assert bodies_at(path)["job ('j-4',)"] != kept["job ('j-4',)"]
    with TinyDB(path, access_mode="r") as db:
        assert db.table("other").all() == [{"mine": 1}]


def readings(path: Path, stop: threading.Event) -> Iterator[dict[str, Any]]:
    while not stop.is_set():
        found = json.loads(path.read_bytes())
        assert isinstance(found, dict)
        yield found


def test_whoever_reads_meanwhile_finds_json(path: Path, kept: dict[str, bytes]) -> None:
    """At any moment, however often it is folded; and what it finds only ever gets newer."""
    stop, failures, seen = threading.Event(), list[BaseException](), list[int]()

    def read() -> None:
        try:
            for content in readings(path, stop):
                seen.append(content["storebridge"]["0"]["body"]["commit"])
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    with open_database(f"tinydb://{path}?durability=off") as database:
        jobs = JobStore(database)
        while len(set(seen)) < 30 and not failures:
            jobs.create(Job(spec=SPEC))
            database.driver.reclaim(lambda: None)  # type: ignore[attr-defined]
    stop.set()
    thread.join()
    assert failures == []
    assert seen == sorted(seen)


def test_read_only_makes_nothing(path: Path, kept: dict[str, bytes]) -> None:
    """Beside other readers, also of a journal that a killed process left: all is read, nothing is
    written, folded or removed."""
    driver = open_bare(path)
    count_up(driver)
    driver.leave()
    before = {entry: entry.read_bytes() for entry in path.parent.iterdir()}
    assert len(before) == 2
    readers = [open_bare(path, read_only=True) for _ in range(2)]
    for reader in readers:
        assert reader.begin(write=False).totals("n") == {"n": 1}
        assert list(reader.check()) == []
        reader.close()
    assert {entry: entry.read_bytes() for entry in path.parent.iterdir()} == before
