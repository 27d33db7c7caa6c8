"""What a store keeps, as data: the record type, its state machine and what it is found by. The
tables follow from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from storebridge.canonical import MIN_INTEGER
from storebridge.driver import Field, Index, Table, Values, View
from storebridge.errors import ConfigurationError, InvalidRecordError
from storebridge.limits import MAX_ID, MAX_INDEXED, check_integer, check_text
from storebridge.machine import StateMachine
from storebridge.record import Record, Upgrade
from storebridge.times import microseconds, rfc3339

R = TypeVar("R", bound=Record)

_CREATED = Field("created_at", "integer", time=True)
_MODIFIED = Field("modified_at", "integer", time=True)
_name = re.compile(r"(?=.{1,40}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIXES = ("-history", "-label", "-version", "-index", "-meta")
_RESERVED = frozenset({"id", "body", "created", "modified", "unique", "created_at", "modified_at"})
QUEUE = "queue"
"""The index by which records are taken out of a state."""
# An index (field, created_at, id) leaves this much of MAX_INDEXED to the field.
_MAX_FILTER = MAX_INDEXED - 18


@dataclass(frozen=True, eq=False)
class RecordSpec(Generic[R]):
    """What a store keeps.

    `filters` are fields of text, integer or time that `find` uses an index for, the most selective
    first. `unique` fields may not be the same together in two records. `default_to_id` names a
    field that an empty text in is replaced by the id. `labelled`: the type has `labels` to select
    by. `versioned`: an update keeps the old body, and counts up the field `version`.
    `unversioned` fields, which say nothing of what was asked for, make no version. `queue` names a
    whole-number field by which the records of a state are kept in order, as `JobStore.claim` takes
    them.
    `added_when_terminal` may be set once even when the state is terminal. `upgrades[n]` turns the
    members of a body of version n into those of n + 1; it leaves filters and unique fields as they
    are.
    """

    name: str
    type: type[R]
    machine: StateMachine | None = None
    filters: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict)
    default_to_id: str | None = None
    labelled: bool = False
    versioned: bool = False
    unversioned: tuple[str, ...] = ()
    queue: str | None = None
    added_when_terminal: tuple[str, ...] = ()
    plural: str = ""
    """The name of the view that engines with a query language show."""

    def __post_init__(self) -> None:
        fields = set(self.type.__struct_fields__)
        needed = {*self.filters, *self.unique, *self.added_when_terminal, *self.unversioned}
        needed |= {self.queue} if self.queue else set()
        needed |= {"state"} if self.machine else set()
        needed |= {"labels"} if self.labelled else set()
        needed |= {"version"} if self.versioned else set()
        needed |= {self.default_to_id} if self.default_to_id else set()
        if missing := needed - fields:
            raise ConfigurationError(f"{self.type.__name__} has no field {sorted(missing)}")
        self._check_names()
        if (self.machine or self.queue) and "state" not in self.filters:
            raise ConfigurationError(f"store {self.name}: filters must hold 'state'")

    @property
    def indexed(self) -> tuple[str, ...]:
        """The fields that are columns of the store's table."""
        queued = (self.queue,) if self.queue else ()
        return tuple(dict.fromkeys((*self.filters, *self.unique, *queued)))

    def _check_names(self) -> None:
        """Names become those of tables, views, indexes and files' buckets, on every engine."""
        for name in (self.name, self.plural or self.name):
            if not _name.fullmatch(name) or name.startswith("storebridge"):
                raise ConfigurationError(
                    f"store {name!r}: names are up to 40 lower-case letters, digits and single '-',"
                    " beginning with a letter and not with 'storebridge'"
                )
        if self.name.endswith(_SUFFIXES) or self.plural == self.name:
            raise ConfigurationError(
                f"store {self.name!r}: must not end in {', '.join(_SUFFIXES)}, or be its own plural"
            )
        reserved = _RESERVED | ({QUEUE} if self.queue else set())
        indexed = [name.lower() for name in self.indexed]
        if reserved.intersection(indexed) or len(indexed) != len(set(indexed)):
            raise ConfigurationError(
                f"store {self.name!r}: filters and unique fields must differ by more than case, and"
                f" not be called {', '.join(sorted(reserved))}"
            )
        for state in self.machine.states if self.machine else ():
            check_text(f"store {self.name}: state", state, MAX_ID)


