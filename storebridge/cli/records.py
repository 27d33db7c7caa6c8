"""`storebridge jobs …` and `storebridge executions …`: the same commands for both stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click
import msgspec

from storebridge import times
from storebridge.cli import output
from storebridge.cli.failures import USAGE, Failure, say
from storebridge.cli.options import (
    Where,
    for_reading,
    for_writing,
)
from storebridge.configuration import node_id_from_environment
from storebridge.database import Database
from storebridge.errors import CorruptStoreError, RecordNotFoundError
from storebridge.events import Event
from storebridge.executions import EXECUTION_STATES, ExecutionStore
from storebridge.expect import Expect
from storebridge.jobs import JOB_STATES, JobStore
from storebridge.query import MAX_LIMIT
from storebridge.store import RecordStore


class Kind(NamedTuple):
    """What is particular to the commands of a store."""

    name: str
    role: str
    store: Callable[[Database], RecordStore[Any]]
    states: tuple[str, ...]
    columns: tuple[str, ...]
    """What a list shows of a record."""

    @property
    def one(self) -> str:
        """The name with its article."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"


JOBS = Kind("job", "JOB", JobStore, JOB_STATES.states, ("id", "name", "type", "state", "message"))
EXECUTIONS = Kind(
    "execution",
    "EXECUTION",
    ExecutionStore,
    EXECUTION_STATES.states,
    ("id", "job_id", "node_id", "state", "message"),
)


@contextmanager
def opened(kind: Kind, where: Where, *, writing: bool = False) -> Iterator[RecordStore[Any]]:
    """The store, in a database that has it already: asking must not make one."""
    location = where.of(kind.role)
    with for_writing(location) if writing else for_reading(location) as database:
        if kind.name not in database.layouts:
            there = ", ".join(database.layouts) or "none"
            raise Failure(f"{location.text}: has no store {kind.name!r}; stores: {there}", USAGE)
        yield kind.store(database)


def time_option(name: str, text: str) -> Callable[[Any], Any]:
    """An option that takes a time."""
    return click.option(name, metavar="TIME", callback=_time, help=text)


