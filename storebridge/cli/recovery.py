"""`storebridge executions recover` and `storebridge jobs recover`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from storebridge.cli import output
from storebridge.cli.options import F, Where, json_option, with_location
from storebridge.cli.records import EXECUTIONS, JOBS, opened
from storebridge.configuration import node_id_from_environment
from storebridge.executions import ExecutionStore
from storebridge.jobs import JOB, JobStore
from storebridge.recovery import Recovered, RecoveryReport

_DONE = {"fail": "failed", "requeue": "requeued", "leave": "left"}


def _options(function: F) -> F:
    function = click.option(
        "--dry-run", is_flag=True, help="Only say what would be done; changes nothing."
    )(function)
    return click.option(
        "--node",
        metavar="NODE",
        help="The node that this runs on, whose processes can be seen.  [default: NODE_ID]",
    )(function)


@click.command("recover")
@with_location
@json_option
@_options
def recover_executions(where: Where, as_json: bool, node: str | None, dry_run: bool) -> None:
    """Recover executions whose owner is gone.

    Gone is a process of this node that has ended, or one of another node whose lease has run out.
    Running executions of batch and ops jobs are failed, those of services and daemons requeued;
    what runs no more, or not yet, is left and listed. Jobs in the same database follow. A service
    with a policy of its own recovers by itself when it starts.

    \b
    Example:
      storebridge executions recover --node pi4 --dry-run
      NODE_ID=pi4 storebridge executions recover -l node.db --json
    """
    with opened(EXECUTIONS, where, writing=not dry_run) as store:
        assert isinstance(store, ExecutionStore)
        database = store.database
        its_jobs = JobStore(database) if JOB.name in database.layouts else None
        node_id = node or node_id_from_environment(prefix=where.env_prefix)
        report = store.recover(node_id=node_id, jobs=its_jobs, dry_run=dry_run)
    if as_json:
        output.print_json(asdict(report))
    else:
        _print(report, node_id)


def _print(report: RecoveryReport, node_id: str | None) -> None:
    if report.found:
        headers = ("execution", "job", "type", "was", "recovery", "because", "next")
        output.print_rows(headers, [_cells(found, report.dry_run) for found in report.found])
    waiting = [f"{count} {state}" for state, count in report.waiting.items()]
    output.print_facts(
        [
            ("failed", len(report.failed)),
            ("requeued", len(report.requeued)),
            ("left", len(report.left)),
            ("held by their owner", report.held),
            ("on other nodes without a lease", report.unseen),
            ("waiting for nobody", waiting),
            ("unreadable", report.unreadable),
        ]
    )
    if report.unseen and node_id is None:
        output.print_facts([("note", "which node this is was not said: give --node, or NODE_ID")])


def _cells(found: Recovered, dry_run: bool) -> tuple[Any, ...]:
    done = str(found.action) if dry_run else _DONE[found.action]
    return (
        output.short(found.id),
        output.short(found.job_id),
        found.job_type,
        found.state,
        done,
        found.reason,
        output.short(found.next_id),
    )


@click.command("recover")
@with_location
@json_option
@_options
def recover_jobs(where: Where, as_json: bool, node: str | None, dry_run: bool) -> None:
    """Release jobs whose claimer is gone.

    Jobs that a process has claimed, and not begun before it ended, or before its lease ran out, are
    pending again. A job that runs is recovered with its execution: `executions recover`. With
    --json one job on each line.

    \b
    Example:
      storebridge jobs recover --node pi4 --dry-run
      NODE_ID=pi4 storebridge jobs recover -l node.db --json
    """
    with opened(JOBS, where, writing=not dry_run) as store:
        assert isinstance(store, JobStore)
        node_id = node or node_id_from_environment(prefix=where.env_prefix)
        released = store.recover(node_id=node_id, dry_run=dry_run)
        bodies = [store.codec.encode(job) for job in released]
        # A dry run has the jobs as they are, and not yet the message.
        why = [store.standing(job, node_id).reason if dry_run else job.message for job in released]
    if as_json:
        for body in bodies:
            output.print_body(body)
        return
    cells = [
        (output.short(job.id), job.name, job.state, reason)
        for job, reason in zip(released, why, strict=True)
    ]
    if cells or not output.on_terminal():
        output.print_rows(("job", "name", "state", "because"), cells)
    else:
        output.print_facts([("released", 0)])
