"""What commands have in common: where the database is, and `--json`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from storebridge.cli.failures import NO, report
from storebridge.configuration import is_configured, location_from_environment
from storebridge.database import Database
from storebridge.errors import ConfigurationError, StorebridgeError
from storebridge.location import Location, parse_location
from storebridge.opening import open_database

F = Callable[..., Any]
ROLES = ("JOB", "EXECUTION")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: a document, or one on each line."
)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask on a terminal.")
_prefix_option = click.option(
    "--env-prefix", default="", metavar="P", help="Read PJOB_STORE_PATH … for JOB_STORE_PATH …"
)
_location_option = click.option(
    "--location",
    "-l",
    "option",
    metavar="LOCATION",
    help="Database, such as jobs.db or lmdb:///var/lib/jobs. [default: the environment's]",
)


class Where(NamedTuple):
    """Which databases a command is about: one that was named, or the environment's."""

    text: str | None
    env_prefix: str

    def all(self) -> list[Location]:
        """Every database that is meant, each once: jobs and executions may be in one."""
        if self.text is not None:
            return [parse_location(self.text)]
        configured = [role for role in ROLES if is_configured(role, prefix=self.env_prefix)]
        found: dict[tuple[str, str], Location] = {}
        for role in configured or ROLES[:1]:
            location = self._from_environment(role)
            found.setdefault((location.backend.name, location.target), location)
        return list(found.values())

    def of(self, role: str) -> Location:
        """The database of the jobs or of the executions."""
        if self.text is not None:
            return parse_location(self.text)
        return self._from_environment(role)

    def _from_environment(self, role: str) -> Location:
        try:
            return location_from_environment(role, prefix=self.env_prefix)
        except ConfigurationError as error:
            if is_configured(role, prefix=self.env_prefix):
                raise
            raise ConfigurationError(f"give --location LOCATION, or {error}") from None

    def only(self) -> Location:
        """The one database that is meant."""
        first, *others = self.all()
        if others:
            raise ConfigurationError(
                f"the environment names two databases, {first.text} and {others[0].text}:"
                " say which one"
            )
        return first


def with_databases(function: F) -> F:
    """For commands about whole databases: the argument or option LOCATION, as a `Where`."""

    @click.argument("location", required=False)
    @_location_option
    @_prefix_option
    @functools.wraps(function)
    def command(
        *args: Any, location: str | None, option: str | None, env_prefix: str, **kwargs: Any
    ) -> Any:
        if location is not None and option is not None:
            raise click.UsageError("give LOCATION once, as argument or as --location")
        return function(Where(location or option, env_prefix), *args, **kwargs)

    return command


def with_location(function: F) -> F:
    """For commands that have arguments of their own: the option `--location`, as a `Where`."""

    @_location_option
    @_prefix_option
    @functools.wraps(function)
    def command(*args: Any, option: str | None, env_prefix: str, **kwargs: Any) -> Any:
        return function(Where(option, env_prefix), *args, **kwargs)

    return command


def for_reading(location: Location) -> Database:
    """Open without changing or making any file."""
    return open_database(location, read_only=True, create=False)


def for_writing(location: Location) -> Database:
    """Open a database that is there."""
    return open_database(location, create=False)


def on_each(where: Where, work: Callable[[Location], bool]) -> None:
    """Do the work for each database, also when it failed for another. Exits with 1 unless all of
    them say yes, or with the code of what went wrong."""
    codes = []
    for location in where.all():
        try:
            codes.append(0 if work(location) else NO)
        except StorebridgeError as error:
            codes.append(report(error, show_traceback=wants_traceback()))
    if any(codes):
        click.get_current_context().exit(max(codes))


def wants_traceback() -> bool:
    """Whether the user asked where errors come from."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("traceback"))