class StoreLayout(msgspec.Struct, frozen=True, kw_only=True):
    """The tables of a store, as they are also written down in the database: so that checking,
    counting and moving data need not know the record type."""

    name: str
    states: tuple[str, ...]
    """Empty without a state machine: all records are then counted together."""
    terminal: tuple[str, ...] = ()
    """Those that every service that knows them holds to be final."""
    record: Table
    history: Table
    label: Table | None = None
    version: Table | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        """All of them."""
        return tuple(t for t in (self.record, self.history, self.label, self.version) if t)

    @property
    def names(self) -> set[str]:
        """What no other store may call its tables and views, as engines write it: `_` for `-`."""
        own = {index for table in self.tables for index in (table.name, f"{table.name}-index")}
        views = {table.view.name for table in self.tables if table.view}
        return {name.replace("_", "-") for name in own | views}

    @property
    def shape(self) -> list[object]:
        """What two versions of a service must agree on to share the store."""
        return [(table.name, table.key, table.columns, table.indexes) for table in self.tables]

    def merged(self, other: StoreLayout) -> StoreLayout:
        """The same tables with the states of both, and a view that shows the fields of both. What
        one of them holds to be live is live: its records must not go as if they were done."""
        live = {s for each in (self, other) for s in each.states if s not in each.terminal}
        states = tuple(dict.fromkeys(self.states + other.states))
        terminal = tuple(state for state in states if state not in live)
        record = _with_view(self.record, other.record.view)
        return msgspec.structs.replace(self, states=states, terminal=terminal, record=record)

    def counter(self, state: str | None) -> str:
        """The name of the counter of records in a state."""
        return f"{self.name} {state or ''}"


def _with_view(table: Table, other: View | None) -> Table:
    if table.view is None or other is None or set(other.fields) <= set(table.view.fields):
        return table
    shown = tuple(dict.fromkeys(table.view.fields + other.fields))
    return replace(table, view=View(table.view.name, shown))


def layout_of(spec: RecordSpec[Any]) -> StoreLayout:
    """The tables that a specification asks for."""
    name, machine = spec.name, spec.machine
    return StoreLayout(
        name=name,
        states=machine.states if machine else (),
        terminal=tuple(s for s in machine.states if s in machine.terminal) if machine else (),
        record=_record_table(spec),
        history=Table(
            f"{name}-history",
            key=(Field("record_id"), Field("sequence", "integer")),
            indexes=(Index("sequence", ("sequence",), unique=True),),
        ),
        label=_label_table(name) if spec.labelled else None,
        version=Table(f"{name}-version", key=(Field("record_id"), Field("version", "integer")))
        if spec.versioned
        else None,
    )


def _record_table(spec: RecordSpec[Any]) -> Table:
    # Once for all: msgspec evaluates every annotation each time that it is asked for one.
    types = {field.name: field.type for field in msgspec.structs.fields(spec.type)}
    columns = tuple(_column(spec.type, name, types[name]) for name in spec.indexed)
    indexes = [
        Index("created", ("created_at", "id")),
        Index("modified", ("modified_at", "id")),
        *(Index(name, (name, "created_at", "id")) for name in spec.filters),
    ]
    if spec.queue:
        column = next(column for column in columns if column.name == spec.queue)
        if column.type != "integer" or column.optional or column.time:
            raise ConfigurationError(f"store {spec.name}: queue {spec.queue!r} must be an int")
        indexes.append(Index(QUEUE, ("state", spec.queue, "created_at", "id")))
    if spec.unique:
        indexes.append(Index("unique", spec.unique, unique=True))
    view = View(spec.plural or f"{spec.name}s", spec.type.__struct_fields__)
    return Table(
        spec.name,
        key=(Field("id"),),
        columns=(_CREATED, _MODIFIED, *columns),
        indexes=tuple(indexes),
        view=view,
    )


def _label_table(name: str) -> Table:
    return Table(
        f"{name}-label",
        key=(Field("label"), Field("value"), Field("record_id")),
        columns=(_CREATED,),
        indexes=(
            Index("value", ("label", "value", "created_at", "record_id")),
            # The value comes last: records of one time are in order of their ids.
            Index("label", ("label", "created_at", "record_id", "value")),
        ),
    )


