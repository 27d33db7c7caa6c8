"""`storebridge demo`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from storebridge.cli import output, overview
from storebridge.cli.demo import afterwards, show, verify
from storebridge.cli.demo.nodes import NodeProcess, NodeThread
from storebridge.cli.demo.scenario import Story, play
from storebridge.cli.failures import NO, USAGE, Failure
from storebridge.cli.options import for_reading, json_option
from storebridge.cli.records import print_events
from storebridge.events import Event
from storebridge.executions import ExecutionStore
from storebridge.jobs import JobStore
from storebridge.location import Location, parse_location
from storebridge.opening import open_database


@click.command()
@click.option("--backend", default="sqlite", metavar="NAME", show_default=True, help="Engine.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A new or empty folder for the database.  [default: a temporary one, which stays]",
)
@click.option(
    "--location",
    "-l",
    metavar="LOCATION",
    help="A new database, instead of one in a folder: on a server, for one.",
)
@json_option
def demo(backend: str, keep: Path | None, location: str | None, as_json: bool) -> None:
    """Run real commands on a node, kill it halfway, start it again.

    The node is the service in examples/node, a process of its own that environment variables tell
    where its stores are. It runs over 40 commands as executions, four at once. Halfway it is killed
    with SIGKILL. Started again it recounts, recovers the executions whose owner is gone (its policy
    fails some and requeues others), and finishes. Then it is verified that every acknowledged
    change is there and that the counters equal the records; exits with 1 if not. At last the
    database is migrated round all engines, and what was completed goes from the last copy.

    \b
    Example:
      storebridge demo
      storebridge demo --backend lmdb --keep /tmp/demo --json
      storebridge demo --location 'postgresql+psycopg://user@host/database?schema=demo'
    """
    if location is not None:
        persistent, folder, place = True, _folder(keep), location
        _refuse_used(parse_location(place))
    else:
        persistent = overview.traits_of(backend).persistent
        folder = _folder(keep) if persistent else Path()
        place = overview.new_location(backend, folder, "node")
    parsed = parse_location(place)
    with show.progress(quiet=as_json) as watch, _node(place, folder, persistent) as node:
        story = play(node, watch)
        with _stores(node, parsed) as (jobs, executions):
            result, events = _result(story, node.how, parsed, jobs, executions)
    if persistent:
        _move(result, parsed, folder)
    if as_json:
        output.print_json(result | {"history": msgspec.to_builtins(events)})
    else:
        show.summary(result)
        _print_history(result, events)
        show.afterwards(result)
        show.closing(result)
    if result["problems"]:
        click.get_current_context().exit(NO)


def _move(result: dict[str, Any], location: Location, folder: Path) -> None:
    """Round all engines; the last copy is then made smaller."""
    result["journey"] = copies = afterwards.journey(location, folder)
    if len({copy["sha256"] for copy in copies}) > 1:
        result["problems"].append("the copies on other engines differ from each other")
        result["ok"] = False
    result["compaction"] = done = afterwards.compacted(copies[-1]["location"])
    if done["faults"]:
        result["problems"].append("what compaction left does not agree")
        result["ok"] = False


def _folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="storebridge-demo-"))
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise Failure(f"{keep}: is not empty; name a new folder", USAGE)
    return keep.absolute()


def _refuse_used(location: Location) -> None:
    """What is told of is a database of the demo's own."""
    with open_database(location) as database:
        if JobStore(database).count() or ExecutionStore(database).count():
            raise Failure(f"{location.text}: has jobs or executions; name a new database", USAGE)


@contextmanager
def _node(location: str, folder: Path, persistent: bool) -> Iterator[NodeProcess | NodeThread]:
    if persistent:
        yield NodeProcess(location, folder / "node.log")
        return
    node = NodeThread(location)
    try:
        yield node
    finally:
        node.close()


@contextmanager
def _stores(
    node: NodeProcess | NodeThread, location: Location
) -> Iterator[tuple[JobStore, ExecutionStore]]:
    """The stores after the node has ended."""
    if isinstance(node, NodeThread):
        yield node.jobs, node.executions
        return
    with for_reading(location) as database:
        yield JobStore(database), ExecutionStore(database)


def _result(
    story: Story, how: str, location: Location, jobs: JobStore, executions: ExecutionStore
) -> tuple[dict[str, Any], list[Event]]:
    problems = verify.problems(story, jobs, executions)
    orphans = [_orphan(story, executions, record_id) for record_id in story.orphans]
    shown = next((o["id"] for o in orphans if o["next_id"]), story.acknowledged[0][0])
    result = {
        "backend": location.backend.name,
        "location": location.text,
        "jobs": len(story.jobs),
        "executions": len(dict(story.acknowledged)),
        "acknowledged": len(story.acknowledged),
        "interrupt": {
            "how": how,
            "jobs_ended": story.ended_before,
            "running": list(story.interrupted),
        },
        "restart": {
            "stopped_uncleanly": story.unclean,
            "recount": story.drift,
            "orphans": orphans,
        },
        "counts": {"job": jobs.counts(), "execution": executions.counts()},
        "ok": not problems,
        "problems": problems,
        "look": show.commands(location, shown) if jobs.database.driver.traits.persistent else [],
        "seconds": round(story.seconds, 2),
        "shown": shown,
    }
    return result, executions.history(shown)


def _orphan(story: Story, executions: ExecutionStore, record_id: str) -> dict[str, Any]:
    execution = executions.get(record_id)
    return {
        "id": execution.id,
        "job": story.jobs[execution.job_id],
        "message": execution.message,
        "action": "requeue" if record_id in story.requeued else "fail",
        "next_id": execution.next_id,
    }


def _print_history(result: dict[str, Any], events: list[Event]) -> None:
    click.echo("\n" + click.style(f"History of execution {result['shown']}", bold=True))
    print_events(events)
