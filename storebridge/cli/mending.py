"""Commands that find and mend what is wrong in a database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import click

from storebridge import check as checking
from storebridge.check import RepairReport
from storebridge.cli import output
from storebridge.cli.failures import Failure
from storebridge.cli.options import (
    Where,
    for_reading,
    for_writing,
    json_option,
    on_each,
    with_databases,
    yes_option,
)
from storebridge.database import Database
from storebridge.driver import Fault
from storebridge.location import Location
from storebridge.recount import RecountReport


@click.command()
@with_databases
@json_option
def check(where: Where, as_json: bool) -> None:
    """Check that everything agrees with the bodies.

    Checks the engine's file, then columns, indexes, labels and counters against the bodies, which
    are the truth. Exits with 1 if there is a fault.

    \b
    Example:
      storebridge check jobs.db
      storebridge check --json | jq .faults
    """

    def show(location: Location) -> bool:
        with for_reading(location) as database, output.working(f"checking {location.text} …"):
            faults = list(checking.check(database))
        if as_json:
            output.print_json(_found(location, faults))
        else:
            _print_faults(location, faults)
        return not faults

    on_each(where, show)


def _found(location: Location, faults: list[Fault]) -> dict[str, Any]:
    listed = [fault._asdict() for fault in faults]
    return {"location": location.text, "ok": not faults, "faults": listed}


def _print_faults(location: Location, faults: list[Fault]) -> None:
    if not faults:
        click.echo(f"{location.text}: no faults")
        return
    cells = [(fault.table or "the file", _words(fault.key), fault.problem) for fault in faults]
    output.print_rows(("table", "key", "fault"), cells, location.text)


def _words(key: tuple[Any, ...] | None) -> str | None:
    return None if key is None else " ".join(map(str, key))


@click.command()
@with_databases
@json_option
@yes_option
def repair(where: Where, as_json: bool, yes: bool) -> None:
    """Mend what `check` finds, in one transaction.

    Columns, index entries, labels and counters are made to agree with the bodies. A body that
    cannot be read stays as it is: see it with `get`, take it out with `jobs delete --unreadable`.
    On a terminal it asks first. Exits with 1 if a fault remains.

    \b
    Example:
      storebridge repair jobs.db
      storebridge repair jobs.db --yes --json
    """

    def mend(location: Location) -> bool:
        for_reading(location).close()
        if not output.confirm(f"Repair {location.text}?", yes=yes):
            raise Failure(f"{location.text}: left as it is")
        with for_writing(location) as database, output.working(f"repairing {location.text} …"):
            report = checking.repair(database)
            remaining = list(checking.check(database))
        if as_json:
            done = asdict(report) | {"remaining": [fault._asdict() for fault in remaining]}
            output.print_json({"location": location.text, "ok": not remaining} | done)
        else:
            _print_repair(location, report, remaining)
        return not remaining

    on_each(where, mend)


def _print_repair(location: Location, report: RepairReport, remaining: list[Fault]) -> None:
    output.print_facts(
        [
            ("location", location.text),
            ("faults found", report.faults),
            ("made anew", report.tables),
            ("labels mended", report.labels),
            ("counters set right", sum(len(each.drift) for each in report.recounts)),
            ("faults that remain", len(remaining)),
        ]
    )
    if remaining:
        _print_faults(location, remaining)


@click.command()
@with_databases
@json_option
@click.option("--deep", is_flag=True, help="Look at every body, index entry, label and history.")
@click.option("--repair", "mend", is_flag=True, help="Set right what can be.")
def recount(where: Where, as_json: bool, deep: bool, mend: bool) -> None:
    """Count the records again and compare with the counters.

    Counts by the index of states. With --deep it also decodes every body, and checks indexes,
    columns, labels and histories against them, while others go on writing; Ctrl-C ends it without
    harm. Exits with 1 if something differs and was not set right.

    \b
    Example:
      storebridge recount jobs.db
      storebridge recount --deep --repair
    """

    def show(location: Location) -> bool:
        with for_reading(location) as database:
            reports = _recount(database, deep=deep, mend=False)
        if mend and not all(report.ok for report in reports):
            with for_writing(location) as database:
                reports = tuple(
                    _with_opening(report, database)
                    for report in _recount(database, deep=deep, mend=True)
                )
        ok = all(report.ok for report in reports)
        if as_json:
            stores = {report.store: _members(report) for report in reports}
            output.print_json({"location": location.text, "ok": ok, "stores": stores})
        else:
            _print_reports(location, reports)
        return ok

    on_each(where, show)


def _recount(database: Database, *, deep: bool, mend: bool) -> tuple[RecountReport, ...]:
    with output.working("counting …") as tell:
        return database.recount(
            deep=deep, repair=mend, watch=lambda table, seen: tell(f"{table}: {seen} entries …")
        )


def _with_opening(report: RecountReport, database: Database) -> RecountReport:
    """With the drift that opening found, and set right, after an unclean stop."""
    opened = {each.store: each.drift for each in database.recounted}
    return replace(report, drift=report.drift or opened.get(report.store, {}))


def _members(report: RecountReport) -> dict[str, Any]:
    faults = [fault._asdict() for fault in report.faults]
    return asdict(report) | {"faults": faults, "ok": report.ok}


def _print_reports(location: Location, reports: Iterable[RecountReport]) -> None:
    cells: list[tuple[Any, ...]] = []
    faults: dict[Fault, None] = {}
    for report in reports:
        for state in {**report.counts, **report.drift}:
            drift = report.drift.get(state, 0)
            counted = report.counts.get(state, 0)
            mended = "set right" if drift and report.repaired else "off" if drift else "agrees"
            cells.append((report.store, state, counted, counted + drift, mended))
        if report.unknown:
            cells.append((report.store, "in no state", report.unknown, None, "see: check"))
        if report.mended:
            cells.append((report.store, "faults mended", report.mended, None, "set right"))
        if report.deep:
            found = len(report.faults)
            cells.append((report.store, "faults", found, None, "see below" if found else "none"))
        # A counter that is off has been told above.
        told = dict.fromkeys(fault for fault in report.faults if fault.table != report.store)
        faults |= told | dict.fromkeys(fault for fault in report.faults if fault.key)
    output.print_rows(("store", "state", "counted", "counter", ""), cells, location.text)
    if faults:
        _print_faults(location, list(faults))