def _column(record_type: type[Record], name: str, annotation: Any) -> Field:
    kind = inspect.type_info(annotation)
    optional = False
    if isinstance(kind, inspect.UnionType):
        optional = kind.includes_none
        kinds = [k for k in kind.types if not isinstance(k, inspect.NoneType)]
        kind = kinds[0] if len(kinds) == 1 else kind
    if isinstance(kind, inspect.StrType) or (
        isinstance(kind, inspect.LiteralType) and all(isinstance(v, str) for v in kind.values)
    ):
        return Field(name, "text", optional)
    if isinstance(kind, inspect.IntType):
        return Field(name, "integer", optional)
    if isinstance(kind, inspect.DateTimeType):
        return Field(name, "integer", optional, time=True)
    raise ConfigurationError(
        f"{record_type.__name__}.{name}: cannot be indexed; use str, int, time"
    )


class Columns(Generic[R]):
    """Values of a store's table from typed records, and the check that they may be indexed."""

    def __init__(self, spec: RecordSpec[R], table: Table) -> None:
        rest = table.columns[2:]
        self._names = tuple(f.name for f in rest)
        self._state = 2 + self._names.index("state") if "state" in self._names else 0
        self._times = tuple(i for i, f in enumerate(rest) if f.time)
        self._get: Callable[[R], Any] = attrgetter(*self._names) if rest else _nothing
        share = (MAX_INDEXED - len(spec.unique)) // max(len(spec.unique), 1)
        self._checks = tuple(
            (f.name, f.type == "text", f.optional, share if f.name in spec.unique else _MAX_FILTER)
            for f in rest
            if not f.time
        )

    def of(self, record: R) -> Values:
        """The values, in the table's order."""
        values = self._get(record)
        if len(self._names) == 1:
            values = (values,)
        if self._times:
            values = tuple(
                microseconds(v) if i in self._times and v is not None else v
                for i, v in enumerate(values)
            )
        return (microseconds(record.created_at), microseconds(record.modified_at), *values)

    def with_state(self, values: Values, state: str, modified_at: datetime) -> Values:
        """The values after a change of state alone."""
        at = self._state
        changed = (values[0], microseconds(modified_at), *values[2:at], state)
        return changed + values[at + 1 :]

    def check(self, record: R) -> None:
        """InvalidRecordError unless every value may stand in its indexes."""
        for name, is_text, optional, limit in self._checks:
            value = getattr(record, name)
            if value is None and optional:
                continue
            if not is_text:
                check_integer(name, value)
            # A character counts three at the most; nearly all values are short and plain.
            elif not (
                value.__class__ is str
                and 0 < 3 * len(value) <= limit
                and value.isascii()
                and value.isprintable()
            ):
                check_text(name, value, limit)


def _nothing(_: Any) -> tuple[()]:
    return ()


def check_labels(labels: Mapping[str, str]) -> None:
    """InvalidRecordError unless labels and their values may stand in the index."""
    for label, value in labels.items():
        check_text("label", label, MAX_ID)
        check_text(f"label {label}", value, MAX_ID)


class _LabelBody(msgspec.Struct):
    created_at: datetime


def label_entry(created_at: datetime) -> tuple[Values, bytes]:
    """Values and body of a label's entry: labelled records are found in order of creation."""
    body = msgspec.json.encode({"created_at": rfc3339(created_at)})
    return (microseconds(created_at),), body


def label_time(body: bytes) -> int:
    """When the record of a label's entry was created; the beginning of time if a hand broke it."""
    try:
        return microseconds(msgspec.json.decode(body, type=_LabelBody).created_at)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return MIN_INTEGER


def index_value(column: Field, value: Any) -> str | int:
    """What a filter's value is in the index. InvalidRecordError if it cannot be in it."""
    if column.time and isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidRecordError(f"{column.name}: expected a time with a zone, got {value!r}")
        return microseconds(value)
    if column.type == "text":
        return check_text(column.name, value, MAX_INDEXED)
    return check_integer(column.name, value)
