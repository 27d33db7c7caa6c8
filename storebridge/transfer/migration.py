"""Migrating: what one database holds, into another of any backend."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from storebridge.database import Database
from storebridge.driver import Versioned
from storebridge.errors import ConfigurationError, ConflictError, CorruptStoreError
from storebridge.location import Location, location_of
from storebridge.opening import is_same_place
from storebridge.transfer import places
from storebridge.transfer.content import Content, content_of, tables_of
from storebridge.transfer.digests import Digest, Digester, TableDigest, digest_of
from storebridge.transfer.filling import Filling
from storebridge.transfer.progress import Counter, Watch, require_sound
from storebridge.transfer.readable import Readable, Skipped

_ROUNDS = 3


@dataclass(frozen=True)
class MigrationReport:
    """What a migration did."""

    source: str
    target: str
    complete: bool
    """False for a dry run: nothing was written."""
    digest: Digest
    """Of what was copied; the target was read anew and holds exactly that, and so did the source at
    the end."""
    skipped: tuple[Skipped, ...]
    """Entries that were left out, as their bodies cannot be read."""
    added: int = 0
    """Entries written in this run."""
    replaced: int = 0
    """Entries that an earlier run had written and the source has changed since."""
    removed: int = 0
    """Entries that an earlier run had written and the source has removed since."""
    resumed: bool = False
    """Whether it went on with what an earlier run had begun."""
    replaces: Path | None = None
    """Where the database is now that was at the target before."""
    seconds: float = 0.0


def migrate(
    source: Database,
    target: str | Path | Location,
    *,
    overwrite: bool = False,
    skip_quarantined: bool = False,
    dry_run: bool = False,
    watch: Watch = lambda progress: None,
) -> MigrationReport:
    """See `Database.migrate_to`."""
    started = perf_counter()
    location = location_of(target)
    if is_same_place(location, source.location):
        raise ConfigurationError(f"{location.text}: a database cannot be migrated to itself")
    name = places.spelled(source.location)
    work = places.workplace(location, "migrate", name, overwrite=overwrite)
    counter = Counter(source, watch)
    counter.begin("check")
    require_sound(source)
    if dry_run:
        return _dry_run(source, location, counter, started)
    with Filling(work, "migrate", name, skip_quarantined) as filling:
        digest = _copy(source, filling, counter)
        replaced = filling.settle(location)
    changes = filling.changes
    return MigrationReport(
        source=source.location.text,
        target=location.text,
        complete=True,
        digest=digest,
        skipped=filling.skipped,
        added=changes.added,
        replaced=changes.replaced,
        removed=changes.removed,
        resumed=filling.resumed is not None,
        replaces=replaced,
        seconds=perf_counter() - started,
    )


def _copy(source: Database, filling: Filling, counter: Counter) -> Digest:
    """Copy and compare until both sides hold the same. Further rounds copy what was changed in the
    source meanwhile."""
    for _ in range(_ROUNDS):
        try:
            with _version_of(source) as stands:
                with content_of(source) as content:
                    copied = filling.fill(content, counter.begin("copy"))
                    _require_counted(content, copied, filling.skipped)
                there = filling.read_again(counter.begin("verify"))
                if there == copied and stands():
                    return copied
            with content_of(source) as content:
                current = digest_of(content, without=filling.left_out, tell=counter.begin("verify"))
        except ConflictError:
            continue  # the source was written to while it could not be locked
        if there == copied == current:
            return copied
        if copied == current:
            raise CorruptStoreError(
                f"{filling.name}: what is read is not what was written: check the disk"
            )
    raise ConflictError(
        f"{source.location.text}: is being written to: stop its writers and give the same command"
        " again, only what they have changed is left to copy"
    )


@contextmanager
def _version_of(source: Database) -> Iterator[Callable[[], bool]]:
    """In the block: asks whether nothing was committed to the source since. Where its engine cannot
    tell, False: then whoever has to know reads it again."""
    driver = source.driver
    if not isinstance(driver, Versioned):
        yield lambda: False
        return
    with closing(source._guarded(driver.hold_version)) as version:
        yield partial(source._guarded, version.stands)


def _require_counted(content: Content, copied: Digest, skipped: Iterable[Skipped]) -> None:
    """The counters are kept apart from the records: they know of those that an engine cannot find
    any more, and does not miss."""
    left_out = Counts(each.table for each in skipped)
    for layout in content.layouts:
        table = layout.record.name
        entries = copied.tables[table].entries + left_out[table]
        states = (n for name, n in copied.totals.items() if name.startswith(layout.counter("")))
        if entries < (counted := sum(states)):
            raise CorruptStoreError(
                f"{content.name}: table {table} has {entries} records, and the counters say"
                f" {counted}: check it; where none is missing: storebridge recount --repair"
            )


def _dry_run(
    source: Database, location: Location, counter: Counter, started: float
) -> MigrationReport:
    found = places.look(location)
    readable = Readable(skip=True)
    digests: dict[str, TableDigest] = {}
    tell = counter.begin("copy")
    with content_of(source) as content:
        for table in tables_of(content.layouts):
            digester = Digester()
            for _ in readable.pages(table, content, digester, lambda rows, values: None, tell):
                pass
            digests[table.name] = digester.result()
        digest = Digest(digests, content.totals())
    return MigrationReport(
        source=source.location.text,
        target=location.text,
        complete=False,
        digest=digest,
        skipped=readable.skipped,
        resumed=found.transfer is not None,
        seconds=perf_counter() - started,
    )
