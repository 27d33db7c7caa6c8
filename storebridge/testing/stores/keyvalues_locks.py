"""Locks: one holds each, and whoever is gone holds none."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    ConflictError,
    Database,
    InvalidRecordError,
    KeyValueStore,
    Owner,
    RecordNotFoundError,
    StoreLockedError,
    TransactionError,
    this_process,
)
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import StoreTests, Ticks, assert_sound, open_at
from storebridge.testing.stores.holders import ended, process
from storebridge.testing.stores.keyvalues_time import Hand
from storebridge.testing.stores.keyvalues_workers import COUNTED, NAME, racer

PROCESSES = 8
ROUNDS = 60
ELSEWHERE = Owner(node_id="elsewhere", pid=1, boot_id="another boot", started="0")


class LockTests(StoreTests):
    """Taking, waiting, losing; and many processes at once."""

    @pytest.fixture
    def gpio(self, database: Database) -> KeyValueStore:
        return KeyValueStore(database, "gpio")

    def test_taking_and_giving_back(self, gpio: KeyValueStore) -> None:
        """A lock is held from when it is taken until it is given back, and can be taken again; each
        time with a greater token. It is nothing that is in the store.
        """
        lock = gpio.lock("pin-17")
        assert (lock.held, lock.token) == (False, None)
        tokens = []
        for _ in range(3):
            with lock as taken:
                assert taken is lock
                assert lock.held
                assert [(held.key, held.owner) for held in gpio.locks()] == [("pin-17", lock.owner)]
                tokens.append(lock.token or 0)
            assert (lock.held, lock.token) == (False, None)
        assert tokens == sorted(set(tokens))
        assert list(gpio.locks()) == []
        gpio["pin-17"] = "a value"
        with gpio.lock("pin-17"), gpio.lock(17), gpio.lock((17,)), gpio.section("a").lock("b"):
            assert gpio == {"pin-17": "a value"}
            assert sorted(repr(held.key) for held in gpio.locks()) == [
                "'pin-17'", "('a', 'b')", "(17,)", "17"
            ]  # fmt: skip
            assert [held.key for held in gpio.section("a").locks()] == ["b"]
        assert_sound(gpio.database)

    def test_one_that_is_held(self, gpio: KeyValueStore) -> None:
        """Who cannot have a lock in time is told so, and by whom it is held."""
        with process() as (owner, living):
            gpio.lock("pin", owner).acquire()
            mine = gpio.lock("pin", this_process(owner.node_id), timeout=0.05)
            began = time.monotonic()
            with pytest.raises(StoreLockedError, match=rf"'pin'.*process {living.pid}") as caught:
                mine.acquire()
            assert caught.value.holder == living.pid
            assert 0.05 <= time.monotonic() - began < 5
            with pytest.raises(StoreLockedError):
                mine.acquire(timeout=0)
            assert not mine.held
        assert mine.acquire(timeout=0) == 2
        mine.release()

    def test_threads_wait_for_each_other(self, gpio: KeyValueStore) -> None:
        """Threads of one process exclude each other; each waits until it has had its turn."""
        inside: list[int] = []
        most: list[int] = []

        def work(number: int) -> None:
            for _ in range(5):
                with gpio.lock("pin", timeout=60):
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(PROCESSES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1] * 5 * PROCESSES

    def test_races_of_threads(self, gpio: KeyValueStore) -> None:
        """Of eight threads that want the same keys, and the same locks, exactly one has each."""
        gpio.lock("made before")
        won: list[tuple[str, int]] = []
        start = threading.Barrier(PROCESSES)

        def work() -> None:
            start.wait()
            for number in range(ROUNDS):
                if gpio.set_if_absent(("key", number), threading.get_ident()):
                    won.append(("key", number))
                with suppress(StoreLockedError):
                    gpio.lock(("lock", number), timeout=0).acquire()
                    won.append(("lock", number))

        threads = [threading.Thread(target=work) for _ in range(PROCESSES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [(kind, n) for kind in ("key", "lock") for n in range(ROUNDS)]
        assert_sound(gpio.database)

    def test_taken_twice(self, gpio: KeyValueStore) -> None:
        """A thread that has a lock is told so at once, rather than waiting for itself."""
        lock = gpio.lock("pin", timeout=60)
        with lock:
            for again in (lock, gpio.lock("pin", timeout=60)):
                with pytest.raises(StoreLockedError, match="wait for itself"):
                    again.acquire()
            assert lock.held
        with gpio.lock("pin"):
            pass

    def test_not_the_holder(self, gpio: KeyValueStore) -> None:
        """Who does not hold a lock cannot give it back or extend it."""
        lock = gpio.lock("pin", lease=5)
        with gpio.lock("pin", this_process("here")) as holder:
            other = gpio.lock("pin", this_process("here"), lease=5)
            for one in (lock, other):
                with pytest.raises(ConflictError, match="not held"):
                    one.release()
                with pytest.raises(ConflictError, match="not held"):
                    one.renew()
            assert holder.held
        with pytest.raises(ConflictError, match="not held"):
            holder.release()
        with gpio.lock("new") as unleased, pytest.raises(InvalidRecordError, match="lease"):
            unleased.renew()
        with pytest.raises(RecordNotFoundError):
            gpio.break_lock("never taken")
        with pytest.raises(ConflictError):
            gpio.break_lock("pin")

    def test_the_dead_hold_nothing(self, gpio: KeyValueStore) -> None:
        """The lock of a process of this node that was killed, or of an earlier boot, is free at
        once, however long its lease; that of a living one is not, though its lease have run out.
        """
        boots = Owner(node_id="here", pid=1, boot_id="an earlier boot", started="0")
        for dead in (ended("here"), boots):
            gpio.lock("pin", dead, lease=1e9).acquire()
            mine = gpio.lock("pin", this_process("here"), timeout=0)
            with mine:
                assert mine.held
        hand = Hand()
        gpio.database.clock, ticks = hand, gpio.database.clock
        with process("here") as (owner, _):
            gpio.lock("pin", owner, lease=1).acquire()
            hand.go_on(3600)
            with pytest.raises(StoreLockedError):
                mine.acquire()
        gpio.database.clock = ticks

    def test_a_lease_is_for_other_machines(self, harness: BackendHarness) -> None:
        """What another machine holds is free when its lease has run out, not before, whatever may
        run here under its number; without a lease only breaking it helps.
        """
        hand = Hand()
        with open_at(harness, harness.fresh(), clock=hand) as database:
            gpio = KeyValueStore(database, "gpio")
            theirs, mine = gpio.lock("pin", ELSEWHERE, lease=10), gpio.lock("pin", timeout=0)
            theirs.acquire()
            hand.go_on(9)
            theirs.renew()
            hand.go_on(9.999)
            with pytest.raises(StoreLockedError, match="elsewhere"):
                mine.acquire()
            assert theirs.held
            hand.go_on(0.001)
            token = mine.acquire()
            assert not theirs.held
            for call in (theirs.renew, theirs.release):
                with pytest.raises(ConflictError, match=r"lost|not held"):
                    call()
            assert mine.held
            assert mine.token == token
            mine.release()
            gpio.lock("pin", ELSEWHERE, timeout=0).acquire()
            hand.go_on(1e9)
            with pytest.raises(StoreLockedError, match="no lease"):
                mine.acquire()
            gpio.break_lock("pin")
            with mine:
                assert mine.held
            assert_sound(database)

    def test_losing_it_is_told(self, gpio: KeyValueStore) -> None:
        """Who lost a lock in the middle learns so at the end, unless something else went wrong."""
        with pytest.raises(ConflictError, match="lost"), gpio.lock("pin"):
            gpio.break_lock("pin")
        with pytest.raises(ZeroDivisionError), gpio.lock("pin"):
            gpio.break_lock("pin")
            raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError), gpio.lock("pin") as lock:
            raise ZeroDivisionError
        assert not lock.held

    def test_renewing_is_no_event(self, gpio: KeyValueStore) -> None:
        """A lease is extended from now, for as long as was said, and that is no event."""
        with gpio.lock("pin", lease=timedelta(seconds=5)) as lock:
            sequence = gpio.database.sequence()
            (before,) = gpio.locks()
            lock.renew()
            lock.renew(60)
            (after,) = gpio.locks()
            assert before.lease_until is not None
            assert after.lease_until is not None
            gained = after.lease_until - before.lease_until
            assert timedelta(seconds=55) < gained < timedelta(seconds=56)
            assert (after.token, after.revision) == (before.token, before.revision)
            assert gpio.database.sequence() == sequence

    def test_in_transactions(self, gpio: KeyValueStore) -> None:
        """A lock cannot be taken in a transaction; whether it is held can be asked there."""
        with gpio.lock("pin") as lock:
            with gpio.database.transaction():
                assert lock.held
                gpio["pin"] = lock.token
                with pytest.raises(TransactionError):
                    gpio.lock("other").acquire()
            assert gpio["pin"] == lock.token

    def test_refused_locks(self, gpio: KeyValueStore) -> None:
        """What makes no sense is refused before anything is taken."""
        wrong: tuple[dict[str, Any], ...] = (
            {"key": 1.5}, {"key": ""}, {"key": "a", "lease": 0}, {"key": "a", "lease": "5"},
            {"key": "a", "timeout": -1}, {"key": "a", "timeout": "5"},
            {"key": "a", "timeout": float("nan")},
        )  # fmt: skip
        for arguments in wrong:
            with pytest.raises(InvalidRecordError):
                gpio.lock(**arguments)
        assert list(gpio.locks()) == []

    def test_races_of_processes(self, harness: BackendHarness) -> None:
        """Eight processes that want the same keys, and the same locks: one has each. Counting up
        loses none.
        """
        race(harness, ROUNDS)

    def test_killing_who_holds_a_lock(self, harness: BackendHarness) -> None:
        """A killed process's lock is free at once for the next, and never for two."""
        harness.require_processes("many")
        with open_at(harness, clock=Ticks()) as database, ExitStack() as stack:
            store = KeyValueStore(database, NAME)
            holder = stack.enter_context(racer(harness, "hold"))
            pid, token = holder.hear()
            with pytest.raises(StoreLockedError, match=str(pid)) as caught:
                store.lock("only", timeout=0).acquire()
            assert caught.value.holder == pid
            holder.kill()
            holder.process.wait()
            assert store.lock("only", timeout=0).acquire() > token

    def test_killing_in_turn(self, harness: BackendHarness, tmp_path: Path) -> None:
        """Processes killed at random moments, holding the lock or waiting for it, leave it to those
        who live; no two are ever inside, and no count is lost or made twice.
        """
        kill_holders(harness, tmp_path / "inside", 2)


