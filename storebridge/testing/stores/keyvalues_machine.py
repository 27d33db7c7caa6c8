"""Thousands of random changes of a key-value store against a plain dict."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storebridge import InvalidRecordError, KeyNotFoundError, KeyValueStore
from storebridge.testing.harness import BackendHarness
from storebridge.testing.randomly import run_randomly
from storebridge.testing.stores.base import StoreTests, assert_sound, open_at
from storebridge.testing.stores.keyvalues import NAME
from storebridge.testing.stores.keyvalues_time import Hand

EXAMPLES = 15
STEPS = 30

keys = st.sampled_from(("a", "ab", "b", "#", 1, -1, "1", ("a",), ("a", 1), (1,), "é"))
numbers = st.sampled_from((0, 1, -1, 0.5, 2**70))
values = numbers | st.sampled_from((None, True, "x", b"x", (1, [2]), {"b": 1, "a": {1: 2}}))
lives = st.sampled_from((None, None, 1, 3.5))
changes = st.one_of(
    st.tuples(st.just("set"), keys, values, lives),
    st.tuples(st.just("set_if_absent"), keys, values, lives),
    st.tuples(st.just("compare_and_set"), keys, values, values, lives),
    st.tuples(st.just("increment"), keys, numbers),
    st.tuples(st.just("setdefault"), keys, values),
    st.tuples(st.just("pop"), keys),
    st.tuples(st.just("expire"), keys, lives),
)

WITH_LIFE = ("set", "set_if_absent", "compare_and_set")


class Thrown(Exception):
    """What a block is left by."""


class Held(NamedTuple):
    """A value as it is to be."""

    value: Any
    until: datetime | None


class KeyValueMachine(RuleBasedStateMachine):
    """A store and its model, side by side; nothing is said of keys that are in neither."""

    def __init__(self, harness: BackendHarness) -> None:
        super().__init__()
        self.harness = harness
        self.target = harness.fresh()
        self.clock = Hand()
        self.model: dict[Any, Held] = {}
        self.open()

    def open(self) -> None:
        self.database = open_at(self.harness, self.target, clock=self.clock)
        self.store = KeyValueStore(self.database, NAME)

    @rule(change=changes)
    def alone(self, change: tuple[Any, ...]) -> None:
        """One change in a transaction of its own."""
        self.change(change)

    @rule(block=st.lists(changes, max_size=5), thrown=st.booleans(), within=st.booleans())
    def block(self, block: list[tuple[Any, ...]], thrown: bool, within: bool) -> None:
        """Changes together, some left by an exception, some in a block within the block."""
        before = dict(self.model)
        try:
            with self.database.transaction():
                if within:
                    self.block(block[:2], thrown=not thrown, within=False)
                for change in block:
                    self.change(change)
                if thrown:
                    raise Thrown
        except Thrown:
            self.model = before

    def change(self, change: tuple[Any, ...]) -> None:
        """One change: both must agree on what it returns."""
        name, key, *arguments = change
        model = getattr(self, name)(key, *arguments)
        call = getattr(self.store, name)
        more: dict[str, Any] = {"expires_in": arguments.pop()} if name in WITH_LIFE else {}
        try:
            told = call(key, *arguments, **more)
        except Exception as error:
            assert type(error) is model, (change, error)  # noqa: PT017 - both are judged
        else:
            assert repr(told) == repr(model), change

    # --- the model: changes it, and says what is due ---

    def until(self, life: float | None) -> datetime | None:
        return None if life is None else self.clock.time + timedelta(seconds=life)

    def held(self, key: Any) -> Held | None:
        held = self.model.get(key)
        return held if held and (held.until is None or held.until > self.clock.time) else None

    def set(self, key: Any, value: Any, life: float | None) -> None:
        self.model[key] = Held(value, self.until(life))

    def set_if_absent(self, key: Any, value: Any, life: float | None) -> bool:
        if self.held(key) is not None:
            return False
        self.set(key, value, life)
        return True

    def compare_and_set(self, key: Any, old: Any, new: Any, life: float | None) -> bool:
        held = self.held(key)
        if held is None or repr(held.value) != repr(old):
            return False
        self.set(key, new, life)
        return True

    def increment(self, key: Any, by: float) -> Any:
        held = self.held(key) or Held(0, None)
        if type(held.value) not in (int, float):
            return InvalidRecordError
        self.model[key] = Held(held.value + by, held.until)
        return self.model[key].value

    def setdefault(self, key: Any, value: Any) -> Any:
        self.set_if_absent(key, value, None)
        return self.model[key].value

    def pop(self, key: Any) -> Any:
        held = self.held(key)
        self.model.pop(key, None)
        return KeyNotFoundError if held is None else held.value

    def expire(self, key: Any, life: float | None) -> Any:
        held = self.held(key)
        if held is None:
            return KeyNotFoundError
        self.set(key, held.value, life)
        return None

    # --- time, and asking ---

    @rule(seconds=st.sampled_from((0.5, 1, 3)))
    def go_on(self, seconds: float) -> None:
        """Time passes."""
        self.clock.go_on(seconds)

    @rule()
    def purge(self) -> None:
        """What is absent may as well be gone."""
        self.store.purge()
        assert self.store.purge() == 0

    @rule(prefix=st.sampled_from(("a", "#", "z", ("a",), (), (1,))))
    def find(self, prefix: Any) -> None:
        """A prefix finds what begins with it."""
        size = len(prefix)
        expected = {
            repr(key)
            for key in self.model
            if type(key) is type(prefix) and key[:size] == prefix and self.held(key)
        }
        assert {repr(key) for key in self.store.keys(prefix=prefix)} == expected

    @rule()
    def reopen(self) -> None:
        """Closing and opening changes nothing; without persistence, nothing is left."""
        self.database.close()
        if not self.database.driver.traits.persistent:
            self.model = {}
        self.open()

    @invariant()
    def agree(self) -> None:
        held = {key: self.held(key) for key in self.model}
        expected = {repr(key): repr(one.value) for key, one in held.items() if one is not None}
        assert {repr(key): repr(value) for key, value in self.store.items()} == expected
        assert len(self.store) == len(expected)

    def teardown(self) -> None:
        try:
            assert_sound(self.database)
        finally:
            self.database.close()


class KeyValueMachineTests(StoreTests):
    """Whatever is done, in whatever order."""

    def test_random_changes_of_keys(self, harness: BackendHarness) -> None:
        """Thousands of random changes, alone and in blocks, some left by exceptions, while keys
        expire and are purged, leave what a plain dict says; the length is right after each.
        """
        run_randomly(KeyValueMachine, harness, EXAMPLES, STEPS)
