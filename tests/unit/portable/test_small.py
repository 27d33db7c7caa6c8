"""Limits, times, labels, state machines: small things that everything rests on."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storebridge import ConfigurationError, InvalidQueryError, InvalidRecordError, StateMachine
from storebridge.driver import keys
from storebridge.labels import Requirement, parse_selector
from storebridge.limits import MAX_ID, check_id, check_integer, check_text, key_size
from storebridge.query import prefix_bounds
from storebridge.times import EPOCH, microseconds, parse_rfc3339, rfc3339

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
times = st.datetimes(timezones=st.just(UTC))


@given(texts)
def test_the_limit_is_the_encoded_size(text: str) -> None:
    """What a text counts is what it takes as a part of a key."""
    assert key_size(text) * 2 + 1 == len(keys.join((text, text), True))
    if key_size(text) <= MAX_ID:
        assert check_id(text) == text
    else:
        with pytest.raises(InvalidRecordError, match="of at most 128"):
            check_id(text)


@pytest.mark.parametrize("value", [None, 5, b"x", "", "a\0", "\ud800", "x" * 129])
def test_what_is_no_id(value: object) -> None:
    """The error says what is wrong, in a line that stays short."""
    with pytest.raises(InvalidRecordError, match=r"^id: ") as caught:
        check_id(value)
    assert len(str(caught.value)) < 120


def test_integers() -> None:
    """Bool is no integer, and the edges of 64 bits are in."""
    for value in (2**63 - 1, -(2**63), 0):
        assert check_integer("n", value) == value
    for bad in (2**63, -(2**63) - 1, True, 1.0, "1", None):
        with pytest.raises(InvalidRecordError, match=r"^n: "):
            check_integer("n", bad)
    with pytest.raises(InvalidRecordError, match="what: expected text"):
        check_text("what", 1, 10)


@given(times, times)
def test_text_sorts_as_time_does(one: datetime, other: datetime) -> None:
    """Text and microseconds are in the order of the instants, and both come back exactly."""
    assert (one < other) == (rfc3339(one) < rfc3339(other))
    assert (one < other) == (microseconds(one) < microseconds(other))
    assert parse_rfc3339(rfc3339(one)) == EPOCH + timedelta(microseconds=microseconds(one)) == one


def test_zones() -> None:
    """A time is written in UTC whatever its zone; text without a zone is no time."""
    east = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2026, 1, 1, 1, tzinfo=east)) == "2025-12-31T23:00:00.000000Z"
    for bad in ("2026-01-01T00:00:00", "", "yesterday"):
        with pytest.raises(ValueError, match=r"time zone|Invalid"):
            parse_rfc3339(bad)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("  ", []),
        ("a", [Requirement("a", "exists")]),
        ("! a", [Requirement("a", "absent")]),
        ("a=b", [Requirement("a", "in", ("b",))]),
        ("a == b", [Requirement("a", "in", ("b",))]),
        ("a!=b", [Requirement("a", "notin", ("b",))]),
        (
            "a in (b, c),d",
            [Requirement("a", "in", ("b", "c")), Requirement("d", "exists")],
        ),
        ("a notin(b)", [Requirement("a", "notin", ("b",))]),
        ("in in (in)", [Requirement("in", "in", ("in",))]),
        ("a.b/c-d_e=😀", [Requirement("a.b/c-d_e", "in", ("😀",))]),
    ],
)
def test_selectors(text: str, parts: list[Requirement]) -> None:
    """Selectors are understood as in Kubernetes."""
    assert list(parse_selector(text)) == parts


@pytest.mark.parametrize(
    "text",
    [
        *(",", "a,", "a=", "=b", "a=b=c", "a in", "a in b", "a in ()", "a in (b", "a in (b,)"),
        *("!a=b", "a b", "a!b", "!", "a notin (,)", "(a)", "a in (b) c", "a=b,,c", "a=\0"),
        "a" * 129,
    ],
)
def test_malformed_selectors(text: str) -> None:
    """What is no selector is refused in one line that shows what is accepted."""
    with pytest.raises(InvalidQueryError, match="label selector") as caught:
        parse_selector(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_as_selector(text: str) -> None:
    """Any text is a selector or is refused as none."""
    with contextlib.suppress(InvalidQueryError):
        parse_selector(text)


@given(texts, texts)
def test_prefix_bounds(prefix: str, text: str) -> None:
    """A text lies between the bounds of a prefix exactly if it starts with it."""
    lower, upper = prefix_bounds(prefix)
    for candidate in (text, prefix, prefix + text, prefix[:-1] + text):
        if candidate:
            between = (lower or "") <= candidate and (upper is None or candidate < upper)
            assert between == candidate.startswith(prefix)


def test_machines() -> None:
    """A machine knows its first, live and terminal states, and is not changed from outside."""
    transitions = {"a": ["b"], "b": ["a", "c"], "c": []}
    machine = StateMachine({k: tuple(v) for k, v in transitions.items()}, owned=frozenset("b"))
    transitions["c"].append("a")
    assert (machine.initial, machine.live, machine.terminal) == ("a", ("a", "b"), frozenset("c"))
    assert machine.transitions["b"] == ("a", "c")


@pytest.mark.parametrize(
    ("transitions", "owned"), [({}, ()), ({"a": ("b",)}, ()), ({"a": ()}, ("b",))]
)
def test_senseless_machines(
    transitions: dict[str, tuple[str, ...]], owned: tuple[str, ...]
) -> None:
    """States that there are none of are named."""
    with pytest.raises(ConfigurationError, match="unknown states"):
        StateMachine(transitions, frozenset(owned))
