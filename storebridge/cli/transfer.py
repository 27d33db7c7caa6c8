"""Commands that move what a database holds, and compare."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from time import monotonic
from typing import Any, BinaryIO

import click

from storebridge.cli import output
from storebridge.cli.failures import NO, say
from storebridge.cli.options import for_reading, json_option
from storebridge.location import parse_location
from storebridge.transfer import jsonlines
from storebridge.transfer.content import Content, content_of
from storebridge.transfer.exports import export_database, import_database, is_export, opened
from storebridge.transfer.migration import MigrationReport
from storebridge.transfer.migration import migrate as copy
from storebridge.transfer.progress import Progress, Watch
from storebridge.transfer.readable import Skipped
from storebridge.transfer.verification import Difference, Verification, compare

_EVERY = 10.0
_GOES_ON = "the same command goes on from here"
_STAGES = {"check": "checking", "copy": "copying", "verify": "reading again"}
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace what is there; a database is kept beside the new."
)
skip_option = click.option(
    "--skip-quarantined", is_flag=True, help="Leave out, and list, bodies that cannot be read."
)


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing.")
@overwrite_option
@skip_option
@json_option
def migrate(
    source: str,
    target: str,
    dry_run: bool,
    overwrite: bool,
    skip_quarantined: bool,
    as_json: bool,
) -> None:
    """Copy database SRC to DST, on any backend.

    Records, events, labels, versions, counters and checkpoints, bodies byte for byte. SRC is only
    read. DST is a store when it was read again and holds the same, not before. Stopped, killed or
    out of room: the same command goes on where it was.

    \b
    Example:
      storebridge migrate jobs.db lmdb:///var/lib/node/jobs
      storebridge migrate jobs.db jobs.bolt --dry-run --json
    """
    interrupted = "nothing was written" if dry_run else _GOES_ON
    watching = _watching(quiet=as_json, interrupted=interrupted)
    with for_reading(parse_location(source)) as database, watching as watch:
        report = copy(
            database,
            parse_location(target),
            overwrite=overwrite,
            skip_quarantined=skip_quarantined,
            dry_run=dry_run,
            watch=watch,
        )
    facts = _migrated(report) | {"dry_run": dry_run}
    _print(facts, as_json, report.skipped)
    if dry_run and report.skipped and not skip_quarantined:
        click.get_current_context().exit(NO)


def _migrated(report: MigrationReport) -> dict[str, Any]:
    facts = asdict(report) | {"digest": jsonlines.facts(report.digest)}
    return facts | {"replaces": None if report.replaces is None else str(report.replaces)}


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="Differences to list.",
)
@json_option
def verify(a: str, b: str, most: int, as_json: bool) -> None:
    """Compare what A and B hold: databases of any backend, or exports.

    Lists the first differences by table and key. Exits with 1 if there are any.

    \b
    Example:
      storebridge verify jobs.db lmdb:///var/lib/node/jobs
      storebridge verify jobs.db backup.jsonl.gz --json
    """
    with ExitStack() as stack:
        # Both are open before either is read: a database that is both A and B is one, and cannot be
        # closed while it is read.
        sides = [_side(stack, text) for text in (a, b)]
        one, other = map(stack.enter_context, sides)
        with output.working("comparing …"):
            found = compare(one, other, most=most)
    if as_json:
        output.print_json(_compared(found))
    else:
        _print_comparison(found)
    if not found.equal:
        click.get_current_context().exit(NO)


def _side(stack: ExitStack, text: str) -> AbstractContextManager[Content]:
    if is_export(text):
        return opened(text)
    return content_of(stack.enter_context(for_reading(parse_location(text))))


def _compared(found: Verification) -> dict[str, Any]:
    return {
        "a": found.a,
        "b": found.b,
        "equal": found.equal,
        "count": found.count,
        "differences": [each._asdict() for each in found.differences],
        "digest_a": jsonlines.facts(found.digest_a),
        "digest_b": jsonlines.facts(found.digest_b),
    }


def _print_comparison(found: Verification) -> None:
    output.print_facts([(found.a, found.digest_a.sha256), (found.b, found.digest_b.sha256)])
    if found.equal:
        click.echo(f"equal: {found.digest_a.entries} entries")
        return
    output.print_rows(
        ("table", "key", "difference", "in A", "in B"), map(_cells, found.differences)
    )
    if found.count > len(found.differences):
        click.echo(f"and {found.count - len(found.differences)} more")


def _cells(found: Difference) -> tuple[Any, ...]:
    unit = " bytes" if found.table else ""
    sizes = [None if size is None else f"{size}{unit}" for size in (found.a, found.b)]
    return (found.table or "totals", " ".join(map(str, found.key)), found.what, *sizes)


@click.command()
@click.argument("location")
@click.argument("file")
@overwrite_option
@json_option
def export(location: str, file: str, overwrite: bool, as_json: bool) -> None:
    """Write database LOCATION to FILE as lines of JSON.

    Compressed as the name says: .gz, .xz, .zst. FILE may be - for stdout. The same content makes
    the same lines, whatever backend it is on. FILE is there when it was read again and is whole.

    \b
    Example:
      storebridge export jobs.db jobs.jsonl.gz
      storebridge export jobs.db - | jq 'select(.table == "job") | .body.name'
    """
    target: str | BinaryIO = sys.stdout.buffer if file == "-" else file
    quiet = as_json or file == "-"
    watching = _watching(quiet=quiet, interrupted="nothing is left of it")
    with for_reading(parse_location(location)) as database, watching as watch:
        report = export_database(database, target, overwrite=overwrite, watch=watch)
    if file != "-":
        _print(asdict(report) | {"digest": jsonlines.facts(report.digest)}, as_json)


@click.command("import")
@click.argument("file")
@click.argument("location")
@overwrite_option
@skip_option
@json_option
def import_(
    file: str, location: str, overwrite: bool, skip_quarantined: bool, as_json: bool
) -> None:
    """Make database LOCATION of what FILE holds, an export.

    FILE may be - for stdin. One that was cut off or altered is refused with the number of the line,
    and nothing of it stays. Stopped or killed: the same command goes on where it was.

    \b
    Example:
      storebridge import jobs.jsonl.gz lmdb:///var/lib/node/jobs
      zstdcat jobs.jsonl.zst | storebridge import - jobs.db
    """
    source: str | BinaryIO = sys.stdin.buffer if file == "-" else file
    with _watching(quiet=as_json) as watch:
        report = import_database(
            source,
            parse_location(location),
            overwrite=overwrite,
            skip_quarantined=skip_quarantined,
            watch=watch,
        )
    facts = asdict(report) | {"digest": jsonlines.facts(report.digest)}
    replaced = None if report.replaces is None else str(report.replaces)
    _print(facts | {"replaces": replaced}, as_json, report.skipped)


def _print(facts: dict[str, Any], as_json: bool, skipped: tuple[Skipped, ...] = ()) -> None:
    seconds = facts["seconds"]
    facts["seconds"] = round(seconds, 3)
    facts["entries_per_second"] = round(facts["digest"]["entries"] / max(seconds, 1e-9))
    if "skipped" in facts:
        facts["skipped"] = [each._asdict() for each in skipped]
    if as_json:
        output.print_json(facts)
        return
    digest = facts.pop("digest")
    shown = facts | {"skipped": len(skipped)} if "skipped" in facts else facts
    shown |= {"entries": digest["entries"], "sha256": digest["sha256"]}
    output.print_facts(shown.items())
    if skipped:
        rows = [(each.table, " ".join(map(str, each.key)), "left out") for each in skipped]
        output.print_rows(("table", "key", ""), rows)


# --- progress ---


@contextmanager
def _watching(*, quiet: bool, interrupted: str = _GOES_ON) -> Iterator[Watch]:
    """A bar with rate and time left on a terminal, a line now and then in a pipe; how things stand,
    where it is interrupted."""
    try:
        if sys.stderr.isatty():
            with _bar() as watch:
                yield watch
        else:
            yield (lambda progress: None) if quiet else _Lines()
    except KeyboardInterrupt:
        say(f"interrupted: {interrupted}")
        raise


class _Lines:
    """A line for each stage, and one every ten seconds: on stderr, apart from what came of it."""

    def __init__(self) -> None:
        self._stage = ""
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        now = monotonic()
        if progress.stage != self._stage or now >= self._next:
            self._stage, self._next = progress.stage, now + _EVERY
            total = "-" if progress.total is None else progress.total
            click.echo(f"{_STAGES[progress.stage]}\t{progress.done}\t{total}", err=True)


@contextmanager
def _bar() -> Iterator[Watch]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        console=output.console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None, rate="")
    stage = ""

    def watch(progress: Progress) -> None:
        nonlocal stage
        if progress.stage != stage or not progress.done:
            stage = progress.stage
            bar.reset(task, total=progress.total, description=_STAGES[stage], rate="")
        speed = bar.tasks[0].speed
        rate = f"{speed:,.0f}/s" if speed else ""
        bar.update(task, completed=progress.done, rate=rate)

    with bar:
        yield watch
