"""One run of compaction: hooks, retention, reclaiming, and the report of it all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from storebridge import meta
from storebridge.check import Watch
from storebridge.compaction.hooks import Consent
from storebridge.compaction.pace import Pace
from storebridge.compaction.pruning import Pruner
from storebridge.compaction.report import CompactionReport
from storebridge.compaction.retention import Retention, check_rules
from storebridge.driver.capabilities import Compactor, Tidier
from storebridge.errors import StorebridgeError, TransactionError
from storebridge.times import rfc3339

if TYPE_CHECKING:
    from storebridge.database import Database

logger = logging.getLogger("storebridge")


def compact(
    database: Database,
    rules: Sequence[Retention],
    *,
    above: float | None,
    dry_run: bool,
    watch: Watch | None,
) -> CompactionReport:
    """See `Database.compact`. `above`: the free share from which space is given back, if at all."""
    started = perf_counter()
    _check_may(database, dry_run=dry_run)
    layouts = list(database.refresh().values())
    check_rules(rules, layouts)
    before = _size(database)
    consent = Consent(database.hooks)
    pruner = Pruner(database, rules, consent, watch, dry_run=dry_run)
    skipped = None
    if dry_run or consent.before(rules):
        for layout in layouts:
            pruner.prune(layout)
        if above is not None and not dry_run:
            skipped = _make_room(database, pruner.pace, above)
    else:
        skipped = "a hook did not let it begin"
    report = CompactionReport(
        before=before,
        after=_size(database),
        pruned=pruner.pruned,
        kept=consent.kept,
        failed=consent.failed,
        notes=(*_notes(database, rules, pruner), *consent.failures),
        skipped=skipped,
        longest_pause=pruner.pace.longest,
        seconds=perf_counter() - started,
        dry_run=dry_run,
    )
    if not dry_run:
        consent.after(report)
    return report


def free_share(database: Database) -> float | None:
    """How much of the files holds nothing; None where the engine does not say."""
    if not isinstance(database.driver, Compactor):
        return None
    return database._guarded(database.driver.usage).share


def _make_room(database: Database, pace: Pace, above: float) -> str | None:
    if not isinstance(database.driver, Tidier):
        return reclaim(database, pace, above)
    try:
        return database._guarded(database.driver.tidy)
    except StorebridgeError as error:
        return str(error)


def reclaim(database: Database, pace: Pace, above: float) -> str | None:
    """Give free space back, if it is worth it. Returns why not, or not all."""
    share = free_share(database)
    if share is None or not isinstance(database.driver, Compactor):
        return "the engine sees to its space by itself"
    if share < above:
        return f"{share:.0%} of the space is free, which is under {above:.0%}"
    try:
        reclaim = partial(database.driver.reclaim, pace.breathe)
        return pace.hold(lambda: database._guarded(reclaim).skipped)
    except StorebridgeError as error:
        return str(error)


def _check_may(database: Database, *, dry_run: bool) -> None:
    if database.in_transaction:
        raise TransactionError("compact() cannot be undone, so it cannot be in a transaction")
    if not dry_run:
        database._check_writable()  # before any hook is asked
        if database.is_in_a_write:
            raise database._turn.in_between()


def _size(database: Database) -> int | None:
    if isinstance(database.driver, Tidier):
        return database._guarded(database.driver.size)
    if isinstance(database.driver, Compactor):
        return database._guarded(database.driver.usage).size
    return None


def _notes(database: Database, rules: Sequence[Retention], pruner: Pruner) -> list[str]:
    notes = [
        f"{number} {'record stays' if number == 1 else 'records stay'}: {why}"
        for why, number in sorted(pruner.left.items())
    ]
    since = max((rule.checkpoints_keep for rule in rules if rule.removes_events), default=None)
    if since is None:
        return notes
    last = database.sequence()
    for name, checkpoint in database.read(meta.read_checkpoints).items():
        if checkpoint.sequence < last and checkpoint.at >= rfc3339(database.clock() - since):
            notes.append(
                f"events after {checkpoint.sequence} wait for checkpoint {name!r},"
                f" set at {checkpoint.at}"
            )
    return notes
