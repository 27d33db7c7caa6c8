"""What a backend's package provides: the object that its entry point names, and how it is told to
open a location."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from storebridge.driver.contract import Driver, Durability


@dataclass(frozen=True)
class Options:
    """How a database is to be opened. `extra` holds a backend's own options from the location, as
    text.
    """

    read_only: bool = False
    create: bool = True
    """False: a location where nothing is yet is an error of kind CONFIGURATION."""
    durability: Durability = "full"
    lock_timeout: float = 5.0
    """Seconds."""
    mode: int = 0o600
    """Permissions of every file that is made."""
    compact: float | None = None
    """Not for drivers: the free share of the files from which opening gives space back."""
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Not to be shown: one of them may be a password."""


class Backend(Protocol):
    """What the entry point of a backend in the group `storebridge.backends` names: opens one kind
    of location.
    """

    name: str
    """As in `JOB_STORE_TYPE` and as the URL's scheme."""
    schemes: tuple[str, ...]
    """Further URL schemes."""
    suffixes: tuple[str, ...]
    """File name endings that a new bare path is given to this backend by."""
    extra_options: tuple[str, ...]
    """Names of options of its own in a location's query."""

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether an existing file (its first 4,096 bytes) or folder (no bytes) is of this
        backend's format.
        """

    def open(self, target: str, options: Options) -> Driver:
        """Open or create. `target`: a path, or the URL without its query where the backend has no
        files.

        DriverError of kind FOREIGN for a file that is not ours, which stays byte-identical; of
        kind CONFIGURATION for what can never be opened.
        """

    def shell(self, target: str) -> list[str] | None:
        """The command of the engine's own shell on this file, read-only; None where there is
        none.
        """
