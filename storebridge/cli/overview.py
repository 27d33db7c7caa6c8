"""Which backends there are."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from storebridge.backends import BUILTIN, backend_named, third_party_names
from storebridge.cli import output
from storebridge.cli.options import json_option
from storebridge.driver import Traits
from storebridge.errors import BackendUnavailableError, StorebridgeError
from storebridge.location import parse_location
from storebridge.opening import open_database


@click.command()
@json_option
def backends(as_json: bool) -> None:
    """List the backends, and what each can do.

    A backend counts as working when a database of it could be made here, in a temporary folder.
    Durability and processes are as its engine says: how many processes may have a database open.

    \b
    Example:
      storebridge backends
      storebridge backends --json
    """
    found = [describe(name) for name in [*BUILTIN, *third_party_names()]]
    if as_json:
        output.print_json(found)
        return
    headers = ("backend", "works", "extra", "durability", "processes", "survives", "note")
    output.print_rows(headers, [_row(backend) for backend in found])


def describe(name: str) -> dict[str, Any]:
    """A backend as it is here."""
    builtin = BUILTIN.get(name)
    extra = builtin.extra if builtin else None
    known = {"name": name, "extra": f"storebridge[{extra}]" if extra else None}
    try:
        traits = traits_of(name)
    except StorebridgeError as error:
        installed = not isinstance(error, BackendUnavailableError)
        return known | {"installed": installed, "works": False, "note": str(error)}
    return known | {
        "installed": True,
        "works": True,
        "durability": list(traits.durability),
        "processes": traits.processes,
        "persistent": traits.persistent,
    }


def traits_of(name: str) -> Traits:
    """What a backend's engine can do: only an opened driver tells."""
    with tempfile.TemporaryDirectory(prefix="storebridge-") as folder:
        location = new_location(name, Path(folder), "probe")
        parsed = parse_location(location)
        # Nobody needs the probe to survive a power cut.
        parsed = replace(parsed, options=replace(parsed.options, durability="off"))
        with open_database(parsed) as database:
            return database.driver.traits


def new_location(name: str, folder: Path, stem: str) -> str:
    """A location of a backend for a database in a folder."""
    suffixes = backend_named(name).suffixes
    return f"{name}://{quote(str(folder / stem))}{suffixes[0] if suffixes else ''}"


def _row(backend: dict[str, Any]) -> tuple[Any, ...]:
    survives = backend.get("persistent")
    works = "yes" if backend["works"] else "no" if backend["installed"] else "not installed"
    return (
        backend["name"],
        works,
        backend["extra"],
        backend.get("durability"),
        backend.get("processes"),
        None if survives is None else "a restart" if survives else "nothing",
        backend.get("note") if backend["installed"] else None,
    )
