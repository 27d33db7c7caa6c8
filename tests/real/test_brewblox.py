"""The datastores of brewing controllers, as they were dumped: every document into key-value stores
and out again, equal and in order, on every backend.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storebridge import Database, KeyValueStore, TwinKeyStore, open_database
from storebridge.check import check
from tests.postgres_server import Database as Server
from tests.real.data import real_data

BACKENDS = ("memory", "sqlite", "lmdb", "bolt", "tinydb", "sqlite+pysqlite", "postgresql")
REDIS = ("brewblox-global.redis.json", "brewblox-ui-store.redis.json")
COUCH = "brewblox-ui-store.datastore.json"
SPARKS = ("sparkey.spark.json", "spock.spark.json")


@pytest.fixture(params=BACKENDS)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgresql")
        return f"{server.target()}&durability=off"
    return f"{request.param}://{tmp_path / 'controller'}.db?durability=off"


@pytest.fixture
def database(location: str) -> Iterator[Database]:
    with open_database(location) as opened:
        yield opened


def documents(name: str) -> Any:
    return json.loads(real_data("brewblox", name).read_bytes())


def text(value: Any) -> str:
    """In which 1 and 1.0, and members in another order, differ."""
    return json.dumps(value)


def test_every_dump(database: Database) -> None:
    """All documents of all dumps, one store each: those of Redis by namespace and id, those of
    CouchDB by their id, the blocks of the controllers by theirs; read one by one, by their
    namespace and all at once.
    """
    expected: dict[str, dict[Any, Any]] = {
        "redis": {(d["namespace"], d["id"]): d for name in REDIS for d in documents(name)},
        "couch": {d["_id"]: d for d in documents(COUCH)},
        "blocks": {
            (name, block["id"], block["nid"]): block
            for name in SPARKS
            for block in documents(name)["blocks"]
        },
    }
    assert [len(each) for each in expected.values()] == [39, 30, 39 + 29]
    for name, given in expected.items():
        KeyValueStore(database, name).update(given)
    for name, given in expected.items():
        store = KeyValueStore(database, name)
        assert len(store) == len(given)
        assert store == given
        for key, document in given.items():
            assert text(store[key]) == text(document)
        assert {key: text(value) for key, value in store.items()} == {
            key: text(document) for key, document in given.items()
        }
    redis = KeyValueStore(database, "redis")
    for namespace in {namespace for namespace, _ in expected["redis"]}:
        wanted = {i: d for (n, i), d in expected["redis"].items() if n == namespace}
        assert redis.section(namespace) == redis.sections()[namespace] == wanted
    assert list(check(database)) == []


def test_a_dump_as_one_value(database: Database) -> None:
    """A whole dump is a value like another."""
    store = KeyValueStore(database, "dumps")
    for name in (*REDIS, COUCH, *SPARKS):
        store[name] = documents(name)
    for name in (*REDIS, COUCH, *SPARKS):
        assert text(store[name]) == text(documents(name))


def test_blocks_have_two_keys(database: Database) -> None:
    """A controller's blocks have a number of the firmware's and a name of the user's."""
    for name in SPARKS:
        blocks = documents(name)["blocks"]
        twins = TwinKeyStore(database, name.partition(".")[0])
        with database.transaction():
            for block in blocks:
                twins.add(block["nid"], block["id"], block["type"])
        assert len(twins) == len(blocks)
        for block in blocks:
            assert twins[block["nid"]] == twins[block["id"]]
            assert twins[block["id"]].display_name == block["type"]
        first, second = (block["id"] for block in blocks[:2])
        twins.rename_all({first: second, second: first})
        assert twins[first].key == blocks[1]["nid"]


def test_read_again_from_the_file(location: str) -> None:
    """What was set is there for the next process that opens the file."""
    given = {d["_id"]: d for d in documents(COUCH)}
    with open_database(location) as database:
        persistent = database.driver.traits.persistent
        KeyValueStore(database, "couch").update(given)
    with open_database(location) as database:
        store = KeyValueStore(database, "couch")
        assert {key: text(value) for key, value in store.items()} == (
            {key: text(document) for key, document in given.items()} if persistent else {}
        )