def _time(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return times.parse_rfc3339(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time such as 2026-01-31T12:00:00Z") from None


def list_records(
    kind: Kind,
    where: Where,
    as_json: bool,
    *,
    limit: int,
    everything: bool,
    cursor: str | None,
    **query: Any,
) -> None:
    """Print the records of a query, page by page where all are wanted."""
    query = {name: value for name, value in query.items() if value not in (None, (), "")}
    with opened(kind, where) as store:
        while True:
            page = store.find(limit=MAX_LIMIT if everything else limit, cursor=cursor, **query)
            print_records(kind, store, list(page), as_json)
            cursor = page.cursor
            for record_id in page.quarantined:
                say(f"{kind.name} {record_id} cannot be read; see: storebridge get {kind.name}")
            if cursor is None or not everything:
                break
    if cursor is not None:
        say(f"there are more: --cursor {cursor} goes on, --all lists all of them")


def print_records(kind: Kind, store: RecordStore[Any], records: list[Any], as_json: bool) -> None:
    """A list of records."""
    if as_json:
        for record in records:
            output.print_body(store.codec.encode(record))
        return
    headers = [column.removesuffix("_id") for column in kind.columns]
    headers[0] = "id"
    headers.insert(-1, "created")
    output.print_rows(headers, [_cells(kind, record) for record in records])


def _cells(kind: Kind, record: Any) -> list[Any]:
    cells = [
        output.short(getattr(record, column)) if column in ("id", "job_id") else
        getattr(record, column)
        for column in kind.columns
    ]  # fmt: skip
    cells.insert(-1, _shown(record.created_at))
    return cells


def _shown(time: Any) -> str:
    """To the second on a terminal; in a pipe as it is in the record."""
    text = times.rfc3339(time)
    return text[:19].replace("T", " ") if output.on_terminal() else text


def show_record(
    kind: Kind, where: Where, record_id: str, as_json: bool, version: int | None
) -> None:
    """Print a record, or an old version of it."""
    with opened(kind, where) as store:
        record = _read(store, record_id, version)
        body = store.codec.encode(record)
    if as_json:
        output.print_body(body)
        return
    facts = msgspec.json.decode(body, type=dict[str, Any])
    output.print_facts((name, _fact(value)) for name, value in facts.items() if name != "v")


def _read(store: RecordStore[Any], record_id: str, version: int | None) -> Any:
    record_id = store.resolve(record_id)
    try:
        current = store.get(record_id)
    except CorruptStoreError as error:
        name = store.spec.name
        raise Failure(f"{error}; storebridge get {name} {record_id} prints it as it is") from error
    if version is None or version == current.version:
        return current
    for old in store.versions(record_id):
        if old.version == version:
            return old
    raise Failure(f"{record_id} has no version {version}, but 1 to {current.version}")


def _fact(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else value


def show_history(kind: Kind, where: Where, record_id: str, as_json: bool) -> None:
    """Print the events of a record, also of one that was deleted."""
    with opened(kind, where) as store:
        try:
            record_id = store.resolve(record_id)
        except RecordNotFoundError:
            # A deleted record keeps its history; its id must then be given whole.
            if not store.history(record_id):
                raise
        events = store.history(record_id)
    if as_json:
        for event in events:
            output.print_body(msgspec.json.encode(event))
        return
    print_events(events)


def print_events(events: list[Event]) -> None:
    """What happened, oldest first."""
    headers = ("event", "at", "revision", "kind", "state", "message")
    output.print_rows(headers, [event_cells(event) for event in events])


def event_cells(event: Event) -> tuple[Any, ...]:
    """Number, time, revision, kind, state and what was said of an event."""
    at = times.rfc3339(event.at)
    at = at[:23].replace("T", " ") if output.on_terminal() else at
    state = event.state
    if event.previous_state != event.state and event.previous_state:
        state = f"{event.previous_state} -> {event.state}"
    said = event.message or ", ".join(event.fields)
    return event.sequence, at, event.revision, event.kind, state, said


def set_state(
    kind: Kind,
    where: Where,
    record_id: str,
    state: str,
    message: str | None,
    expect: Expect,
    as_json: bool,
) -> None:
    """Pass a record into a state."""
    with opened(kind, where, writing=True) as store:
        record = store.set_state(store.resolve(record_id), state, message=message, expect=expect)
        body = store.codec.encode(record)
    if as_json:
        output.print_body(body)
    else:
        click.echo(f"{record.id}\t{record.state}")


def delete(
    kind: Kind,
    where: Where,
    ids: tuple[str, ...],
    expect: Expect,
    as_json: bool,
    *,
    yes: bool,
    unreadable: bool,
) -> None:
    """Remove records; all of them or none."""
    with opened(kind, where) as store:
        found = [store.resolve(record_id) for record_id in dict.fromkeys(ids)]
    if not output.confirm(f"Delete {', '.join(found)}?", yes=yes):
        raise Failure("nothing was deleted")
    with opened(kind, where, writing=True) as store:
        if unreadable:
            for record_id in found:
                store.discard(record_id)
        else:
            with store.database.transaction():
                for record_id in found:
                    store.delete(record_id, expect=expect)
    for record_id in found:
        if as_json:
            output.print_json({"deleted": record_id})
        else:
            click.echo(f"{record_id}\tdeleted")


def job_prefix_resolved(where: Where, job_id: str | None) -> str | None:
    """A job's id from its beginning, where the jobs are in the same database."""
    if job_id is None:
        return None
    with for_reading(where.of("EXECUTION")) as database:
        if "job" not in database.layouts:
            return job_id
        try:
            return JobStore(database).resolve(job_id)
        except RecordNotFoundError:
            return job_id


def list_orphans(where: Where, as_json: bool, nodes: tuple[str, ...]) -> None:
    """Print the executions whose owner is gone: a process of these nodes, or without its lease."""
    named = nodes or (node_id_from_environment(prefix=where.env_prefix),)
    with opened(EXECUTIONS, where) as store:
        assert isinstance(store, ExecutionStore)
        # One whose lease has run out is an orphan seen from any node.
        orphans = {orphan.id: orphan for node in named for orphan in store.orphans(node)}
        print_records(EXECUTIONS, store, list(orphans.values()), as_json)
