"""Other processes: writers at once, holders of locks, the killed."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from storebridge.driver import Driver, Durability, ErrorKind, Options, Range
from storebridge.testing.contract.base import DriverTests
from storebridge.testing.harness import BackendHarness, attack, kind_of, reading, refused, writing
from storebridge.testing.samples import ENTRY, LAYOUT, LOG, TABLES, values_of
from storebridge.testing.workers import BATCH, worker, write_batch

PROCESSES = 8
SLACK = 2.0
"""Seconds that an answer may come later than the lock_timeout on a busy machine."""


class ProcessTests(DriverTests):
    """What other processes see, and leave behind."""

    def test_eight_processes_number_entries(self, harness: BackendHarness) -> None:
        """Eight processes that write at once to a database that none had made yet: no number is
        drawn twice, none is lost, the counters are exact, and each had its turns. Whoever reads
        meanwhile sees the numbers without a gap: so their order is the order of the commits.
        """
        harness.require_processes("many")
        turns = 25 * attack()
        names = [f"w{number}" for number in range(PROCESSES)]
        with ExitStack() as stack:
            workers = [
                stack.enter_context(worker(harness, "number", name=name, turns=turns))
                for name in names
            ]
            assert [started.hear() for started in workers] == ["ready"] * PROCESSES
            for started in workers:
                started.go()
            driver = _open(harness)
            while any(started.process.poll() is None for started in workers):
                _assert_no_gaps(driver)
                time.sleep(0.01)
            for started in workers:
                started.finish()
        drawn = _assert_no_gaps(driver)
        assert Counter(drawn) == dict.fromkeys(names, turns)
        first_done = max(drawn.index(name) for name in names)
        assert first_done < len(drawn) - turns // 2, "one waited until all others had finished"
        with reading(driver) as transaction:
            assert transaction.totals("worker/") == {f"worker/{name}": turns for name in names}
        driver.close()

    def test_other_processes_see_tables_and_commits(self, harness: BackendHarness) -> None:
        """What another process made and committed, tables too, is seen by one that had the
        database open before.
        """
        harness.require_processes("many")
        driver = harness.open()
        driver.create_tables(TABLES, LAYOUT)
        with worker(harness, "batches", first=0) as writer:
            for turn in range(3):
                assert writer.hear() == turn
                assert _batches(driver) >= turn + 1
        driver.close()

    def test_reading_beside_one_that_comes_and_goes(self, harness: BackendHarness) -> None:
        """Whoever opens to read finds all that was acknowledged, also at the moments at which
        another process is opening the database or, as its last writer, closing it. A reading may
        be overtaken by such a writer, and says so with CONFLICT.
        """
        harness.require_processes("many")
        with worker(harness, "come_and_go", first=0) as writer:
            writer.hear()
            until = time.monotonic() + attack()
            looks = seen = overtaken = 0
            while looks < 20 or time.monotonic() < until:
                looks += 1
                driver = harness.open(options=Options(read_only=True))
                try:
                    driver.create_tables(TABLES, LAYOUT)
                    batches = _counted(driver)
                except Exception as error:
                    if kind_of(error, driver) is not ErrorKind.CONFLICT:
                        raise
                    overtaken += 1
                else:
                    assert batches >= max(seen, 1)
                    seen = batches
                finally:
                    driver.close()
            said = writer.kill()
        assert seen > 1, f"{overtaken} of {looks} readings were overtaken"
        driver = _open(harness)
        assert _batches(driver) >= max(seen, len(said))
        driver.close()

    def test_waiting_for_the_writers_lock(self, harness: BackendHarness) -> None:
        """A writer that cannot have the lock within lock_timeout (of the database, or of what the
        holder has changed) gets LOCKED, no sooner and not much later, and the holder's pid is
        known; readers go on; a freed lock is had at once.
        """
        harness.require_processes("many")
        driver = harness.open(options=Options(durability="off", lock_timeout=0.3))
        driver.create_tables(TABLES, LAYOUT)
        assert driver.holder() is None
        with worker(harness, "hold") as holder:
            pid = holder.hear()
            begun = time.monotonic()
            with refused(ErrorKind.LOCKED, driver=driver), writing(driver) as transaction:
                write_batch(transaction, 1)
            assert 0.25 <= time.monotonic() - begun < 0.3 + SLACK
            if sys.platform == "linux":
                assert driver.holder() == pid
            assert _batches(driver) == 0
            holder.go()
            holder.finish()
        assert driver.holder() is None
        with writing(driver) as transaction:
            write_batch(transaction, 1)
        driver.close()

    def test_a_waiting_writer_gets_the_lock(self, harness: BackendHarness) -> None:
        """A writer that waits has the lock soon after it is given back, well within its
        lock_timeout.
        """
        harness.require_processes("many")
        driver = harness.open(options=Options(durability="off", lock_timeout=30.0))
        driver.create_tables(TABLES, LAYOUT)
        with worker(harness, "hold") as holder:
            holder.hear()
            holder.go()
            begun = time.monotonic()
            driver.begin(write=True).rollback()
            assert time.monotonic() - begun < SLACK
        driver.close()

    def test_one_process_only(self, harness: BackendHarness) -> None:
        """Where an engine serves one process, a second one's open is LOCKED within lock_timeout
        and names the holder; afterwards it can open.
        """
        harness.require_processes("one")
        harness.require_persistent()
        with worker(harness, "keep_open") as holder:
            pid = holder.hear()
            with worker(harness, "try_open", lock_timeout=0.3) as second:
                said = second.hear()
            assert said["kind"] == ErrorKind.LOCKED.value
            assert said["holder"] == pid or sys.platform != "linux"
            assert 0.25 <= said["seconds"] < 0.3 + SLACK
            holder.go()
            holder.finish()
        with worker(harness, "try_open") as second:
            assert second.hear()["kind"] == "opened"

    @pytest.mark.parametrize("durability", ["full", "relaxed"])
    def test_killed_after_acknowledging(
        self, harness: BackendHarness, durability: Durability
    ) -> None:
        """A writer killed at any moment: what it acknowledged is there, what it had not is whole
        or not at all, and the next writer need not wait.
        """
        harness.require_persistent()
        chance = random.Random(os.environ.get("STOREBRIDGE_SEED", durability))
        done = 0
        for _ in range(3 * attack()):
            with worker(harness, "batches", first=done, durability=durability) as writer:
                acknowledged = [writer.hear() for _ in range(chance.randint(1, 8))][-1]
                time.sleep(chance.random() * 0.01)
                acknowledged = (writer.kill() or [acknowledged])[-1]
            driver = _open(harness)
            kept = _batches(driver)
            assert kept in (acknowledged + 1, acknowledged + 2)
            with writing(driver) as transaction:
                write_batch(transaction, kept)
            done = kept + 1
            driver.close()

    def test_killed_inside_a_transaction(self, harness: BackendHarness) -> None:
        """A writer killed inside a transaction leaves nothing of it, and frees its lock, also for
        a process that has the database open.
        """
        harness.require_persistent()
        driver = _open(harness)
        with writing(driver) as transaction:
            write_batch(transaction, 99)
        beside = driver.traits.processes == "many"
        if not beside:
            driver.close()
        for turn in range(2):
            with worker(harness, "hold") as holder:
                holder.hear()
                holder.kill()
            if not beside:
                driver = _open(harness)
            assert _batches(driver) == turn + 1
            with writing(driver) as transaction:
                write_batch(transaction, turn + 1)
            if not beside:
                driver.close()
        if beside:
            driver.close()


def _open(harness: BackendHarness) -> Driver:
    driver = harness.open(options=Options(durability="off", lock_timeout=30.0))
    driver.create_tables(TABLES, LAYOUT)
    return driver


def _assert_no_gaps(driver: Driver) -> list[str]:
    """The workers in the order of the numbers they drew."""
    with reading(driver) as transaction:
        total = transaction.totals("sequence").get("sequence", 0)
        rows, _ = transaction.scan(LOG.name, Range(limit=total + 1))
        assert [key for key, _ in rows] == [(number,) for number in range(1, total + 1)]
        indexed, _ = transaction.scan(LOG.name, Range("worker", limit=total + 1))
        names = []
        for name in sorted({f"w{number}" for number in range(PROCESSES)}):
            count = transaction.count(LOG.name, Range("worker", (name,)))
            names += [name] * count
    drawn = {key: name for (key, _), name in zip(indexed, names, strict=True)}
    return [drawn[key] for key in sorted(drawn)]


def _counted(driver: Driver) -> int:
    """How many batches there are, counted in one transaction in two ways."""
    with reading(driver) as transaction:
        numbers = transaction.totals("")
        assert transaction.count(ENTRY.name, Range("state")) == numbers["entries"]
    return numbers["batches"]


def _batches(driver: Driver) -> int:
    """How many batches are there, each of them whole, and indexes, numbers and file sound."""
    with reading(driver) as transaction:
        numbers = transaction.totals("")
        kept = numbers.get("batches", 0)
        assert numbers.get("entries", 0) == kept * BATCH
        for by in (None, "state", "created", "node", "size", "name"):
            assert transaction.count(ENTRY.name, Range(by)) == kept * BATCH
        rows, _ = transaction.scan(ENTRY.name, Range(limit=kept * BATCH + 1))
        whole = Counter(str(key[0]).split("-")[0] for key, _ in rows)
        assert set(whole.values()) <= {BATCH}
        assert len(whole) == kept
        assert list(transaction.faults(ENTRY.name, values_of)) == []
    assert list(driver.check()) == []
    return kept
