"""Commands that back databases up and bring them back."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta

import click

from storebridge.cli import output
from storebridge.cli.failures import NO, USAGE, Failure
from storebridge.cli.options import (
    Where,
    for_reading,
    for_writing,
    json_option,
    on_each,
    with_location,
    yes_option,
)
from storebridge.database import Database
from storebridge.errors import (
    ConfigurationError,
    ForeignFileError,
    ReadOnlyError,
    StoreFullError,
    StoreLockedError,
)
from storebridge.location import Location
from storebridge.transfer.backups import BackupReport, back_up
from storebridge.transfer.backups import restore as bring_back
from storebridge.transfer.exports import ImportReport

_age = re.compile(r"(\d+)([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Age(click.ParamType[timedelta]):
    """A span of time, such as 12h or 30d."""

    name = "age"

    def convert(
        self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = _age.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r}: expected a number and m, h, d or w, such as 12h", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


@click.command()
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True)
@with_location
@json_option
@click.option("--copies", type=int, metavar="N", help="Stop when N folders hold it. [default: all]")
@click.option("--keep", type=int, metavar="N", help="Keep N backups in each folder.")
@click.option("--if-older-than", type=Age(), metavar="AGE", help="Only if the newest is: 12h, 1d.")
def backup(
    where: Where,
    folders: tuple[str, ...],
    as_json: bool,
    copies: int | None,
    keep: int | None,
    if_older_than: timedelta | None,
) -> None:
    """Back a database up into folders, while it is in use.

    One compressed file that any machine can read and any backend take over. It counts only after it
    was read again and has the digest of the database. Each folder is tried whatever became of the
    others. Exits with 1 unless as many hold it as were wanted.

    \b
    Example:
      storebridge backup /mnt/usb -l jobs.db
      storebridge backup /mnt/usb /mnt/nas --copies 2 --keep 7 --if-older-than 1d
    """

    def work(location: Location) -> bool:
        with _opened(location) as database, output.working(f"backing up {location.text} …"):
            report = back_up(
                database, folders, copies=copies, keep=keep, if_older_than=if_older_than
            )
        if as_json:
            output.print_json(asdict(report) | {"held": report.held, "ok": report.ok})
        else:
            _print(report)
        return report.ok

    on_each(where, work)


def _opened(location: Location) -> Database:
    """For writing, to note the backup; else for reading: who may only read can back up, too, and so
    can who has no room left."""
    try:
        return for_writing(location)
    except (ConfigurationError, ReadOnlyError, StoreFullError):
        return for_reading(location)
    except StoreLockedError as error:
        hint = "a service that keeps the file to itself backs it up itself, by `back_up`"
        raise StoreLockedError(f"{error}: {hint} (see the README)", error.holder) from error


def _print(report: BackupReport) -> None:
    rows = []
    for copy in report.copies:
        what = "made" if copy.is_new else "young enough"
        rows.append((copy.place, "failed" if copy.error else what, copy.error or copy.file))
        rows += [(copy.place, "removed", file) for file in copy.removed]
    output.print_rows(("folder", "", "file"), rows, report.location)


def _restored(location: Location, source: str, *, yes: bool) -> ImportReport:
    if not output.confirm(f"Put {source} in the place of {location.text}?", yes=yes):
        raise Failure(f"{location.text}: left as it is", NO)
    if source == "-":
        raise Failure("a backup is a file: to read a stream: storebridge import -", USAGE)
    with output.working(f"restoring {location.text} …"):
        return bring_back(source, location)


@click.command()
@click.argument("source", metavar="BACKUP")
@with_location
@json_option
@yes_option
def restore(where: Where, source: str, as_json: bool, yes: bool) -> None:
    """Make a database hold what a backup does.

    The backup, or any export, is verified as a whole before it takes the place of what is there.
    What was there is kept beside it under another name. No process may have it open.

    \b
    Example:
      storebridge restore /mnt/usb/jobs-256ea211-20261125T120000.000000Z.jsonl.gz -l jobs.db
    """
    try:
        report = _restored(where.only(), source, yes=yes)
    except ForeignFileError as error:
        advice = "if it was a database, move it elsewhere, and give the same command again"
        raise ForeignFileError(f"{error}; {advice}") from error
    kept = None if report.replaces is None else str(report.replaces)
    facts = {
        "location": report.target,
        "backup": report.source,
        "entries": report.digest.entries,
        "sha256": report.digest.sha256,
        "kept": kept,
    }
    if as_json:
        output.print_json(facts)
    else:
        output.print_facts(facts.items())
