"""The driver in memory: what the conformance suite does not ask of every driver."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from storebridge_memory import backend

from storebridge.driver import DriverError, ErrorKind, Field, Options, Range, Table

THING = Table("thing", (Field("id"),))


def test_readers_keep_their_snapshot_and_do_not_wait_for_a_writer() -> None:
    driver = backend.open("memory:", Options())
    driver.create_tables([THING], 1)
    before = driver.begin(False)
    writer = driver.begin(True)
    assert writer.insert("thing", ("a",), (), b"1")
    assert driver.begin(False).get("thing", ("a",)) is None
    writer.commit()
    assert before.get("thing", ("a",)) is None
    assert driver.begin(False).get("thing", ("a",)) == b"1"


def test_readers_in_threads_see_whole_transactions_only() -> None:
    driver = backend.open("memory:", Options())
    driver.create_tables([THING], 1)
    torn: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            count = driver.begin(False).count("thing", Range())
            if count % 10:
                torn.append(count)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for batch in range(100):
        writer = driver.begin(True)
        for number in range(10):
            writer.insert("thing", (f"{number}-{batch}",), (), b"")
        writer.commit()
    done.set()
    for reader in readers:
        reader.join()
    assert torn == []
    assert driver.describe() == {"spaces": 2, "entries": 1001}


def test_a_read_transaction_cannot_change_anything() -> None:
    driver = backend.open("memory:", Options())
    driver.create_tables([THING], 1)
    with pytest.raises(DriverError) as caught:
        driver.begin(False).insert("thing", ("a",), (), b"1")
    assert caught.value.kind is ErrorKind.READ_ONLY
    assert driver.kind(caught.value) is ErrorKind.READ_ONLY
    assert driver.kind(ValueError()) is None


@pytest.mark.parametrize("options", [Options(read_only=True), Options(create=False)])
def test_there_is_nothing_to_read_in_memory_that_nobody_wrote(options: Options) -> None:
    with pytest.raises(DriverError, match="memory:") as caught:
        backend.open("memory:", options)
    assert caught.value.kind is ErrorKind.CONFIGURATION


def test_closing_forgets_the_content() -> None:
    driver = backend.open("memory:", Options())
    driver.create_tables([THING], 1)
    driver.close()
    assert driver.describe() == {"spaces": 0, "entries": 0}
    with pytest.raises(DriverError) as caught:
        driver.begin(False)
    assert caught.value.kind is ErrorKind.CLOSED
    assert list(driver.check()) == []
    assert not backend.recognises(Path("any"), b"")
    assert (driver.holder(), backend.shell("memory:")) == (None, None)
