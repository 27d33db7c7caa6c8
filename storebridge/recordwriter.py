"""The changes that a store makes, each on a unit: a step of a write transaction."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from storebridge import meta, recount
from storebridge.driver import Range, UniqueClash, Values
from storebridge.errors import (
    ConflictError,
    CorruptStoreError,
    InvalidRecordError,
    RecordExistsError,
    RecordNotFoundError,
)
from storebridge.events import CREATED, DELETED, STATE, UPDATED, encode_event
from storebridge.expect import Expect
from storebridge.limits import check_id
from storebridge.owner import Owner
from storebridge.record import Codec, Record
from storebridge.spec import Columns, RecordSpec, StoreLayout, check_labels, label_entry
from storebridge.transaction import Unit

R = TypeVar("R", bound=Record)
_KEPT_BY_STORE = frozenset({"id", "revision", "created_at", "modified_at", "state"})


class RecordWriter(Generic[R]):
    """The changes of one store. Each method is an operation for `Database.write`."""

    def __init__(
        self,
        spec: RecordSpec[R],
        layout: StoreLayout,
        codec: Codec[R],
        clock: Callable[[], datetime],
    ) -> None:
        self._spec = spec
        self._layout = layout
        self._codec = codec
        self._clock = clock
        self._columns = Columns(spec, layout.record)
        self._table = layout.record.name
        self._history = layout.history.name
        self._label = layout.label.name if layout.label else None
        self._version = layout.version.name if layout.version else None
        self._followers = {state: frozenset(after) for state, after in _transitions(spec).items()}
        self._counters = {state: layout.counter(state) for state in (None, *layout.states)}
        self._noun = spec.name
        self._unversioned = frozenset(spec.unversioned)
        self._has_message = "message" in spec.type.__struct_fields__

    def create(self, unit: Unit, record: R) -> R:
        if type(record) is not self._spec.type:
            raise InvalidRecordError(
                f"expected {self._spec.type.__name__}, got {type(record).__name__}"
            )
        # What copy.copy calls in the end, and takes longer to find than to do.
        record = record.__copy__()  # type: ignore[attr-defined]
        self._fill_in(record)
        record, body = self._validated(record)
        values = self._columns.of(record)
        try:
            if not unit.insert(self._table, (record.id,), values, body):
                raise RecordExistsError(f"{self._noun} {record.id!r} exists")
        except UniqueClash:
            raise self._taken(record) from None
        if self._label is not None:
            self._insert_labels(unit, record, _labels(record))
        self._note(unit, record, CREATED, None, "")
        return record

    def _fill_in(self, record: Any) -> None:
        now = self._clock()
        if record.id == "":
            record.id = f"{self._noun[0]}-{os.urandom(16).hex()}"
        record.revision = 1
        record.created_at = record.modified_at = now
        if self._spec.default_to_id and getattr(record, self._spec.default_to_id) == "":
            setattr(record, self._spec.default_to_id, record.id)
        if self._spec.machine is not None:
            if record.state == "":
                record.state = self._spec.machine.initial
            self._check_state(record.state)
        if self._version is not None:
            record.version = 1

    def _validated(self, record: R) -> tuple[R, bytes]:
        check_id(record.id)
        record, body = self._codec.validated(record)
        self._columns.check(record)
        if self._label is not None:
            check_labels(_labels(record))
        return record, body

    def update(
        self, unit: Unit, record_id: str, expect: Expect | None, changes: Mapping[str, Any]
    ) -> R:
        record, body, old_values = self._read_for_writing(unit, record_id)
        self._check_changes(changes)
        self._check_expected(record, expect)
        self._check_not_final(record, changes)
        record = self._change(unit, record, body, old_values, changes)
        self._note(unit, record, UPDATED, self._state_of(record), "", tuple(sorted(changes)))
        return record

    def set_state(
        self,
        unit: Unit,
        record_id: str,
        state: str,
        message: str | None,
        expect: Expect | None,
        changes: Mapping[str, Any],
    ) -> R:
        record: Any
        record, body, old_values = self._read_for_writing(unit, record_id)
        if expect is not None:
            self._check_expected(record, expect)
        if not self._followers:
            raise InvalidRecordError(f"{self._noun} records have no states")
        if type(state) is not str:
            self._check_state(state)
            state = str.__str__(state)  # the value of a StrEnum
        previous = record.state
        if state not in self._followers.get(previous, ()):
            self._refuse_transition(record, state)
        record.state = state
        if message is not None:
            if type(message) is not str or not self._has_message:
                raise InvalidRecordError("message: expected text, in a record that has the field")
            record.message = message
        if changes:
            self._check_changes(changes)
            record = self._change(unit, record, body, old_values, changes)
        else:
            record.revision += 1
            record.modified_at = self._clock()
            try:
                new_body = self._codec.encode(record)
            except UnicodeEncodeError:
                raise InvalidRecordError("message: text with a lone surrogate") from None
            values = self._columns.with_state(old_values, state, record.modified_at)
            unit.replace(self._table, (record_id,), old_values, body, values, new_body)
        self._note(unit, record, STATE, previous, message or "", tuple(sorted(changes)))
        return record  # type: ignore[no-any-return]

    def _change(
        self,
        unit: Unit,
        record: R,
        body: bytes,
        old_values: Values,
        changes: Mapping[str, Any],
    ) -> R:
        old_labels = _labels(record) if self._label is not None else {}
        if self._version is not None and self._makes_version(changes):
            self._keep_version(unit, record, body)
        for name, value in changes.items():
            setattr(record, name, value)
        record.revision += 1
        record.modified_at = self._clock()
        record, new_body = self._validated(record)
        values = self._columns.of(record)
        try:
            unit.replace(self._table, (record.id,), old_values, body, values, new_body)
        except UniqueClash:
            raise self._taken(record) from None
        if self._label is not None and "labels" in changes:
            self._replace_labels(unit, record, old_labels)
        return record

    def renew(self, unit: Unit, record_id: str, owner: Owner, until: datetime) -> R:
        record: Any
        record, body, values = self._read_for_writing(unit, record_id)
        self._check_expected(record, Expect(owner=owner))
        self._check_not_final(record, {"lease_until": until})
        record.lease_until = until
        unit.replace(self._table, (record_id,), values, body, values, self._codec.encode(record))
        return record  # type: ignore[no-any-return]

    def _makes_version(self, changes: Mapping[str, Any]) -> bool:
        return not changes or not self._unversioned.issuperset(changes)

    def delete(self, unit: Unit, record_id: str, expect: Expect | None) -> None:
        record, body, values = self._read_for_writing(unit, record_id)
        self._check_expected(record, expect)
        unit.remove(self._table, (record_id,), values, body)
        if self._label is not None:
            self._remove_labels(unit, record, _labels(record))
        if self._version is not None:
            self._remove_versions(unit, record_id)
        state = self._state_of(record)
        now = self._clock()
        event = encode_event(DELETED, now, record.revision, state, state)
        unit.event(self._history, record_id, event, self._counters.get(state), None)

    def discard(self, unit: Unit, record_id: str) -> None:
        body = self._body(unit, record_id)
        try:
            record = self._codec.decode(body)
        except CorruptStoreError:
            pass
        else:
            raise ConflictError(f"{self._noun} {record_id!r} can be read: delete it", record)
        unit.engine.remove(self._table, (record_id,), None)
        unit.adjust(self._drift(unit))
        self._remove_all_labels(unit, record_id)
        if self._version is not None:
            self._remove_versions(unit, record_id)
        event = encode_event(DELETED, self._clock(), 0, None, None, "unreadable")
        unit.event(self._history, record_id, event, None, None)

    def _drift(self, unit: Unit) -> dict[str, int]:
        """What to add to the counters when it is not known which state a removed record was in."""
        # As noted now: another process may know states that this one does not.
        layout = meta.read_layouts(unit.engine).get(self._layout.name, self._layout)
        (report,) = recount.recount_all(unit.engine, [layout], repair=False)
        return {layout.counter(state): -by for state, by in report.drift.items()}

    def _read_for_writing(self, unit: Unit, record_id: str) -> tuple[R, bytes, Values]:
        return self._decoded(record_id, self._body(unit, record_id))

    def _decoded(self, record_id: str, body: bytes) -> tuple[R, bytes, Values]:
        try:
            record = self._codec.decode_current(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            record = self._decode_old_for_writing(record_id, body)
        return record, body, self._columns.of(record)

    def _decode_old_for_writing(self, record_id: str, body: bytes) -> R:
        try:
            return self._codec.decode_for_writing(body)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{self._noun} {record_id!r} is quarantined: {error}") from None

    def _body(self, unit: Unit, record_id: str) -> bytes:
        # An ASCII text of the allowed length is any engine's key; for others look closer.
        if type(record_id) is not str or not record_id.isascii() or not 0 < len(record_id) < 129:
            check_id(record_id)
        body = unit.get(self._table, (record_id,))
        if body is None:
            raise RecordNotFoundError(f"no {self._noun} {record_id!r}")
        return body

    def _note(
        self,
        unit: Unit,
        record: R,
        kind: str,
        previous: str | None,
        message: str,
        fields: tuple[str, ...] = (),
    ) -> None:
        state = self._state_of(record)
        event = encode_event(
            kind, record.modified_at, record.revision, state, previous, message, fields
        )
        # A state that a hand wrote and the machine does not know has no counter.
        leaves = None if kind is CREATED else self._counters.get(previous)
        unit.event(self._history, record.id, event, leaves, self._counters.get(state))

    def _state_of(self, record: Any) -> str | None:
        return record.state if self._spec.machine is not None else None

    # --- what a write requires ---

    def _check_state(self, state: Any) -> None:
        if not isinstance(state, str) or state not in self._followers:
            known = ", ".join(self._followers)
            raise InvalidRecordError(f"state: {state!r} is none of {known or 'no states'}")

    def _check_expected(self, record: R, expect: Expect | None) -> None:
        if expect is None:
            return
        if not isinstance(expect, Expect):
            raise InvalidRecordError(f"expect: give an Expect(...), not {expect!r}")
        for state in (*(expect.states or ()), *(expect.not_states or ())):
            self._check_state(state)
        mismatch = expect.mismatch(record)
        if mismatch is not None:
            raise ConflictError(f"{self._noun} {record.id!r} {mismatch}", record)

    def _refuse_transition(self, record: Any, state: str) -> NoReturn:
        self._check_state(state)
        raise ConflictError(
            f"{self._noun} {record.id!r} is {record.state} and cannot become {state}", record
        )

    def _check_not_final(self, record: Any, changes: Mapping[str, Any]) -> None:
        machine = self._spec.machine
        if machine is None or record.state not in machine.terminal:
            return
        added = self._spec.added_when_terminal
        if changes and all(n in added and getattr(record, n) is None for n in changes):
            return
        raise ConflictError(f"{self._noun} {record.id!r} is {record.state}, which is final", record)

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        for name in changes:
            if name == "state" and self._followers:
                raise InvalidRecordError("state: is changed by set_state()")
            if name in _KEPT_BY_STORE or (name == "version" and self._version is not None):
                raise InvalidRecordError(f"{name}: is set by the store")
            if name not in self._spec.type.__struct_fields__:
                raise InvalidRecordError(f"{self._spec.type.__name__} has no field {name!r}")

    def _taken(self, record: R) -> RecordExistsError:
        fields = ", ".join(f"{name} {getattr(record, name)!r}" for name in self._spec.unique)
        return RecordExistsError(f"a {self._noun} with {fields} exists")

    # --- labels and versions ---

    def _insert_labels(self, unit: Unit, record: R, labels: Mapping[str, str]) -> None:
        assert self._label is not None
        values, body = label_entry(record.created_at)
        for label, value in labels.items():
            unit.add(self._label, (label, value, record.id), values, body)

    def _remove_labels(self, unit: Unit, record: R, labels: Mapping[str, str]) -> None:
        assert self._label is not None
        values, body = label_entry(record.created_at)
        for label, value in labels.items():
            unit.take_out(self._label, (label, value, record.id), values, body)

    def _remove_all_labels(self, unit: Unit, record_id: str) -> None:
        """Without knowing them: looks at the labels of all records."""
        position = None
        while self._label is not None:
            rows, position = unit.scan(self._label, Range(after=position, limit=500))
            for key, _ in rows:
                if key[-1] == record_id:
                    unit.engine.remove(self._label, key, None)
            if position is None:
                return

    def _replace_labels(self, unit: Unit, record: R, old: Mapping[str, str]) -> None:
        new = _labels(record)
        gone = {label: value for label, value in old.items() if new.get(label) != value}
        come = {label: value for label, value in new.items() if old.get(label) != value}
        self._remove_labels(unit, record, gone)
        self._insert_labels(unit, record, come)

    def _keep_version(self, unit: Unit, record: Any, body: bytes) -> None:
        assert self._version is not None
        unit.add(self._version, (record.id, record.version), (), body)
        record.version += 1

    def _remove_versions(self, unit: Unit, record_id: str) -> None:
        assert self._version is not None
        more = True
        while more:
            rows, position = unit.scan(self._version, Range(prefix=(record_id,)))
            for key, body in rows:
                unit.remove(self._version, key, (), body)
            more = position is not None


def _transitions(spec: RecordSpec[Any]) -> Mapping[str, tuple[str, ...]]:
    return spec.machine.transitions if spec.machine else {}


def _labels(record: Any) -> dict[str, str]:
    labels: dict[str, str] = record.labels
    return labels
