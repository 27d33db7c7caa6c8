"""Times: UTC, to the microsecond, and as integers in indexes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from storebridge.errors import InvalidRecordError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Seconds = float | timedelta
_LONGEST = 1e11
"""Seconds, some thousand years: whatever begins now ends within the calendar."""


def now() -> datetime:
    """The time of day in UTC."""
    return datetime.now(UTC)


def microseconds(time: datetime) -> int:
    """Microseconds since 1970."""
    since = time - EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


def all_microseconds(times: Sequence[datetime | None]) -> list[int | None]:
    """The same of each; None for None. Written out, as a call for each would take half as long
    again."""
    return [
        None
        if time is None
        else ((since := time - EPOCH).days * 86400 + since.seconds) * 1_000_000 + since.microseconds
        for time in times
    ]


def rfc3339(time: datetime) -> str:
    """As it stands in a body: UTC, microseconds always written, so that text sorts as time does."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def duration(what: str, seconds: Seconds) -> timedelta:
    """A time to come, from seconds. InvalidRecordError if it is none."""
    given = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if type(given) not in (int, float) or not 0 < given < _LONGEST:
        raise InvalidRecordError(
            f"{what}: expected seconds above 0 and under {_LONGEST:g}, got {seconds!r:.60}"
        )
    return timedelta(seconds=given)


def parse_rfc3339(text: str) -> datetime:
    """The time that a body says. ValueError if it says none, or says no zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    return time.astimezone(UTC)
