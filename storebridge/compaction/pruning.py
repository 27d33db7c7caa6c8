"""Removing what may go, in small transactions. Each leaves the database consistent: to be stopped
between two of them does no harm, and the next run does the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from storebridge import meta
from storebridge.canonical import MAX_INTEGER
from storebridge.check import Watch, labels_in
from storebridge.compaction import leaving
from storebridge.compaction.hooks import Consent, Removal
from storebridge.compaction.leaving import Found
from storebridge.compaction.pace import STEP_ENTRIES, STEP_SECONDS, Pace
from storebridge.compaction.report import Pruned
from storebridge.compaction.retention import Limits, Retention, limits_of
from storebridge.driver import Key, Range, Transaction, Values
from storebridge.errors import ConflictError
from storebridge.events import DELETED, decode_event, encode_event
from storebridge.histories import history_of
from storebridge.spec import StoreLayout
from storebridge.times import EPOCH, rfc3339
from storebridge.transaction import Unit
from storebridge.values import values_from_body

if TYPE_CHECKING:
    from storebridge.database import Database

BY_RETENTION = "retention"
"""The message of the event that tells of a record's removal."""
_BATCH = 200
"""Records that hooks are asked about together."""
_ATTEMPTS = 5
Kind = Literal["record", "event", "version"]
T = TypeVar("T")


