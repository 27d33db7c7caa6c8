"""The groups `jobs` and `executions`, with their options and help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from storebridge.cli import records, recovery
from storebridge.cli.options import F, Where, json_option, with_location, yes_option
from storebridge.cli.records import EXECUTIONS, JOBS, Kind
from storebridge.expect import Expect
from storebridge.query import MAX_LIMIT


@click.group()
def jobs() -> None:
    """Jobs: list, show, history, set-state, delete, recover.

    \b
    Example:
      storebridge jobs list --state Pending
      storebridge jobs --help
    """


@click.group()
def executions() -> None:
    """Executions: list, show, history, set-state, delete, recover.

    \b
    Example:
      storebridge executions list --orphans
      storebridge executions --help
    """


def _list_options(function: F) -> F:
    for option in reversed(
        (
            click.option(
                "--namespace", multiple=True, metavar="NAME", help="Only of this namespace."
            ),
            click.option("--prefix", metavar="TEXT", help="Only ids that start with this text."),
            records.time_option("--created-from", "Created at this time or later."),
            records.time_option("--created-until", "Created before this time."),
            click.option(
                "--sort",
                type=click.Choice(["created_at", "modified_at", "id"]),
                help="By what.  [default: created_at]",
            ),
            click.option("--descending", is_flag=True, help="The last ones first."),
            click.option(
                "--limit",
                type=click.IntRange(1, MAX_LIMIT),
                default=100,
                show_default=True,
                help="At most so many.",
            ),
            click.option("--all", "everything", is_flag=True, help="All, not only --limit."),
            click.option("--cursor", metavar="CURSOR", help="Go on behind an earlier list."),
        )
    ):
        function = option(function)
    return function


def _state_option(kind: Kind) -> Callable[[F], F]:
    return click.option(
        "--state",
        multiple=True,
        metavar="STATE",
        help=f"{', '.join(kind.states)}; several times: any of them.",
    )


@jobs.command("list")
@with_location
@json_option
@_state_option(JOBS)
@click.option("--type", "type_", multiple=True, metavar="TYPE", help="batch, ops, service, daemon.")
@click.option("--labels", metavar="SELECTOR", help="As in Kubernetes: team=web,tier in (a,b),!old")
@_list_options
def _list_jobs(where: Where, as_json: bool, type_: tuple[str, ...], **query: Any) -> None:
    """List jobs, the oldest first. With --json one job on each line.

    \b
    Example:
      storebridge jobs list --state Pending --state Queued
      storebridge jobs list --labels 'team=web,tier in (a,b)' --json
    """
    records.list_records(JOBS, where, as_json, type=type_, **query)


@executions.command("list")
@with_location
@json_option
@_state_option(EXECUTIONS)
@click.option("--job", metavar="ID", help="Attempts to run this job.")
@click.option("--node", "node_id", multiple=True, metavar="NODE", help="On this node.")
@click.option(
    "--orphans", is_flag=True, help="Only those whose owner, on --node or NODE_ID, is gone."
)
@_list_options
def _list_executions(
    where: Where, as_json: bool, job: str | None, orphans: bool, **query: Any
) -> None:
    """List executions, the oldest first. With --json one execution on each line.

    \b
    Example:
      storebridge executions list --state Running -l node.db
      storebridge executions list --job j-1f3a --json
      NODE_ID=pi4 storebridge executions list --orphans
    """
    if orphans:
        nodes = query.pop("node_id")
        if job or any(
            value for name, value in query.items() if name not in ("limit", "everything")
        ):
            raise click.UsageError("--orphans lists them all: beside it only --node is heeded")
        records.list_orphans(where, as_json, nodes)
        return
    job_id = records.job_prefix_resolved(where, job)
    records.list_records(EXECUTIONS, where, as_json, job_id=job_id, **query)


def _add_show(group: click.Group, kind: Kind, *, versions: bool) -> None:
    def show(where: Where, record_id: str, as_json: bool, version: int | None = None) -> None:
        records.show_record(kind, where, record_id, as_json, version)

    command: F = with_location(json_option(show))
    if versions:
        command = click.option("--version", type=int, metavar="N", help="An old version.")(command)
    command = click.argument("record_id", metavar="ID")(command)
    text = f"Show the {kind.name} with this id, or the only one whose id starts with it."
    _add(
        group, "show", command, text, f"{group.name} show {kind.name[0]}-1f3a", f"Show {kind.one}."
    )


def _add_history(group: click.Group, kind: Kind) -> None:
    def history(where: Where, record_id: str, as_json: bool) -> None:
        records.show_history(kind, where, record_id, as_json)

    command = click.argument("record_id", metavar="ID")(with_location(json_option(history)))
    short = f"Show what happened to {kind.one}."
    text = (
        f"{short[:-1]}, oldest first; also when it was deleted since, if its id is given whole."
        " With --json one event on each line."
    )
    _add(group, "history", command, text, f"{group.name} history {kind.name[0]}-1f3a", short)


def _add_set_state(group: click.Group, kind: Kind) -> None:
    def set_state(
        where: Where,
        record_id: str,
        state: str,
        message: str | None,
        as_json: bool,
        **expect: Any,
    ) -> None:
        records.set_state(kind, where, record_id, state, message, _expect(**expect), as_json)

    command = _expect_options(with_location(json_option(set_state)))
    command = click.option("--message", "-m", metavar="TEXT", help="Why.")(command)
    command = click.argument("state")(command)
    command = click.argument("record_id", metavar="ID")(command)
    text = f"Pass {kind.one} into STATE: {', '.join(kind.states)}. Prints its id and state."
    example = f"{group.name} set-state {kind.name[0]}-1f3a Failed -m 'disk broken'"
    _add(group, "set-state", command, text, example, f"Pass {kind.one} into a state.")


def _add_delete(group: click.Group, kind: Kind) -> None:
    def delete(
        where: Where,
        ids: tuple[str, ...],
        as_json: bool,
        yes: bool,
        unreadable: bool,
        **expect: Any,
    ) -> None:
        wanted = _expect(**expect)
        records.delete(kind, where, ids, wanted, as_json, yes=yes, unreadable=unreadable)

    command = _expect_options(with_location(json_option(yes_option(delete))))
    command = click.option(
        "--unreadable", is_flag=True, help="Take out records whose bodies cannot be read."
    )(command)
    command = click.argument("ids", metavar="ID...", nargs=-1, required=True)(command)
    short = f"Delete {group.name}; their history stays."
    text = (
        f"Delete {group.name}, all that are named or none; their history stays. On a terminal it"
        " asks first."
    )
    _add(group, "delete", command, text, f"{group.name} delete {kind.name[0]}-1f3a --yes", short)


def _expect_options(function: F) -> F:
    function = click.option(
        "--if-state", multiple=True, metavar="STATE", help="Only if it is in this state."
    )(function)
    return click.option(
        "--if-revision", type=int, metavar="N", help="Only if it is at this revision."
    )(function)


def _expect(if_state: tuple[str, ...], if_revision: int | None) -> Expect:
    return Expect(states=if_state or None, revision=if_revision)


def _add(group: click.Group, name: str, command: F, text: str, example: str, short: str) -> None:
    text = f"{text}\n\n\b\nExample:\n  storebridge {example}\n  storebridge {example} --json"
    group.add_command(click.command(name, help=text, short_help=short)(command))


for _group, _kind in ((jobs, JOBS), (executions, EXECUTIONS)):
    _add_show(_group, _kind, versions=_kind is JOBS)
    _add_history(_group, _kind)
    _add_set_state(_group, _kind)
    _add_delete(_group, _kind)

jobs.add_command(recovery.recover_jobs)
executions.add_command(recovery.recover_executions)
