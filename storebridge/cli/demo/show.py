"""What the demo prints: live progress, and what came of it."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from storebridge.cli import output
from storebridge.cli.demo.scenario import Said, Story
from storebridge.location import Location

Watch = Callable[[Said, Story], None]
_NOTABLE = (
    "submitted",
    "interrupt",
    "restart",
    "unclean",
    "recount",
    "orphan",
    "requeued",
    "job-failed",
)
_TOOLS = {
    "sqlite": (
        "sqlite3 {path} 'select state, count(*) from execution group by state'",
        "sqlite3 {path} 'select id, state, message from executions limit 5'",
    ),
    "lmdb": ("mdb_stat -a {path}", "mdb_dump -p -s execution {path} | head"),
    "bolt": ("bbolt buckets {path}", "bbolt keys {path} execution"),
    "tinydb": ("jq '.execution | length' {path}",),
}


@contextmanager
def progress(quiet: bool) -> Iterator[Watch]:
    """A bar and the notable lines on a terminal, every line in a pipe, nothing for JSON."""
    if quiet:
        yield lambda said, story: None
    elif output.on_terminal():
        with _bar() as watch:
            yield watch
    else:
        yield lambda said, story: click.echo("\t".join(output.plain(word) for word in said))


@contextmanager
def _bar() -> Iterator[Watch]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    bar = Progress(
        BarColumn(24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False),
        console=output.console(),
    )  # fmt: skip
    task = bar.add_task("", total=None)

    def watch(said: Said, story: Story) -> None:
        running = ", ".join(name.split(" again,")[0].strip() for name in story.running.values())
        bar.update(task, total=len(story.jobs), completed=story.ended, description=running)
        if said.event in _NOTABLE:
            bar.console.print(Text(_sentence(said, story)))

    with bar:
        yield watch


def _sentence(said: Said, story: Story) -> str:
    event, subject, text = map(output.plain, said)
    return {
        "submitted": f"{subject} jobs are submitted; the node runs their commands, four at once",
        "interrupt": f"halfway, with {len(story.running)} commands running: {text}",
        "restart": "the node is started again",
        "unclean": f"  found: process {subject} {text}",
        "recount": f"  recounted: counters of {subject}s {text}",
        "orphan": f"  execution {output.short(subject)}: {text}",
        "requeued": f"    requeued: {output.short(text)} is to try it again",
        "job-failed": f"  job {output.short(subject)} is not tried again: {text}",
    }[event]


def summary(result: dict[str, Any]) -> None:
    """What came of it."""
    restart = result["restart"]
    _title(f"The node was stopped halfway: {result['interrupt']['how']}")
    output.print_facts(
        [
            ("jobs ended before", result["interrupt"]["jobs_ended"]),
            ("executions running then", len(result["interrupt"]["running"])),
        ]
    )
    _title("What the restart found")
    processes = ", ".join(f"process {pid}" for pid in restart["stopped_uncleanly"])
    output.print_facts(
        [
            ("ended without closing", processes or "nobody"),
            *((f"counters of {store}s", drift) for store, drift in restart["recount"].items()),
            ("executions without an owner", len(restart["orphans"])),
        ]
    )
    _orphans(restart["orphans"])
    _title("Records by state")
    output.print_rows(
        ("store", "state", "records"),
        [(store, s, n) for store, by in result["counts"].items() for s, n in by.items() if n],
    )


def _orphans(orphans: list[dict[str, Any]]) -> None:
    if orphans:
        cells = [
            (
                output.short(o["id"]),
                o["job"],
                o["action"],
                o["message"],
                output.short(o["next_id"]) or "none",
            )
            for o in orphans
        ]
        headers = ("execution", "job", "recovery", "because", "next attempt")
        output.print_rows(headers, cells)


def afterwards(result: dict[str, Any]) -> None:
    """The copies on other engines, and what compaction made of the last one."""
    if "journey" not in result:
        return
    _title("Moved from engine to engine")
    output.print_rows(
        ("from", "to", "entries", "seconds", "SHA-256 of the content"),
        [
            (copy["from"], copy["to"], copy["entries"], copy["seconds"], copy["sha256"][:32])
            for copy in result["journey"]
        ],
    )
    done = result["compaction"]
    _title("The last copy without what was completed")
    removed = f"{done['records']} records, {done['events']} events, {done['versions']} versions"
    facts = [("removed", removed)]
    if done["bytes_before"] is not None:
        facts.append(("bytes before", f"{done['bytes_before']:,}"))
        facts.append(("bytes after", f"{done['bytes_after']:,}"))
    facts.append(("not reclaimed", done["skipped"] or "nothing"))
    faults = ", ".join(done["faults"]) or "every body, index entry, label and event agrees"
    output.print_facts([*facts, ("recounted in depth", faults)])


def closing(result: dict[str, Any]) -> None:
    """Whether all is there, and how to see for oneself."""
    _title("Verified")
    for problem in result["problems"]:
        click.echo(f"  WRONG: {output.plain(problem)}")
    if not result["problems"]:
        click.echo(
            f"  {result['acknowledged']} acknowledged changes of {result['executions']} executions"
            " are all there, the counters equal\n  the records, and a check of the database finds"
            " no fault"
        )
    if result["look"]:
        _title("Look at it yourself")
        for command in result["look"]:
            click.echo(f"  {command}")
    click.echo(f"\n{result['seconds']:.1f} s")


def _title(text: str) -> None:
    click.echo("\n" + click.style(output.plain(text), bold=True))


def _program() -> str:
    """How the command line is called here."""
    called = Path(sys.argv[0]).name == "storebridge"
    if shutil.which("storebridge") or not called:
        return "storebridge"
    return shlex.quote(sys.argv[0])


def commands(location: Location, execution_id: str) -> list[str]:
    """Commands that look at the demo's files, or at its tables on a server."""
    path = shlex.quote(location.text if location.path is None else str(location.path))
    program = _program()
    ours = [
        f"{program} info {path}",
        f"{program} executions list --state Failed -l {path}",
        f"{program} executions history {execution_id} -l {path}",
    ]
    tools = [tool.format(path=path) for tool in _TOOLS.get(location.backend.name, ())]
    return [*ours, *tools]
