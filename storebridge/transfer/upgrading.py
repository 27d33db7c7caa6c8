"""Bringing a database of an older layout to this one.

What it holds is read, turned into what a database of the next layout holds, step by step, and
written into a new database beside it, which takes its place when it was read again and is right. So
an upgraded database is laid out as a fresh one, the old one is kept whole, and whatever moment the
process is killed at, the next opening finds the one or the other, or goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from storebridge import meta
from storebridge.driver import DriverError
from storebridge.driver.capabilities import Replaceable, Replacement
from storebridge.errors import ConflictError, CorruptStoreError, LayoutVersionError
from storebridge.location import Location
from storebridge.opening import open_even_incomplete
from storebridge.transfer import places
from storebridge.transfer.content import Content, content_of
from storebridge.transfer.digests import digest_of
from storebridge.transfer.filling import Filling
from storebridge.transfer.places import put_in_place
from storebridge.translation import translated

logger = logging.getLogger("storebridge")
_WHAT = "upgrade"
Upgrade = Callable[[Content], Content]
"""Turns what a database of one layout holds into what one of the next layout holds: its stores'
tables, and their entries, still in order of their keys."""

UPGRADES: Mapping[int, Upgrade] = {}
"""By the layout that they start from. Layout 1 is the first."""


class _Site(NamedTuple):
    """Where the new database is made, and how it gets from there to where the old one is."""

    made: Location
    put: Callable[[Location, Location], Path | str | None]
    remove: Callable[[], None]


def upgrade(location: Location) -> Path | str | None:
    """Bring the database at a location, which nobody has open, to this layout. Returns where the
    old one is kept; None if there was nothing to do, or another process was faster.

    LayoutVersionError where no way leads from its layout to this one; StoreLockedError while a
    process has it open or upgrades it; ConflictError if it was changed meanwhile. It is then as
    before, and the next call goes on.
    """
    with _site(location) as site:
        return None if site is None else _upgrade(location, site)


def _upgrade(location: Location, site: _Site) -> Path | str | None:
    _require_ours(site.made)
    with Filling(site.made, _WHAT, places.spelled(location)) as filling:
        # Looked at only now: another process may have upgraded it while this one waited.
        layout = _copy(location, filling)
        kept = None if layout is None else filling.settle_by(site.put, location)
    if layout is None:
        site.remove()
        return None
    logger.warning(
        "%s: upgraded from layout %d to %d; the old one is kept at %s",
        location.text,
        layout,
        meta.LAYOUT,
        kept,
    )
    return kept


@contextmanager
def _site(location: Location) -> Iterator[_Site | None]:
    """None: there is nothing to do."""
    backend, options = location.backend, location.options
    made = places.beside(location)
    if made is not None:
        yield _Site(made, put_in_place, partial(places.remove, made))
    elif location.path is None and isinstance(backend, Replaceable):
        with _translating(location), backend.alone(location.target, options, _is_due) as found:
            yield None if found is None else _site_on_server(location, found)
    else:
        raise LayoutVersionError(
            f"{location.text}: laid out by an older storebridge, and no file that could be made"
            " anew: export it with that one, and import it with this one into a new place"
        )


def _site_on_server(location: Location, replacement: Replacement) -> _Site:
    extra = {**location.options.extra, **replacement.options}
    options = replace(location.options, extra=extra, create=True)
    chosen = "&".join(f"{name}={value}" for name, value in replacement.options.items())
    made = replace(location, options=options, text=f"{location.text.partition('?')[0]}?{chosen}")
    return _Site(made, lambda *_: replacement.put_in_place(), replacement.remove)


@contextmanager
def _translating(location: Location) -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        raise translated(error, error.kind, location.text) from error


def _is_due(layout: int) -> bool:
    return layout < meta.LAYOUT


def _require_ours(made: Location) -> None:
    found = places.look(made, is_ours=True)
    if found.holds and (found.transfer is None or found.transfer.what != _WHAT):
        raise LayoutVersionError(f"{made.text}: is in the way of an upgrade: move it elsewhere")


def _copy(location: Location, filling: Filling) -> int | None:
    """Fill with what the old database holds. Returns its layout; None if it is none any more."""
    options = replace(location.options, read_only=True, create=False)
    readable = replace(location, options=options)
    with open_even_incomplete(readable) as source:
        layout = source.driver.layout()
        if layout is None or layout >= meta.LAYOUT:
            return None
        with content_of(source) as content:
            before = digest_of(content)
            copied = filling.fill(_upgraded(content, layout))
    if filling.read_again() != copied:
        raise CorruptStoreError(f"{filling.name}: what is read is not what was written")
    with open_even_incomplete(readable) as source, content_of(source) as content:
        if digest_of(content) != before:
            raise ConflictError(f"{location.text}: was changed while it was upgraded: try again")
    return layout


def _upgraded(content: Content, layout: int) -> Content:
    for step in range(layout, meta.LAYOUT):
        if step not in UPGRADES:
            raise LayoutVersionError(
                f"{content.name}: no way leads from layout {layout} to {meta.LAYOUT}: restore it"
                " with the storebridge that made it, and export it"
            )
        content = UPGRADES[step](content)
    return content
