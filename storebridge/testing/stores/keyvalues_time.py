"""Key-value stores: keys that expire, and keys that last as long as the machine is up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from storebridge import Database, InvalidRecordError, KeyNotFoundError, KeyValueStore, keyreading
from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.base import START, StoreTests, all_rows, assert_sound, open_at
from storebridge.testing.stores.keyvalues import NAME


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def go_on(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class KeyValueTimeTests(StoreTests):
    """Time is that of the database's clock, and of the boot."""

    @pytest.fixture
    def hand(self) -> Hand:
        return Hand()

    @pytest.fixture
    def timed(self, harness: BackendHarness, hand: Hand) -> Iterator[KeyValueStore]:
        with open_at(harness, clock=hand) as database:
            yield KeyValueStore(database, NAME)

    def test_expired_is_absent(self, timed: KeyValueStore, hand: Hand) -> None:
        """From the moment that it expires a key is absent for every way to ask, and can be set as
        if it had never been.
        """
        for key in ("a", "b", "c", "d", "e", "f"):
            timed.set(key, 1, expires_in=10)
        timed["stays"] = 1
        hand.go_on(9.999999)
        assert len(timed) == 7
        assert timed["a"] == 1
        hand.go_on(0.000001)
        assert timed == {"stays": 1}
        assert (len(timed), list(timed), "a" in timed) == (1, ["stays"], False)
        assert list(timed.keys(prefix="a")) == []
        assert timed.get("a", "default") == "default"
        for call in (partial(timed.pop, "a"), partial(timed.entry, "a")):
            with pytest.raises(KeyNotFoundError):
                call()
        with pytest.raises(KeyNotFoundError):
            del timed["a"]
        assert not timed.compare_and_set("b", 1, 2)
        assert timed.set_if_absent("c", 3)
        assert timed.increment("d", 4) == 4
        assert timed.setdefault("e", 5) == 5
        timed["f"] = 6
        assert timed == {"c": 3, "d": 4, "e": 5, "f": 6, "stays": 1}
        assert timed.entry("f").revision == 1
        assert [change.kind for change in timed.history("f")] == ["created", "expired", "created"]
        assert_sound(timed.database)

    def test_when_it_expires(self, timed: KeyValueStore, hand: Hand) -> None:
        """Setting a key says anew whether it expires; counting up does not touch that."""
        timed.set("k", 1, expires_in=timedelta(minutes=1))
        assert timed.entry("k").expires_at == hand.time + timedelta(minutes=1)
        timed.increment("k")
        assert timed.entry("k").expires_at == hand.time + timedelta(minutes=1)
        timed.expire("k", 5)
        assert timed.entry("k").expires_at == hand.time + timedelta(seconds=5)
        assert timed["k"] == 2
        timed.expire("k", None)
        assert timed.entry("k").expires_at is None
        timed.set("k", 1, expires_in=0.5)
        timed["k"] = 2
        hand.go_on(1000)
        assert timed["k"] == 2
        timed.update({"m": 1, "n": 2}, expires_in=1)
        assert timed.set_if_absent("o", 3, expires_in=1)
        assert timed.compare_and_set("o", 3, 4, expires_in=2)
        hand.go_on(1)
        assert timed == {"k": 2, "o": 4}
        for seconds in (0, -1, float("nan"), float("inf"), True, "5", 1e300, timedelta(0)):
            with pytest.raises(InvalidRecordError, match="expires_in"):
                timed.set("k", 3, expires_in=seconds)  # type: ignore[arg-type]
        assert timed["k"] == 2

    def test_purge(self, timed: KeyValueStore, hand: Hand) -> None:
        """Purging removes exactly what has expired, more than a step of it; events tell."""
        timed.update({f"old{number}": number for number in range(1200)}, expires_in=5)
        timed.update({f"new{number}": number for number in range(3)}, expires_in=50)
        timed["stays"] = 1
        hand.go_on(5)
        before = timed.database.sequence()
        assert timed.purge() == 1200
        assert timed.purge() == 0
        assert len(all_rows(timed.database, NAME)) == len(timed) == 4
        told = list(timed.changes(before))
        assert {change.kind for change in told} == {"expired"}
        assert len(told) == 1200
        assert_sound(timed.database)

    def test_garbage_is_bounded(self, timed: KeyValueStore, hand: Hand) -> None:
        """Who only ever adds keys that expire need not purge: adding removes what has expired."""
        for number in range(200):
            timed.set(("session", number), number, expires_in=3)
            hand.go_on(1)
        assert len(timed) == 2
        assert len(all_rows(timed.database, NAME)) < 8

    def test_a_clock_that_jumps(self, timed: KeyValueStore, hand: Hand) -> None:
        """Put back, the clock makes keys last longer by as much; those that were purged, or set
        anew, do not return, and nothing breaks.
        """
        timed.set("purged", 1, expires_in=10)
        timed.set("kept", 1, expires_in=20)
        hand.go_on(15)
        timed.purge()
        hand.go_on(10)
        assert len(timed) == 0
        hand.go_on(-3600)
        assert timed == {"kept": 1}
        timed.set("new", 1, expires_in=10)
        hand.go_on(10)
        assert timed == {"kept": 1}
        timed["kept"] = 2
        hand.go_on(1e9)
        assert timed == {"kept": 2}
        assert_sound(timed.database)

    def test_expired_for_readers(self, harness: BackendHarness, hand: Hand) -> None:
        """What has expired is absent for who may only read, too."""
        harness.require_persistent()
        target = harness.fresh()
        with open_at(harness, target, clock=hand) as database:
            KeyValueStore(database, NAME).set("k", 1, expires_in=5)
        hand.go_on(5)
        with open_at(harness, target, clock=hand, read_only=True) as database:
            store = KeyValueStore(database, NAME)
            assert (len(store), dict(store), store.get("k")) == (0, {}, None)

    def test_gone_with_the_boot(
        self, harness: BackendHarness, hand: Hand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a store of that lifetime nothing of an earlier boot is there: at the first opening it
        is removed, and until then nobody sees it. Other stores keep what they have.
        """
        harness.require_persistent()
        target = harness.fresh()
        for boot in ("b", "a", "c"):
            monkeypatch.setattr(keyreading, "boot_id", lambda boot=boot: f"boot {boot}")
            if boot != "b":
                with open_at(harness, target, clock=hand, read_only=True) as database:
                    leds = KeyValueStore(database, "leds", lifetime="boot")
                    assert (len(leds), dict(leds), "red" in leds) == (0, {}, False)
                    assert len(all_rows(database, "leds")) == 600
            with open_at(harness, target, clock=hand) as database:
                leds, kept = KeyValueStore(database, "leds", lifetime="boot"), _kept(database)
                assert len(leds) == 0
                assert all_rows(database, "leds") == []
                leds.update({f"led{number}": boot for number in range(598)})
                leds["red"] = kept[boot] = True
                leds.set("blink", True, expires_in=5)
                assert len(leds) == 600
                assert_sound(database)
            with open_at(harness, target, clock=hand) as database:
                assert KeyValueStore(database, "leds", lifetime="boot")["red"] is True
        with open_at(harness, target, clock=hand) as database:
            assert _kept(database) == {"a": True, "b": True, "c": True}

    def test_another_boot_meanwhile(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What another boot wrote is absent even if it comes to light later, and is replaced as if
        it were not there.
        """
        here = KeyValueStore(database, "leds", lifetime="boot")
        monkeypatch.setattr(keyreading, "boot_id", lambda: "another boot")
        there = KeyValueStore(database, "leds", lifetime="boot")
        there.update({"red": 1, "blue": 2})
        assert (len(here), dict(here), here.get("red")) == (0, {}, None)
        assert here.set_if_absent("red", 3)
        assert here == {"red": 3}
        assert len(here) == 1
        assert there == {"blue": 2}
        assert here.purge() == 1
        assert_sound(database)


def _kept(database: Database) -> Any:
    return KeyValueStore(database, "kept")
