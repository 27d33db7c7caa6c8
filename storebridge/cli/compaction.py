"""`storebridge compact`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from storebridge.cli import output
from storebridge.cli.failures import Failure
from storebridge.cli.options import (
    ROLES,
    Where,
    for_reading,
    for_writing,
    json_option,
    on_each,
    with_databases,
    yes_option,
)
from storebridge.compaction.archive import Archiver
from storebridge.compaction.report import CompactionReport
from storebridge.compaction.retention import Retention, parse_retention
from storebridge.configuration import (
    is_configured,
    location_from_environment,
    retention_from_environment,
)
from storebridge.errors import ConfigurationError
from storebridge.location import Location

_RULES = {
    "keep": ("AGE", "Remove records that were not changed for longer, such as 30d."),
    "count": ("N", "Of each store keep so many of the records that may go."),
    "states": ("A,B", "In these states.  [default: the terminal ones]"),
    "stores": ("A,B", "Of these stores.  [default: all with states]"),
    "events-keep": ("AGE", "Remove older events, but for each record's last."),
    "events-count": ("N", "Of each record keep so many events."),
    "versions-keep": ("AGE", "Remove older versions of jobs."),
    "versions-count": ("N", "Of each job keep so many old versions."),
    "deleted-keep": (
        "AGE",
        "Keep the history of what was deleted so long.  [default: --keep; with --count alone"
        " --checkpoints-keep]",
    ),
    "checkpoints-keep": (
        "AGE",
        "Readers not seen for so long hold nothing.  [default: 30d]",
    ),
}


def _with_rules(command: Any) -> Any:
    for name, (metavar, text) in reversed(_RULES.items()):
        command = click.option(f"--{name}", metavar=metavar, help=text)(command)
    return command


@click.command()
@with_databases
@_with_rules
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--no-reclaim", is_flag=True, help="Give no space back.")
@click.option(
    "--above", type=click.FloatRange(0, 1), metavar="SHARE", help="Only if so much of it is free."
)
@click.option(
    "--archive",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append the records that go to FILE: JSON lines, compressed.",
)
@json_option
@yes_option
def compact(
    where: Where,
    dry_run: bool,
    no_reclaim: bool,
    above: float | None,
    archive: Path | None,
    as_json: bool,
    yes: bool,
    **rule: str | None,
) -> None:
    """Remove what may go, and give free space back.

    What may go is said by the options, else by STORE_RETENTION and its kin for the databases that
    the environment names; else nothing goes. Live records only go if their state is named. Others
    may write meanwhile. On a terminal it asks first, and says what would go.

    \b
    Example:
      storebridge compact jobs.db --keep 30d --states Completed,Failed --dry-run
      storebridge compact --keep 7d --archive gone.jsonl.gz --yes
      storebridge compact
    """
    given = _rules_of(rule)

    def work(location: Location) -> bool:
        rules = given if given is not None else _rules_for(location, where)
        with for_reading(location) as database:
            planned = database.compact(rules, dry_run=True)
        if dry_run:
            return _show(location, planned, as_json=as_json)
        if not output.confirm(_question(location, planned), yes=yes):
            raise Failure(f"{location.text}: left as it is")
        with for_writing(location) as database, output.working(f"compacting {location.text} …"):
            if archive is not None:
                database.on_compact(archive=Archiver(archive))
            report = database.compact(rules, reclaim=not no_reclaim, above=above)
        return _show(location, report, as_json=as_json)

    on_each(where, work)


def _rules_of(options: dict[str, str | None]) -> tuple[Retention, ...] | None:
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if len(value.split()) != 1 or ";" in value:
            raise click.UsageError(f"--{name.replace('_', '-')} {value!r}: cannot be understood")
    try:
        words = [f"{name}={value}" for name, value in given.items()]
        return parse_retention(" ".join(words), "compact") if words else None
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error


def _rules_for(location: Location, where: Where) -> tuple[Retention, ...]:
    """What the environment lets go from a database that it names."""
    rules: list[Retention] = []
    for role in ROLES if where.text is None else ():
        if is_configured(role, prefix=where.env_prefix):
            named = location_from_environment(role, prefix=where.env_prefix)
            if (named.backend, named.target) == (location.backend, location.target):
                rules += retention_from_environment(role, prefix=where.env_prefix)
    return tuple(dict.fromkeys(rules))


def _question(location: Location, planned: CompactionReport) -> str:
    gone = [
        f"{number:,} {what}"
        for what in ("records", "events", "versions", "keys")
        if (number := sum(getattr(pruned, what) for pruned in planned.pruned.values()))
    ]
    return f"Compact {location.text}, removing {', '.join(gone) or 'nothing'}?"


def _show(location: Location, report: CompactionReport, *, as_json: bool) -> bool:
    ok = report.failed == 0
    if as_json:
        output.print_json({"location": location.text, "ok": ok} | asdict(report))
        return ok
    cells = [
        (store, what, number)
        for store, pruned in report.pruned.items()
        for what, number in asdict(pruned).items()
        if number
    ]
    what = "would go" if report.dry_run else "removed"
    output.print_rows(("store", what, "number"), cells, location.text)
    facts: list[tuple[str, Any]] = [] if cells else [(what, "nothing")]
    if report.before is not None:
        facts.append(("bytes on disk", f"{report.before:,}"))
    if not report.dry_run:
        if report.after is not None:
            facts.append(("bytes afterwards", f"{report.after:,}"))
        facts.append(("longest pause of others", f"{report.longest_pause * 1000:.0f} ms"))
        facts.append(("took", f"{report.seconds:.1f} s"))
        if (report.after or 0) > (report.before or 0):
            facts.append(("note", "removing takes some room itself, which is used again"))
    if report.kept:
        facts.append(("kept by a hook", report.kept))
    if report.skipped is not None:
        facts.append(("no space given back", report.skipped))
    output.print_facts([*facts, *(("note", note) for note in report.notes)])
    return ok
