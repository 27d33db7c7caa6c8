"""Events: what happened to records, kept in the same transaction as the change."""

from __future__ import annotations

from datetime import datetime

import msgspec

from storebridge.canonical import encoder
from storebridge.times import EPOCH, rfc3339

CREATED = "created"
UPDATED = "updated"
STATE = "state"
DELETED = "deleted"
REPAIRED = "repaired"
UNREADABLE = "unreadable"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a record. Later events of the database have greater sequence numbers; gaps
    are allowed."""

    sequence: int
    store: str
    record_id: str
    kind: str
    """`created`, `updated`, `state` or `deleted`; `repaired` where a repair found that events were
    missing, and noted where the record stands; `unreadable` for an event whose body cannot be
    read: only its place and the reason (`message`) are then known."""
    at: datetime
    revision: int
    """The record's revision after the change."""
    state: str | None = None
    """The record's state after the change; before it, for `deleted`."""
    previous_state: str | None = None
    message: str = ""
    fields: tuple[str, ...] = ()
    """Which fields an update changed."""


class _Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An event as it is stored; sequence, store and record id are in its key."""

    kind: str
    at: datetime
    revision: int
    state: str | None = None
    previous_state: str | None = None
    message: str = ""
    fields: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(_Body).decode


def encode_event(
    kind: str,
    at: datetime,
    revision: int,
    state: str | None,
    previous_state: str | None,
    message: str = "",
    fields: tuple[str, ...] = (),
) -> bytes:
    """The body of an event."""
    body = encoder.encode(
        _Body(
            kind=kind,
            at=at,
            revision=revision,
            state=state,
            previous_state=previous_state,
            message=message,
            fields=fields,
        )
    )
    if at.microsecond:
        return body
    # msgspec leaves out fractions that are zero; the time is the only one in the body before any
    # text of the caller's.
    short = rfc3339(at).replace(".000000Z", "Z")
    return body.replace(short.encode(), rfc3339(at).encode(), 1)


def decode_event(store: str, record_id: str, sequence: int, body: bytes) -> Event:
    """The event. One that cannot be read must not keep a reader from those behind it."""
    try:
        read = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        read = _Body(kind=UNREADABLE, at=EPOCH, revision=0, message=str(error))
    return Event(
        sequence=sequence,
        store=store,
        record_id=record_id,
        kind=read.kind,
        at=read.at,
        revision=read.revision,
        state=read.state,
        previous_state=read.previous_state,
        message=read.message,
        fields=read.fields,
    )
