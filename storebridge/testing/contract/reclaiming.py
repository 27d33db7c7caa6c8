"""`Compactor`: giving free space back to the system."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storebridge.driver import Compactor, Driver, ErrorKind, Options, Range, Reclaimed, Transaction
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import BackendHarness, reading, refused, writing
from storebridge.testing.samples import ENTRY, LAYOUT, TABLES, body_of, entry, values_of
from storebridge.testing.workers import BATCH, worker

ENTRIES = 1500
KEPT = 10
"""One entry in so many stays."""
_ORDERS = (None, "state", "created", "node", "size", "name")
Content = dict[Any, bytes]


class ReclaimingTests(DriverTests):
    """Space comes back, content stays, and nobody beside is disturbed."""

    def test_space_comes_back(self, harness: BackendHarness, driver: Driver) -> None:
        """Once most entries are removed `usage` says so; after `reclaim` the files are smaller by
        most of it. Content, indexes and the engine's own check are as before, and there is nothing
        more to gain.
        """
        compactor = compactor_of(driver)
        content = thin_out(driver, fill(driver))
        before, on_disk = compactor.usage(), _on_disk(harness)
        assert before.free > before.size // 3
        done = compactor.reclaim(_nothing)
        assert done == Reclaimed(before.size, compactor.usage().size)
        assert done.after < done.before // 2
        assert _on_disk(harness) < on_disk // 2
        assert content_of(driver) == content
        again = compactor.reclaim(_nothing)
        assert again.after <= done.after
        assert again.skipped is None
        assert content_of(driver) == content

    def test_life_goes_on(self, harness: BackendHarness) -> None:
        """After `reclaim` entries are written and read as ever, in this opening and in the next."""
        content: Content = {}
        for turn in range(3):
            driver = _open(harness)
            compactor = compactor_of(driver)
            assert content_of(driver) == content
            content |= thin_out(driver, fill(driver, f"a{turn}-"))
            compactor.reclaim(_nothing)
            content |= fill(driver, f"b{turn}-", 50)
            assert content_of(driver) == content
            driver.close()

    def test_others_write_between_steps(self, driver: Driver) -> None:
        """Whenever `reclaim` takes breath nothing is locked: a change can be committed, and is kept
        like any other.
        """
        compactor = compactor_of(driver)
        content = thin_out(driver, fill(driver))
        turns = 0

        def write() -> None:
            nonlocal turns
            turns += 1
            content.update(fill(driver, f"t{turns}-", 3))

        compactor.reclaim(write)
        assert content_of(driver) == content

    def test_readers_see_nothing_of_it(self, driver: Driver) -> None:
        """Readers of other threads come and go meanwhile, and find all of the content at any
        moment; none sees an error.
        """
        compactor = compactor_of(driver)
        content = thin_out(driver, fill(driver))
        with _Readers(driver, content) as readers:
            for turn in range(2):
                readers.await_a_turn_of_each()
                compactor.reclaim(_nothing)
                readers.await_a_turn_of_each()
                content_of(driver)
                thin_out(driver, fill(driver, f"{turn}-"), kept=0)
        assert readers.problems == []

    def test_a_reader_that_stays(self, driver: Driver) -> None:
        """A read transaction that is open all the while goes on to see what it saw, and is not
        waited for without end; after its end everything is given back.
        """
        compactor = compactor_of(driver)
        if driver.traits.readers_block:
            pytest.skip("trait readers_block: True")
        content = thin_out(driver, fill(driver))
        with reading(driver) as reader:
            assert _read(reader) == content
            compactor.reclaim(_nothing)
            assert _read(reader) == content
            content |= fill(driver, "later-", 20)
            assert _read(reader) == {k: v for k, v in content.items() if k[0][0] == "k"}
        compactor.reclaim(_nothing)
        assert compactor.usage().free < compactor.usage().size // 2
        assert content_of(driver) == content

    def test_another_process_has_it_open(self, harness: BackendHarness) -> None:
        """Then space is given back all the same, or that is put off and told why in one line;
        either way what the other process writes, before and after, is there, and once it has closed
        everything is given back.
        """
        harness.require_processes("many")
        driver = _open(harness)
        compactor = compactor_of(driver)
        with worker(harness, "batches", first=0) as writer:
            assert writer.hear() == 0
            content = thin_out(driver, fill(driver))
            before = compactor.usage()
            for _ in range(5):
                done = compactor.reclaim(_nothing)
                assert (done.skipped is None and done.after < before.size) or done.skipped
                assert "\n" not in (done.skipped or "")
                last = writer.hear()
            last = (writer.kill() or [last])[-1]
        assert compactor.reclaim(_nothing).skipped is None
        assert compactor.usage().free < compactor.usage().size // 2
        found = content_of(driver)
        driver.close()
        batches = {key: body for key, body in found.items() if key not in content}
        assert {key: found.get(key) for key in content} == content
        assert len(batches) in ((last + 1) * BATCH, (last + 2) * BATCH)

    def test_reclaiming_read_only(self, harness: BackendHarness) -> None:
        """What is opened for reading is not made smaller; `usage` may be asked, and tells of free
        space unless the driver has given it back when it was closed.
        """
        driver = _open(harness)
        compactor_of(driver)
        content = thin_out(driver, fill(driver, count=300))
        full = _on_disk(harness)
        driver.close()
        driver = harness.open(options=Options(read_only=True))
        driver.create_tables(TABLES, LAYOUT)
        compactor = compactor_of(driver)
        before = _on_disk(harness)
        with refused(ErrorKind.READ_ONLY, driver=driver):
            compactor.reclaim(_nothing)
        assert compactor.usage().free > 0 or before < full // 2
        assert _on_disk(harness) == before
        assert content_of(driver) == content
        driver.close()


class _Readers:
    """Threads that read everything, by one read or in a transaction, again and again."""

    def __init__(self, driver: Driver, content: Content) -> None:
        self.problems: list[str] = []
        self._driver = driver
        self._content = content
        self._stop = threading.Event()
        reads: tuple[Callable[[], None], ...] = (self._get, self._scan)
        self._turns = [threading.Semaphore(0) for _ in reads]
        self._threads = [
            threading.Thread(target=self._run, args=pair)
            for pair in zip(reads, self._turns, strict=True)
        ]

    def __enter__(self) -> _Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def await_a_turn_of_each(self) -> None:
        for turns in self._turns:
            while turns.acquire(blocking=False):
                pass
            assert turns.acquire(timeout=30)

    def _run(self, read: Callable[[], None], turns: threading.Semaphore) -> None:
        try:
            while not self._stop.is_set():
                read()
                turns.release()
        except Exception as error:
            self.problems.append(repr(error))
            turns.release(1000)

    def _get(self) -> None:
        for key, body in list(self._content.items())[::20]:
            transaction = self._driver.begin(write=False, single=True)
            try:
                assert transaction.get(ENTRY.name, key) == body, key
            finally:
                transaction.rollback()

    def _scan(self) -> None:
        with reading(self._driver) as transaction:
            found = _read(transaction)
            assert {key: found.get(key) for key in self._content} == self._content


def compactor_of(driver: Driver) -> Compactor:
    """The driver, if it gives space back."""
    if not isinstance(driver, Compactor):
        pytest.skip("trait Compactor: no")
    return driver


def fill(driver: Driver, prefix: str = "k", count: int = ENTRIES) -> Content:
    """Insert entries with bodies of some hundred bytes; what was inserted."""
    made = {}
    with writing(driver) as transaction:
        for number in range(count):
            key, values = (f"{prefix}{number}",), _values(f"{prefix}{number}", number)
            made[key] = body_of(key, values, "x" * (number % 9 * 100))
            assert transaction.insert(ENTRY.name, key, values, made[key])
    return made


def thin_out(driver: Driver, content: Content, kept: int = KEPT) -> Content:
    """Remove all of these entries but one in so many; what is left of them."""
    left = {key: body for i, (key, body) in enumerate(content.items()) if kept and not i % kept}
    with writing(driver) as transaction:
        for key in content.keys() - left.keys():
            body = transaction.get(ENTRY.name, key)
            assert body is not None
            transaction.remove(ENTRY.name, key, values_of(key, body))
    return left


def content_of(driver: Driver) -> Content:
    """All entries; columns, indexes and the engine's own check must agree with them."""
    with reading(driver) as transaction:
        found = _read(transaction)
        for by in _ORDERS:
            assert transaction.count(ENTRY.name, Range(by)) == len(found), by
        assert list(transaction.faults(ENTRY.name, values_of)) == []
    assert list(driver.check()) == []
    return found


def _read(transaction: Transaction) -> Content:
    rows, position = transaction.scan(ENTRY.name, Range(limit=100_000))
    assert position is None
    return dict(rows)


def _values(name: str, number: int) -> Any:
    return entry(f"s{number % 5}", number, "n", number, "d", name)


def _open(harness: BackendHarness) -> Driver:
    """A driver that gives space back, with the suite's tables; the test closes it."""
    driver = harness.open()
    try:
        compactor_of(driver)
    except BaseException:
        driver.close()
        raise
    driver.create_tables(TABLES, LAYOUT)
    return driver


def _on_disk(harness: BackendHarness) -> int:
    """The bytes of all files in the test's folder."""
    folder = Path(harness.target).parent
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _nothing() -> None:
    """Take no breath."""
