"""Who holds a record: a process that can be seen to live, or one elsewhere, by a lease that it
extends for as long as it lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from storebridge.errors import ConfigurationError, InvalidRecordError
from storebridge.expect import Expect
from storebridge.machine import StateMachine
from storebridge.owner import Owner, boot_id
from storebridge.query import Page
from storebridge.record import Record
from storebridge.store import RecordStore

R = TypeVar("R", bound=Record)
PAGE = 100
"""Records read, and transactions of a recovery, at a time."""


class Leased(Protocol):
    """A record that a process can hold."""

    @property
    def owner(self) -> Owner | None: ...
    @property
    def lease_until(self) -> datetime | None: ...


class Standing(NamedTuple):
    """How a record is held."""

    kind: Literal["held", "gone", "unseen", "free"]
    """`held`: by a process that lives or whose lease runs. `gone`: by one that has ended, or that
    let its lease run out. `unseen`: by one elsewhere, without a lease. `free`: by nobody."""
    reason: str
    """Why, in words."""


def standing_of(record: Leased, node_id: str | None, now: datetime) -> Standing:
    """How a record is held, seen from a node at a time.

    What can be seen of a process counts before its lease: no jump of the clock makes a living one
    of this node lose what it holds, nor keeps a dead one's from being found.
    """
    owner, until = record.owner, record.lease_until
    if owner is None:
        return Standing("free", "names no owner")
    alive = owner.is_alive(node_id)
    if alive:
        return Standing("held", f"{owner} lives")
    if alive is False:
        how = "has ended" if owner.boot_id == boot_id() else "ended before the machine was started"
        return Standing("gone", f"owner is gone: {owner} {how}")
    if until is None:
        return Standing("unseen", f"{owner} cannot be seen from here, and has no lease")
    if until > now:
        return Standing("held", f"{owner} has a lease")
    return Standing("gone", f"owner is gone: the lease of {owner} has run out")


def lease_end(clock: Callable[[], datetime], lease: Any) -> datetime:
    """When a lease taken now runs out. InvalidRecordError unless it is a time to come."""
    if not isinstance(lease, timedelta) or lease <= timedelta(0):
        raise InvalidRecordError(f"lease: expected a timedelta above zero, got {lease!r}")
    try:
        return clock() + lease
    except OverflowError:
        raise InvalidRecordError(f"lease: {lease} from now is beyond the calendar") from None


class LeasedStore(RecordStore[R]):
    """Records that a process holds as their `owner`, perhaps by a lease that ends at their
    `lease_until`. A lease is for processes that cannot see each other: on other nodes."""

    def create(self, record: R, *, lease: timedelta | None = None) -> R:
        """As every store's. `lease`: the record's owner holds it for so long."""
        if lease is not None:
            until = lease_end(self.database.clock, lease)
            record = msgspec.structs.replace(record, lease_until=until)
        return super().create(record)

    def set_state(
        self,
        record_id: str,
        state: str,
        *,
        message: str | None = None,
        expect: Expect | None = None,
        lease: timedelta | None = None,
        **changes: Any,
    ) -> R:
        """As every store's. `lease`: the owner, who is mostly set in the same change, holds the
        record for so long, and longer by `heartbeat`."""
        if lease is not None:
            changes["lease_until"] = lease_end(self.database.clock, lease)
        return super().set_state(record_id, state, message=message, expect=expect, **changes)

    def heartbeat(self, record_id: str, owner: Owner, lease: timedelta) -> R:
        """Hold a record for this long from now, and return it.

        It is no change that has an event: revision, time of modification and history stay as they
        are, and so does every index, which makes it cheap. ConflictError, which carries the record,
        if this owner holds it no more, or its state is terminal.
        """
        if not isinstance(owner, Owner):
            raise InvalidRecordError(f"owner: expected an Owner, got {owner!r}")
        until = lease_end(self.database.clock, lease)
        return self.database.write(self._write.renew, record_id, owner, until)

    def standing(self, record: R, node_id: str | None = None) -> Standing:
        """How a record is held, seen from a node now."""
        return standing_of(record, node_id, self.database.clock())  # type: ignore[arg-type]

    @property
    def machine(self) -> StateMachine:
        """The records' state machine. ConfigurationError without one."""
        if self.spec.machine is None:
            raise ConfigurationError(f"store {self.spec.name!r}: its records have no states")
        return self.spec.machine


def pages(store: RecordStore[R], states: tuple[str, ...]) -> Iterator[Page[R]]:
    """The records in these states, page by page; between two pages there may be changes."""
    cursor: str | None = None
    while states:
        page = store.find(state=states, limit=PAGE, cursor=cursor)
        yield page
        cursor = page.cursor
        if cursor is None:
            return
