"""What a driver may be able to do besides the contract. The layer above asks with `isinstance`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable


class Usage(NamedTuple):
    """What a database takes on disk, in bytes, side files included."""

    size: int
    free: int
    """How much of it holds nothing, or only what was replaced: what reclaiming would give back."""


class Reclaimed(NamedTuple):
    """What `Compactor.reclaim` did, in bytes on disk, side files included."""

    before: int
    after: int
    skipped: str | None = None
    """Why nothing was reclaimed, in one line: `process 4711 has it open`; None if it was done."""


@runtime_checkable
class Compactor(Protocol):
    """A driver that can give free space in its files back to the system."""

    def usage(self) -> Usage:
        """What is used and free now. Costs little, however large the database is."""

    def reclaim(self, breathe: Callable[[], None]) -> Reclaimed:
        """Make the files as small as the content allows.

        Called by the only writer of the process, with no write transaction open; readers of other
        threads may come and go. A driver that can work in steps calls `breathe` between them, with
        nothing locked: other writers get their turn there. One that must have the file alone does
        not wait for other processes, but skips and says so. Whatever moment the process is killed
        at, the files hold the old content or the new, which are the same. Where the disk has not
        enough room for the work, DriverError of kind FULL before anything is touched.
        """
