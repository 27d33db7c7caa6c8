"""The text of values: what people read in a file, and what is refused."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from storebridge import InvalidRecordError
from storebridge.typedvalues import dumps, loads, same


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class OddZone(tzinfo):
    """A zone that nobody else knows."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, _: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, _: datetime | None) -> str:
        return "odd"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": [1, -0.5, True, None], "a": "é\n"}, '{"b":[1,-0.5,true,null],"a":"é\\n"}'),
        (2**63, '{"$int":"0x8000000000000000"}'),
        (-(2**63), "-9223372036854775808"),
        (float("-inf"), '{"$float":"-inf"}'),
        (b"\xff", '{"$bytes":"/w=="}'),
        (("a", []), '{"$tuple":["a",[]]}'),
        ({1: "a", (2,): "b"}, '{"$dict":[[1,"a"],[{"$tuple":[2]},"b"]]}'),
        ({"a": 1, "$b": 2}, '{"$dict":[["a",1],["$b",2]]}'),
        ("$", '"$"'),
        (datetime(2026, 1, 2), '{"$datetime":"2026-01-02T00:00:00"}'),
        (datetime(2026, 1, 2, tzinfo=UTC), '{"$datetime":"2026-01-02T00:00:00+00:00"}'),
        (
            datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
            '{"$datetime":"2026-10-25T02:30:00+01:00[Europe/Berlin][fold]"}',
        ),
        (date(2026, 1, 2), '{"$date":"2026-01-02"}'),
        (time(1, 2, tzinfo=timezone(timedelta(hours=1))), '{"$time":"01:02:00+01:00"}'),
        (timedelta(days=-1, seconds=2), '{"$timedelta":[-1,2,0]}'),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_text(value: Any, text: str) -> None:
    """Files hold these texts, and will be read by later versions."""
    assert dumps(value) == text.encode()
    assert repr(loads(text.encode())) == repr(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Colour.RED, "value: Colour"),
        ({"a": [0, Level.HIGH]}, r"value\['a'\]\[1\]: Level"),
        ({Colour.RED: 1}, "Colour"),
        ({(1, Level.HIGH): 1}, "Level"),
        ([datetime(2026, 1, 1, tzinfo=OddZone())], r"value\[0\]: a datetime in .*offset"),
        (time(1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), "offset"),
        (["\ud800"], "surrogate"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_refusals_say_where(value: Any, said: str) -> None:
    with pytest.raises(InvalidRecordError, match=said):
        dumps(value)


def test_depth() -> None:
    """What is written can be read wherever 100 levels can, the body's included."""
    value: Any = 0
    for _ in range(99):
        value = [value]
    assert loads(dumps(value)) == value
    endless: dict[str, Any] = {}
    endless["self"] = [endless]
    for deeper in ([value], {"a": value}, endless):
        with pytest.raises(InvalidRecordError, match="nested too deeply, over 99"):
            dumps(deeper)


def test_large_numbers() -> None:
    """Numbers of more digits than Python turns into decimals."""
    number = 7**10_000
    assert loads(dumps([number, -number])) == [number, -number]


@pytest.mark.parametrize(
    "text",
    [
        '{"$none":1}', '{"$int":"x"}', '{"$int":5}', '{"$float":"1.5"}', '{"$float":[]}',
        '{"$bytes":"?"}', '{"$bytes":1}', '{"$tuple":{}}', '{"$tuple":"ab"}', '{"$dict":[[1]]}',
        '{"$dict":[[1,2],[1,3]]}', '{"$dict":[[[],1]]}', '{"$dict":"ab"}', '{"$datetime":"now"}',
        '{"$datetime":"2026-01-01[../../etc/passwd]"}', '{"$date":5}', '{"$time":"25:00"}',
        '{"$timedelta":[1]}', '{"$timedelta":[1,2,"x"]}', '{"$timedelta":[1e30,0,0]}',
        '{"$int":"0x5","$b":1}', '{"a":1,"$b":2}', '[{"a":{"$":1}}]',
    ],
)  # fmt: skip
def test_tags_that_are_none(text: str) -> None:
    """An object that looks like a tag and is none is an error, never a dict."""
    with pytest.raises(ValueError, match=r"\$|no tag"):
        loads(text.encode())


def test_a_zone_that_is_not_here() -> None:
    """Without its rules, or with others since, a zone's time is still the same moment."""
    for written in (
        '{"$datetime":"2026-07-01T12:00:00+02:00[Nowhere/Atlantis]"}',
        '{"$datetime":"2026-07-01T12:00:00+05:00[Europe/Berlin]"}',
    ):
        found = loads(written.encode())
        assert found.isoformat() == written[14:39]


def test_same() -> None:
    """Types, signs and zones count; the order of a dict's members does not."""
    nan = float("nan")
    one: Any
    other: Any
    for one, other in (
        ({"a": [1, (2,)], "b": nan}, {"b": nan, "a": [1, (2,)]}),
        ({1: 2, "x": 3}, {"x": 3, 1: 2}),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=timezone(timedelta(0)))),
    ):
        assert same(one, other)
    hours = timezone(timedelta(hours=1))
    for one, other in (
        (1, True), (1, 1.0), (0.0, -0.0), ([1], (1,)), ([1], [1, 2]), ({1: 2}, {True: 2}),
        ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 2}), (None, False),
        (datetime(2026, 1, 1, 1, tzinfo=hours), datetime(2026, 1, 1, tzinfo=UTC)),
        (Colour.RED, "red"), (b"a", "a"),
    ):  # fmt: skip
        assert not same(one, other)
        assert not same(other, one)