def race(harness: BackendHarness, rounds: int) -> None:
    """Let eight processes race, and judge."""
    harness.require_processes("many")
    with open_at(harness, lock_timeout=60.0) as database, ExitStack() as stack:
        store = KeyValueStore(database, NAME)
        store.lock("made before").acquire()
        racers = [
            stack.enter_context(racer(harness, "race", rounds=rounds)) for _ in range(PROCESSES)
        ]
        assert [each.hear() for each in racers] == ["ready"] * PROCESSES
        won: list[dict[int, int]] = []
        for _ in ("keys", "locks"):
            for each in racers:
                each.go()
            had = [(number, each.process.pid) for each in racers for number in each.hear()]
            assert sorted(number for number, _ in had) == list(range(rounds))
            won.append(dict(had))
        assert {n: store["key", n] for n in range(rounds)} == won[0]
        assert store["count"] == PROCESSES * -(-rounds // COUNTED)
        held = {lock.key: lock.owner.pid for lock in store.locks() if lock.owner is not None}
        assert {n: held["lock", n] for n in range(rounds)} == won[1]
        for each in racers:
            each.go()
            each.finish()
        assert_sound(database)


def kill_holders(harness: BackendHarness, inside: Path, kills: int) -> None:
    """Kill processes that enter where one may be at a time, in the middle of it."""
    harness.require_processes("many")
    inside.write_text("")
    with open_at(harness, lock_timeout=60.0) as database, ExitStack() as stack:
        store = KeyValueStore(database, NAME)
        store.lock("only")  # its table is made here, once
        ask: dict[str, Any] = {"file": str(inside), "seed": 0}
        racers = [stack.enter_context(racer(harness, "enter", **ask)) for _ in range(2)]
        said = 0
        for turn in range(kills):
            victim = racers.pop(0)
            said = max(said, victim.hear())
            said = max([said, *victim.kill()])
            ask["seed"] = turn + 1
            racers.append(stack.enter_context(racer(harness, "enter", **ask)))
        for each in racers:
            said = max([said, each.hear(), *each.kill()])
        assert said <= store["total"] <= said + kills + len(racers)
        with store.lock("only", timeout=5):
            assert_sound(database)
