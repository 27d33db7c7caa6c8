"""Commands about a database as a whole: what it is, how large, and its engine's own shell."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from storebridge import meta
from storebridge.cli import output
from storebridge.cli.failures import USAGE, Failure
from storebridge.cli.options import Where, for_reading, json_option, on_each, with_databases
from storebridge.database import Database
from storebridge.driver import Range, Table, Transaction
from storebridge.location import Location
from storebridge.owner import Owner


@click.command()
@with_databases
@json_option
def info(where: Where, as_json: bool) -> None:
    """Show what a database is, and who has it open.

    Openers are processes that have written and not closed yet; one that is gone was killed, and
    the next opening for writing recounts. The holder has the lock for writing at this moment.

    \b
    Example:
      storebridge info jobs.db
      storebridge info --json
    """

    def show(location: Location) -> bool:
        with for_reading(location) as database:
            facts = facts_of(database)
        if as_json:
            output.print_json(facts)
            return True
        openers = [_opener(opener) for opener in facts.pop("openers")]
        output.print_facts(_flat(facts | {"openers": openers}))
        return True

    on_each(where, show)


def facts_of(database: Database) -> dict[str, Any]:
    """What a database is."""
    driver, location = database.driver, database.location
    return {
        "location": location.text,
        "backend": location.backend.name,
        "path": None if location.path is None else str(location.path),
        "size": _size(location),
        "layout": driver.layout(),
        "traits": driver.traits._asdict(),
        "engine": database.describe(),
        "stores": list(database.layouts),
        "events": database.sequence(),
        "openers": [_as_json(owner) for owner in database.read(meta.read_openers).values()],
        "holder": database.holder(),
    }


def _size(location: Location) -> int | None:
    """Bytes of the file, or of the files in the folder."""
    path = location.path
    if path is None:
        return None
    files = path.iterdir() if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)


def _as_json(owner: Owner) -> dict[str, Any]:
    return {"pid": owner.pid, "started": owner.started, "alive": owner.is_alive()}


def _opener(opener: dict[str, Any]) -> str:
    alive = {True: "running", False: "gone", None: "on another node"}[opener["alive"]]
    return f"process {opener['pid']} ({alive})"


def _flat(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from ((f"{name} {inner}", of) for inner, of in value.items())
        else:
            yield name, value


@click.command()
@with_databases
@json_option
@click.option("--quick", is_flag=True, help="Leave the sizes out: they need every body read.")
def stats(where: Where, as_json: bool, quick: bool) -> None:
    """Show how much a database holds.

    Records by state, entries and bytes by table. Bytes are those of the bodies, the records' JSON;
    what indexes and free pages take is in the engine's figures.

    \b
    Example:
      storebridge stats jobs.db
      storebridge stats --quick --json | jq .stores.job
    """

    def show(location: Location) -> bool:
        with for_reading(location) as database, output.working("reading …"):
            figures = stats_of(database, sizes=not quick)
        if as_json:
            output.print_json(figures)
        else:
            _print_stats(figures)
        return True

    on_each(where, show)


def stats_of(database: Database, *, sizes: bool) -> dict[str, Any]:
    """How much a database holds, of one moment."""
    with database.snapshot():
        stores: dict[str, Any] = {
            layout.name: {
                "states": database.counts(layout),
                "tables": {t.name: _measure(database, t, sizes=sizes) for t in layout.tables},
            }
            for layout in database.layouts.values()
        }
        checkpoints = database.read(meta.read_checkpoints)
        sequence = database.sequence()
    return {
        "location": database.location.text,
        "stores": stores,
        "last_event": sequence,
        "checkpoints": {name: at.sequence for name, at in checkpoints.items()},
        "engine": database.describe(),
    }


def _measure(database: Database, table: Table, *, sizes: bool) -> dict[str, int]:
    if not sizes:
        return {"entries": database.read(_count, table.name)}
    entries = size = 0
    for _, body in database.rows(table.name):
        entries += 1
        size += len(body)
    return {"entries": entries, "bytes": size}


def _count(transaction: Transaction, table: str) -> int:
    return transaction.count(table, Range())


def _print_stats(figures: dict[str, Any]) -> None:
    states = [
        (name, state, n)
        for name, store in figures["stores"].items()
        for state, n in store["states"].items()
        if n
    ]
    output.print_rows(("store", "state", "records"), states)
    tables = {t: m for store in figures["stores"].values() for t, m in store["tables"].items()}
    output.print_rows(
        ("table", "entries", "bytes"),
        [(name, measured["entries"], measured.get("bytes")) for name, measured in tables.items()],
    )
    facts = {"location": figures["location"], "last event": figures["last_event"]}
    facts |= {f"checkpoint {name}": at for name, at in figures["checkpoints"].items()}
    output.print_facts(_flat(facts | {"engine": figures["engine"]}))


@click.command()
@with_databases
@json_option
def tables(where: Where, as_json: bool) -> None:
    """List the tables: keys, columns, indexes, number of entries.

    \b
    Example:
      storebridge tables jobs.db
      storebridge tables --json | jq .tables[].name
    """

    def show(location: Location) -> bool:
        with for_reading(location) as database:
            found = [_table(database, table) for table in database.tables()]
        if as_json:
            output.print_json({"location": location.text, "tables": found})
        else:
            headers = ("table", "key", "columns", "indexes", "entries")
            output.print_rows(headers, [tuple(table.values()) for table in found], location.text)
        return True

    on_each(where, show)


def _table(database: Database, table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "key": [field.name for field in table.key],
        "columns": [field.name for field in table.columns],
        "indexes": [index.name for index in table.indexes],
        "entries": database.read(_count, table.name),
    }


@click.command(context_settings={"ignore_unknown_options": True})
@with_databases
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def shell(where: Where, arguments: tuple[str, ...]) -> None:
    """Open the engine's own shell on a database, read-only.

    That is sqlite3 on a SQLite file, psql on a PostgreSQL server. ARGUMENTS are passed on to it.

    \b
    Example:
      storebridge shell jobs.db
      storebridge shell jobs.db 'select state, count(*) from job group by state'
    """
    location = where.only()
    command = location.backend.shell(_place(location))
    if command is None:
        raise Failure(
            f"{location.text}: the {location.backend.name} backend has no shell;"
            " see: storebridge tables, keys, get",
            USAGE,
        )
    program = shutil.which(command[0])
    if program is None:
        raise Failure(f"{command[0]} is not installed; install it with your package manager", USAGE)
    # An engine's shell would open, or make, anything: whether this is ours is seen before.
    for_reading(location).close()
    os.execv(program, [*command, *arguments])


def _place(location: Location) -> str:
    """The target; of a server with the options that say where on it, and how to reach it."""
    if location.path is not None or not location.options.extra:
        return location.target
    return f"{location.target}?{urlencode(location.options.extra)}"
