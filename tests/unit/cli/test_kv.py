"""`storebridge kv …`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from storebridge import Job, JobStore, KeyValueStore, Owner, open_database
from storebridge.testing.stores.base import edit_body

Run = Callable[..., Result]
ELSEWHERE = Owner(node_id="pi7", pid=12, boot_id="another boot", started="0")


@pytest.fixture(params=["sqlite", "lmdb"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    location = f"{request.param}://{tmp_path}/device"
    with open_database(location) as database:
        JobStore(database).create(Job(id="j"))
        store = KeyValueStore(database, "calibrations")
        store["pump-1"] = {"b": 1.5, "a": [None, "é"]}
        store["pump-2"] = "a text\twith a tab"
        store[17] = (1, b"\0")
        store["17"] = "text"
        store["led", "red"] = True
        store.set("session", 1, expires_in=3600)
        KeyValueStore(database, "leds", lifetime="boot")["red"] = 0.5
        store.lock("pump-1", ELSEWHERE).acquire()
        store.lock("pump-2").acquire()
    return location


def lines(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_list(location: str, run: Run) -> None:
    shown = run("kv", "list", "-l", location)
    assert shown.stdout == "calibrations\tpersistent\t6\t2\nleds\tboot\t1\t0\n"
    (document,) = lines(run("kv", "list", "--json", JOB_STORE_PATH=location))
    assert document["stores"] == [
        {"store": "calibrations", "lifetime": "persistent", "keys": 6, "locks": 2},
        {"store": "leds", "lifetime": "boot", "keys": 1, "locks": 0},
    ]


def test_view(location: str, run: Run, fingerprint: Any) -> None:
    before = fingerprint(Path(location.partition("://")[2]).parent)
    where = ("-l", location)
    shown = [
        row.split("\t")[:2] for row in run("kv", "view", "calibrations", *where).stdout.splitlines()
    ]
    assert sorted(shown) == [
        ["17", '"text"'],
        ["17", '{"$tuple":[1,{"$bytes":"AA=="}]}'],
        ['["led", "red"]', "true"],
        ["pump-1", '{"b":1.5,"a":[null,"é"]}'],
        ["pump-2", '"a text\\twith a tab"'],
        ["session", "1"],
    ]
    entries = lines(run("kv", "view", "calibrations", "--json", "--prefix", "pump", *where))
    assert [(e["key"], e["revision"], e["expires_at"]) for e in entries] == [
        ("pump-1", 1, None),
        ("pump-2", 1, None),
    ]
    assert entries[0]["value"] == {"b": 1.5, "a": [None, "é"]}
    within = ("--json-key", "--prefix", '["led"]')
    assert [
        e["key"] for e in lines(run("kv", "view", "calibrations", "--json", *within, *where))
    ] == [["led", "red"]]
    locks = lines(run("kv", "view", "calibrations", "--locks", "--json", *where))
    assert [(lock["key"], lock["token"]) for lock in locks] == [("pump-1", 1), ("pump-2", 1)]
    assert locks[0]["owner"] == "process 12 of node pi7"
    assert run("kv", "view", "leds", "--locks", *where).stdout == ""
    assert fingerprint(Path(location.partition("://")[2]).parent) == before


def test_get(location: str, run: Run) -> None:
    where = ("-l", location)
    assert run("kv", "get", "calibrations", "pump-2", *where).stdout == "a text\twith a tab\n"
    (value,) = lines(run("kv", "get", "calibrations", "pump-2", "--json", *where))
    assert value == "a text\twith a tab"
    assert run("kv", "get", "calibrations", "17", *where).stdout == "text\n"
    by_number = run("kv", "get", "calibrations", "17", "--json-key", *where)
    assert by_number.stdout == '{"$tuple":[1,{"$bytes":"AA=="}]}\n'
    assert (
        run("kv", "get", "calibrations", '["led", "red"]', "--json-key", *where).stdout == "true\n"
    )
    missing = run("kv", "get", "calibrations", "pump-3", *where)
    assert (missing.exit_code, missing.stderr) == (
        1,
        "storebridge: calibrations has no key 'pump-3'\n",
    )
    for key in ("[", "1.5", "true", "[[1]]", "{}"):
        assert run("kv", "get", "calibrations", key, "--json-key", *where).exit_code == 2


def test_set(location: str, run: Run) -> None:
    where = ("-l", location)
    done = run("kv", "set", "leds", "blue", "0.25", *where)
    assert (done.exit_code, done.stdout) == (0, "blue\t0.25\n")
    for value, text, given in (
        ('{"b":1,"a":{"$bytes":"AA=="}}', (), {"b": 1, "a": b"\0"}),
        ("5", (), 5),
        ("5", ("--text",), "5"),
        ("left vessel", ("--text",), "left vessel"),
    ):
        assert run("kv", "set", "calibrations", "new", value, *text, *where).exit_code == 0
        with open_database(location) as database:
            assert repr(KeyValueStore(database, "calibrations")["new"]) == repr(given)
    (entry,) = lines(
        run(
            "kv",
            "set",
            "leds",
            '["a", 1]',
            "null",
            "--json-key",
            "--expires-in",
            "60",
            "--json",
            *where,
        )
    )
    assert (entry["key"], entry["value"]) == (["a", 1], None)
    assert entry["expires_at"].endswith("Z")
    taken = run("kv", "set", "leds", "blue", "1", "--if-absent", *where)
    assert (taken.exit_code, "already" in taken.stderr) == (1, True)
    assert run("kv", "set", "leds", "green", "1", "--if-absent", *where).exit_code == 0
    for arguments in (
        ("leds", "red", "left vessel"),
        ("leds", "red", '{"$none": 1}'),
        ("leds", "", "1"),
        ("leds", "red", "1", "--expires-in", "0"),
        ("new-store", "red", "1"),
        ("job", "red", "1"),
    ):
        refused = run("kv", "set", *arguments, *where)
        assert refused.exit_code == 2, arguments
        assert len(refused.stderr.splitlines()) == 1
    assert run("kv", "get", "leds", "red", *where).stdout == "0.5\n"


def test_clear(location: str, run: Run) -> None:
    where = ("-l", location)
    refused = run("kv", "clear", "calibrations", "--key", "session", "--key", "nope", *where)
    assert refused.exit_code == 1
    assert run("kv", "get", "calibrations", "session", *where).exit_code == 0
    done = run("kv", "clear", "calibrations", "--key", "session", "--key", "17", *where)
    assert done.stdout == "calibrations\t2 removed\n"
    assert run("kv", "get", "calibrations", "17", "--json-key", *where).exit_code == 0
    (told,) = lines(run("kv", "clear", "calibrations", "--prefix", "pump", "--json", *where))
    assert told == {"store": "calibrations", "removed": 2}
    assert run("kv", "clear", "calibrations", "--all", "--yes", *where).stdout.endswith(
        "2 removed\n"
    )
    assert run("kv", "view", "calibrations", *where).stdout == ""
    freed = run("kv", "clear", "calibrations", "--lock", "pump-1", *where)
    assert freed.stdout == "calibrations\tpump-1 is free\n"
    for key, why in (("pump-1", "is free"), ("pump-9", "was never taken")):
        refused = run("kv", "clear", "calibrations", "--lock", key, *where)
        assert refused.exit_code == 1
        assert refused.stderr == f"storebridge: calibrations: the lock of '{key}' {why}\n"
    for wrong in ((), ("--all", "--key", "a"), ("--prefix", "a", "--lock", "b")):
        assert run("kv", "clear", "calibrations", *wrong, *where).exit_code == 2
    assert run("check", location).exit_code == 0


def test_clear_what_cannot_be_read(location: str, run: Run) -> None:
    """It stays, and is not counted, unless it is asked for."""
    where = ("-l", location)
    with open_database(location) as database:
        store = KeyValueStore(database, "calibrations")
        edit_body(store._records, "session", lambda body: b"{")
        readable = sum(1 for _ in store.items())
    done = run("kv", "clear", "calibrations", "--all", *where)
    assert done.stdout == f"calibrations\t{readable} removed\n"
    assert "session" in run("kv", "view", "calibrations", *where).stderr
    (told,) = lines(run("kv", "clear", "calibrations", "--unreadable", "--json", *where))
    assert told == {"store": "calibrations", "removed": 1}
    assert run("check", location).exit_code == 0


def test_no_store_at_all(run: Run, tmp_path: Path) -> None:
    open_database(tmp_path / "empty.db").close()
    refused = run("kv", "view", "settings", "-l", str(tmp_path / "empty.db"))
    assert (refused.exit_code, refused.stderr.endswith("there is none\n")) == (2, True)


def test_the_environments_databases(location: str, run: Run, tmp_path: Path) -> None:
    """A store is found in whichever of the two databases has it; none is made."""
    other = tmp_path / "other.db"
    open_database(other).close()
    named = {"JOB_STORE_PATH": str(other), "EXECUTION_STORE_PATH": location}
    assert run("kv", "get", "leds", "red", **named).stdout == "0.5\n"
    assert len(run("kv", "list", **named).stdout.splitlines()) == 2
    missing = run("kv", "view", "nothing", **named)
    assert (missing.exit_code, "calibrations, leds" in missing.stderr) == (2, True)
    assert run("kv", "view", "leds", "-l", str(tmp_path / "none.db")).exit_code == 2
    assert not (tmp_path / "none.db").exists()
