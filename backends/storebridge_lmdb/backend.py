"""What the entry point names. It does not need the package `lmdb`, so that an LMDB folder is
recognised, and can be named, where that is not installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from storebridge.driver.backend import Options
from storebridge_lmdb import header

if TYPE_CHECKING:
    from storebridge_lmdb.driver import LmdbDriver


class LmdbBackend:
    """Opens a folder as an LMDB environment."""

    name = "lmdb"
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = (".lmdb",)
    extra_options: tuple[str, ...] = ("map_size",)

    def recognises(self, path: Path, head: bytes) -> bool:
        """A folder with a `data.mdb` that has LMDB's magic number."""
        try:
            return header.has_magic(path / header.DATA)
        except OSError:
            return False

    def open(self, target: str, options: Options) -> LmdbDriver:
        """Open or create. Needs the package `lmdb`: ModuleNotFoundError without it."""
        from storebridge_lmdb import opening

        return opening.open_driver(Path(target), options)

    def files(self, target: str) -> list[Path]:
        """The folder, with all that is in it."""
        return [Path(target)]

    def shell(self, target: str) -> list[str] | None:
        """LMDB has `mdb_stat` and `mdb_dump`, but no shell."""
        return None