class Pruner:
    """One run of retention over the stores of a database."""

    def __init__(
        self,
        database: Database,
        rules: Sequence[Retention],
        consent: Consent,
        watch: Watch | None,
        *,
        dry_run: bool,
    ) -> None:
        self._database = database
        self._rules = rules
        self._consent = consent
        self._watch = watch
        self._dry_run = dry_run
        self._now = database.clock()
        self.pace = Pace(database)
        self.pruned: dict[str, Pruned] = {}
        self.left: Counter[str] = Counter()
        """Records that stay although it is their time, by the reason."""

    def prune(self, layout: StoreLayout) -> None:
        """Remove from a store what may go."""
        database, now = self._database, self._now
        self.pruned[layout.name] = Pruned()
        limits = limits_of(self._rules, layout)
        stays: set[str] = set()
        for rule in self._rules:
            for batch in _batches(leaving.records(database, layout, rule, now), _BATCH):
                self._remove(layout, limits, "record", self._agreed(layout, batch, stays))
        pin = database.read(pinned, limits, now)
        for events in _batches(leaving.events(database, layout, limits, now, pin), STEP_ENTRIES):
            self._remove(layout, limits, "event", events)
        for keys in _batches(leaving.versions(database, layout, limits, now), STEP_ENTRIES):
            self._remove(layout, limits, "version", keys)
        self._keys(layout)

    def _keys(self, layout: StoreLayout) -> None:
        """Remove the keys of a key-value store whose time is over: nobody sees them any more."""
        from storebridge.entries import expired_by, lifetime_of
        from storebridge.keyvalues import KeyValueStore

        lifetime = lifetime_of(layout)
        if lifetime is None:
            return
        if self._dry_run:
            part = expired_by(self._now)
            gone = self._database.read(lambda view: view.count(layout.record.name, part))
        else:
            gone = KeyValueStore(self._database, layout.name, lifetime=lifetime).purge(self._write)
        self.pruned[layout.name].add(Pruned(keys=gone))

    def _agreed(self, layout: StoreLayout, batch: Sequence[Found], stays: set[str]) -> list[Found]:
        """Those of a batch that can be judged, and that nobody wants to keep. The others are noted,
        and stay whatever the next rule says."""
        batch = [found for found in batch if found.record_id not in stays]
        self.left.update(found.problem for found in batch if found.problem is not None)
        going = [found for found in batch if found.problem is None]
        agreed = {found.record_id for found in going}
        if self._consent.is_asked and not self._dry_run:
            asked = [self._database.read(_removal, layout, found) for found in going]
            agreed = {removal.id for removal in self._consent.to(asked)}
        stays.update(f.record_id for f in batch if self._dry_run or f.record_id not in agreed)
        return [found for found in going if found.record_id in agreed]

    def _remove(
        self, layout: StoreLayout, limits: Limits, kind: Kind, items: Sequence[Any]
    ) -> None:
        pruned = self.pruned[layout.name]
        done = 0
        while done < len(items):
            count, gone = self._step(layout, limits, kind, items[done:])
            done += count
            pruned.add(gone)
            if self._watch is not None:
                self._watch(layout.name, pruned.total)

    def _step(self, *args: Any) -> tuple[int, Pruned]:
        if self._dry_run:
            return self._database.read(_count, *args)
        return self._write(_step, self._now, *args, self.pace.allowed)

    def _write(self, operation: Callable[..., T], *args: Any) -> T:
        """A step; again where there are several writers, one of which has to give way."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return self.pace.write(operation, *args)
            except ConflictError:
                continue
        return self.pace.write(operation, *args)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def _removal(transaction: Transaction, layout: StoreLayout, found: Found) -> Removal:
    history = tuple(history_of(transaction, layout, found.record_id))
    return Removal(layout.name, found.record_id, found.state, found.body, history)


def pinned(transaction: Transaction, limits: Limits, now: datetime) -> int:
    """The number of the last event that every checkpoint has passed which still counts."""
    since = rfc3339(now - limits.checkpoints_keep)
    checkpoints = meta.read_checkpoints(transaction).values()
    return min((c.sequence for c in checkpoints if c.at >= since), default=MAX_INTEGER)


def _count(
    transaction: Transaction, layout: StoreLayout, limits: Limits, kind: Kind, items: Sequence[Any]
) -> tuple[int, Pruned]:
    """What a step would remove."""
    history = layout.history.name
    gone = Pruned()
    for item in items:
        if kind == "record":
            own = Range(prefix=(item.record_id,))
            gone.records += 1
            gone.events += transaction.count(history, own)
            if layout.version is not None:
                gone.versions += transaction.count(layout.version.name, own)
        elif kind == "event":
            whole = Range(prefix=item.key[:1])
            gone.events += transaction.count(history, whole) if item.whole else 1
        else:
            gone.versions += 1
    return len(items), gone


def _step(
    unit: Unit,
    now: datetime,
    layout: StoreLayout,
    limits: Limits,
    kind: Kind,
    items: Sequence[Any],
    allowed: float = STEP_SECONDS,
) -> tuple[int, Pruned]:
    """Remove items until it is time to let others write, after so many seconds. Returns how many
    have been dealt with."""
    began = perf_counter()
    step = _Step(unit, layout, limits, now)
    remove: Callable[[Any], bool] = getattr(step, kind)
    done = 0
    while done < len(items):
        done += remove(items[done])
        if perf_counter() - began > allowed:
            break
    step.close()
    return done, step.gone


class _Step:
    """One transaction of removing from a store. Its methods look again at what they are to remove,
    and return whether they are done with it: a record may have more events than fit in a step."""

    def __init__(self, unit: Unit, layout: StoreLayout, limits: Limits, now: datetime) -> None:
        self.gone = Pruned()
        self._unit = unit
        self._layout = layout
        self._limits = limits
        self._now = now
        self._values_of = values_from_body(layout.record)
        self._pin = pinned(unit.engine, limits, now)
        self._last = 0
        self._youngest = EPOCH

    def record(self, found: Found) -> bool:
        """Remove a record with all that belongs to it, unless it was changed meanwhile."""
        layout, unit, key = self._layout, self._unit, (found.record_id,)
        if unit.get(layout.record.name, key) != found.body:
            return True
        if not (self._versions(key) and self._history(key)):
            return False
        values = self._values_of(key, found.body)
        assert values is not None
        self._labels(found, values[:1])
        unit.remove(layout.record.name, key, values, found.body)
        state = found.state
        event = encode_event(DELETED, self._now, found.revision, state, state, BY_RETENTION)
        leaves = layout.counter(state) if state is None or state in layout.states else None
        unit.event(layout.history.name, found.record_id, event, leaves, None)
        self.gone.records += 1
        return True

    def event(self, going: leaving.Event) -> bool:
        """Remove an event, or the history of a record that was deleted and is not there again."""
        if going.whole:
            return not self._is_over(going.key) or self._history(going.key[:1])
        body = self._unit.get(self._layout.history.name, going.key)
        if body is not None and int(going.key[1]) <= self._pin:
            self._remove_event(going.key, body)
        return True

    def version(self, key: Key) -> bool:
        """Remove an old version."""
        assert self._layout.version is not None
        body = self._unit.get(self._layout.version.name, key)
        if body is not None:
            self._unit.remove(self._layout.version.name, key, (), body)
            self.gone.versions += 1
        return True

    def close(self) -> None:
        """Note up to where events were removed."""
        if self._last:
            meta.raise_horizon(self._unit, self._layout.name, self._last, self._youngest)

    def _is_over(self, key: Key) -> bool:
        """Whether nothing happened to a deleted record since it was found to be."""
        layout, unit = self._layout, self._unit
        rows, _ = unit.scan(layout.history.name, Range(prefix=key[:1], reverse=True, limit=1))
        is_last = bool(rows) and rows[0][0] == key
        return is_last and unit.get(layout.record.name, key[:1]) is None

    def _history(self, record: Key) -> bool:
        """Remove the oldest events of a record that every reader has passed; whether that was all
        of them."""
        upper = None if self._pin == MAX_INTEGER else self._pin + 1
        part = Range(prefix=record, upper=upper, limit=STEP_ENTRIES)
        rows, position = self._unit.scan(self._layout.history.name, part)
        for key, body in rows:
            self._remove_event(key, body)
        return position is None

    def _remove_event(self, key: Key, body: bytes) -> None:
        self._unit.remove(self._layout.history.name, key, (), body)
        self.gone.events += 1
        self._last = max(self._last, int(key[1]))
        told = decode_event(self._layout.name, str(key[0]), int(key[1]), body)
        self._youngest = max(self._youngest, told.at)

    def _versions(self, record: Key) -> bool:
        """Remove the oldest versions of a record; whether that was all of them."""
        if self._layout.version is None:
            return True
        part = Range(prefix=record, limit=STEP_ENTRIES)
        rows, position = self._unit.scan(self._layout.version.name, part)
        for key, body in rows:
            self._unit.remove(self._layout.version.name, key, (), body)
            self.gone.versions += 1
        return position is None

    def _labels(self, found: Found, values: Values) -> None:
        label = self._layout.label
        if label is None:
            return
        for name, value in (labels_in(found.body) or {}).items():
            key = (name, value, found.record_id)
            body = self._unit.get(label.name, key)
            if body is not None:
                self._unit.remove(label.name, key, values, body)
