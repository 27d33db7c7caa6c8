"""Commands that look into a database: counters, keys and bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from storebridge.cli import output
from storebridge.cli.failures import USAGE, Failure
from storebridge.cli.options import (
    Where,
    for_reading,
    json_option,
    on_each,
    with_databases,
    with_location,
)
from storebridge.database import Database
from storebridge.driver import Key, Position, Range, Table
from storebridge.errors import CorruptStoreError
from storebridge.location import Location
from storebridge.query import prefix_bounds

_PAGE = 500


@click.command()
@with_databases
@json_option
def counts(where: Where, as_json: bool) -> None:
    """Count the records by state.

    Asks the counters: quick, however many records there are.

    \b
    Example:
      storebridge counts jobs.db
      storebridge counts --json | jq .stores.job.Running
    """

    def show(location: Location) -> bool:
        with for_reading(location) as database, database.snapshot():
            found = {name: database.counts(at) for name, at in database.layouts.items()}
        if as_json:
            output.print_json({"location": location.text, "stores": found})
        else:
            output.print_rows(("store", "state", "records"), _by_state(found), location.text)
        return True

    on_each(where, show)


def _by_state(found: dict[str, dict[str, int]]) -> list[tuple[str, str, int]]:
    return [(name, state, n) for name, states in found.items() for state, n in states.items()]


@click.command()
@click.argument("table")
@with_location
@json_option
@click.option("--prefix", metavar="TEXT", help="Only keys that start with this text.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.")
@click.option("--reverse", is_flag=True, help="From the last key to the first.")
def keys(
    where: Where, table: str, as_json: bool, prefix: str | None, limit: int | None, reverse: bool
) -> None:
    """List the keys of TABLE in order.

    One key on each line, its fields separated by tabs; with --json as arrays.

    \b
    Example:
      storebridge keys execution -l node.db --limit 10
      storebridge keys job-label --prefix team --json
    """
    with database_with(where, table) as database:
        declared = _declared(database, table)
        assert declared is not None
        for key in _keys(database, declared, prefix, limit, reverse):
            if as_json:
                output.print_json(key)
            else:
                click.echo("\t".join(output.plain(field) for field in key))


def _keys(
    database: Database, table: Table, prefix: str | None, limit: int | None, reverse: bool
) -> Iterator[Key]:
    if prefix and table.key[0].type != "text":
        raise click.UsageError(f"the keys of {table.name} are numbers: they have no --prefix")
    lower, upper = prefix_bounds(prefix)
    part = Range(lower=lower, upper=upper, reverse=reverse)
    position: Position | None = None
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(left, _PAGE)
        part = part._replace(after=position, limit=size)
        found, position = database.read_scan(table.name, part)
        yield from (key for key, _ in found)
        if position is None:
            return
        left = None if left is None else left - len(found)


@click.command()
@click.argument("table")
@click.argument("key", nargs=-1, required=True)
@with_location
@json_option
def get(where: Where, table: str, key: tuple[str, ...], as_json: bool) -> None:
    """Print the body under KEY in TABLE as it is stored.

    Also one that cannot be decoded. A key of several fields is given as several arguments, as
    `keys` prints them. An id may be given by its beginning. On a terminal the JSON is laid out.

    \b
    Example:
      storebridge get execution e-1f3a -l node.db
      storebridge get execution-history e-1f3a5c 17 --json
    """
    with database_with(where, table) as database:
        declared = _declared(database, table)
        assert declared is not None
        found = _complete(database, declared, _parsed(declared, key))
        body = database.get(table, found)
    assert body is not None
    if as_json:
        _print_json_body(body, found)
    elif output.on_terminal():
        click.echo(_laid_out(body))
    else:
        output.print_body(body)


def _parsed(table: Table, texts: tuple[str, ...]) -> Key:
    names = " ".join(field.name.upper() for field in table.key)
    if len(texts) != len(table.key):
        raise click.UsageError(f"a key of {table.name} is: {names}")
    try:
        return tuple(
            int(text) if field.type == "integer" else text
            for field, text in zip(table.key, texts, strict=True)
        )
    except ValueError:
        raise click.UsageError(f"a key of {table.name} is: {names}, the last a number") from None


def _complete(database: Database, table: Table, key: Key) -> Key:
    """The key itself, or the only one that starts with it where it is a single text."""
    if database.get(table.name, key) is not None:
        return key
    shown = " ".join(map(str, key))
    if len(key) > 1 or not isinstance(key[0], str):
        raise Failure(f"no key {shown} in {table.name}")
    lower, upper = prefix_bounds(key[0])
    found, _ = database.read_scan(table.name, Range(lower=lower, upper=upper, limit=2))
    if not found:
        raise Failure(f"no key in {table.name} is, or starts with, {shown}")
    if len(found) > 1:
        two = ", ".join(str(row[0][0]) for row in found)
        raise Failure(f"{shown} may be {two} …: give more of it")
    return found[0][0]


def _print_json_body(body: bytes, key: Key) -> None:
    try:
        json.loads(body)
    except ValueError as error:
        raise CorruptStoreError(
            f"the body of {' '.join(map(str, key))} is not JSON ({error}); without --json it is"
            " printed as it is"
        ) from None
    output.print_body(body)


def _laid_out(body: bytes) -> str:
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False, indent=2)
    except ValueError:
        return output.plain(body.decode(errors="backslashreplace"))
    return "\n".join(output.plain(line) for line in text.splitlines())


def database_with(where: Where, table: str) -> Database:
    """The database that has a table: of several in the environment the first that has it."""
    known: list[str] = []
    for location in where.all():
        database = for_reading(location)
        if _declared(database, table) is not None:
            return database
        known += [each.name for each in database.tables()]
        database.close()
    raise Failure(f"no table {table!r}; there are: {', '.join(dict.fromkeys(known))}", USAGE)


def _declared(database: Database, name: str) -> Table | None:
    return next((table for table in database.tables() if table.name == name), None)
