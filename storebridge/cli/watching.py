"""The command that shows events as they come."""

from __future__ import annotations

import click
import msgspec

from storebridge.cli import output
from storebridge.cli.failures import Failure
from storebridge.cli.options import Where, for_reading, for_writing, json_option, with_databases
from storebridge.cli.records import event_cells
from storebridge.errors import EventsExpiredError
from storebridge.events import Event


@click.command()
@with_databases
@json_option
@click.option("--after", type=int, metavar="N", help="Begin behind event N; 0: with the first.")
@click.option(
    "--from-checkpoint",
    metavar="NAME",
    help="Begin there, and move it on; with --after, set it there first.",
)
@click.option("--store", "stores", multiple=True, metavar="NAME", help="Only of this store.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only those into STATE.")
@click.option("--timeout", type=float, metavar="SECONDS", help="End when nothing happened so long.")
def watch(
    where: Where,
    as_json: bool,
    after: int | None,
    from_checkpoint: str | None,
    stores: tuple[str, ...],
    states: tuple[str, ...],
    timeout: float | None,
) -> None:
    """Show what happens to records, as it happens: each event once, in order.

    Begins with what comes from now on, unless told otherwise. With a checkpoint, which is kept in
    the database, what happens while nobody watches is shown the next time; one that was never set
    is at the first event. Ends with Ctrl-C.

    \b
    Example:
      storebridge watch node.db --state Failed
      storebridge watch node.db --from-checkpoint mailer --json | while read -r event; do …; done
    """
    opened = for_reading if from_checkpoint is None else for_writing
    with opened(where.only()) as database:
        if after is not None and from_checkpoint is not None:
            database.set_checkpoint(from_checkpoint, after)
        events = database.watch(
            after if from_checkpoint is None else None,
            stores=stores or None,
            states=states or None,
            checkpoint=from_checkpoint,
            timeout=timeout,
        )
        try:
            for event in events:
                _print(event, as_json)
        except EventsExpiredError as error:
            last = database.sequence()
            raise Failure(f"{error}; or begin with what comes now: --after {last}") from error


def _print(event: Event, as_json: bool) -> None:
    if as_json:
        output.print_body(msgspec.json.encode(event))
        return
    sequence, *rest = event_cells(event)
    cells = (sequence, event.store, output.short(event.record_id), *rest)
    click.echo("\t".join(output.plain(cell) for cell in cells))
