"""Bringing a database of an older layout to this one.

What it holds is read, turned into what a database of the next layout holds, step by step, and
written into a new database beside it, which takes its place when it was read again and is right. So
an upgraded database is laid out as a fresh one, the old one is kept whole, and whatever moment the
process is killed at, the next opening finds the one or the other, or goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from storebridge import meta
from storebridge.errors import ConflictError, CorruptStoreError, LayoutVersionError
from storebridge.location import Location
from storebridge.opening import open_even_incomplete
from storebridge.transfer import places
from storebridge.transfer.content import Content, content_of
from storebridge.transfer.digests import digest_of
from storebridge.transfer.filling import Filling

logger = logging.getLogger("storebridge")
_WHAT = "upgrade"
Upgrade = Callable[[Content], Content]
"""Turns what a database of one layout holds into what one of the next layout holds: its stores'
tables, and their entries, still in order of their keys."""

UPGRADES: Mapping[int, Upgrade] = {}
"""By the layout that they start from. Layout 1 is the first."""


def upgrade(location: Location) -> Path | None:
    """Bring the database at a location, which nobody has open, to this layout. Returns where the
    old one is kept; None if there was nothing to do.

    LayoutVersionError where no way leads from its layout to this one; StoreLockedError while a
    process has it open or upgrades it; ConflictError if it was changed meanwhile. It is then as
    before, and the next call goes on.
    """
    made = _place(location)
    with Filling(made, _WHAT, places.spelled(location)) as filling:
        # Looked at only now: another process may have upgraded it while this one waited.
        layout = _copy(location, filling)
        kept = None if layout is None else filling.settle(location)
    if layout is None:
        places.remove(made)
        return None
    logger.warning(
        "%s: upgraded from layout %d to %d; the old one is kept at %s",
        location.text,
        layout,
        meta.LAYOUT,
        kept,
    )
    return kept


def _place(location: Location) -> Location:
    made = places.beside(location)
    if made is None:
        raise LayoutVersionError(
            f"{location.text}: laid out by an older storebridge, and no file that could be made"
            " anew: export it with that one, and import it with this one into a new place"
        )
    found = places.look(made, is_ours=True)
    if found.holds and (found.transfer is None or found.transfer.what != _WHAT):
        raise LayoutVersionError(f"{made.text}: is in the way of an upgrade: move it elsewhere")
    return made


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
