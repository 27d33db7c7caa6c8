"""What the entry point names: how a bolt file is recognised and opened."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from storebridge.driver.backend import Options
from storebridge.driver.contract import DriverError, ErrorKind
from storebridge.driver.ordered import LAYOUT, OWN

if TYPE_CHECKING:
    from storebridge_bolt.driver import BoltDriver
    from storebridge_bolt.pybolt import DB

_MAGIC = 0xED0CDAED
# Where a meta page may begin: page 0, or page 1 in the sizes that page 0 may have had.
_METAS = (0, *(1024 << power for power in range(7)))


class BoltBackend:
    """Opens a bolt file. One process at a time has it open for writing."""

    name = "bolt"
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = (".bolt", ".boltdb")
    extra_options: tuple[str, ...] = ()

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether bolt's magic number is where a meta page has it."""
        found = [head[at + 16 : at + 20] for at in _METAS]
        return any(len(four) == 4 and struct.unpack("<I", four)[0] == _MAGIC for four in found)

    def open(self, target: str, options: Options) -> BoltDriver:
        """Open or create."""
        from storebridge_bolt.driver import BoltDriver, kind_of
        from storebridge_bolt.pybolt import DB, BoltError, InvalidFileError, LockTimeoutError

        path = Path(target)
        try:
            self._require(path, options)
            db = DB(
                path,
                read_only=options.read_only,
                lock_timeout=options.lock_timeout,
                durability=options.durability,
                mode=options.mode,
            )
        except InvalidFileError as error:
            raise self._not_bolt(path, error) from error
        except LockTimeoutError as error:
            raise DriverError(ErrorKind.LOCKED, str(error), holder=error.holder) from error
        except PermissionError as error:
            what = "open it read-only, as its owner, or change its mode or its folder's"
            raise DriverError(ErrorKind.CONFIGURATION, f"{path}: no permission; {what}") from error
        except (BoltError, OSError) as error:
            kind = kind_of(error) or ErrorKind.CONFIGURATION
            reason = error.strerror if isinstance(error, OSError) else error
            raise DriverError(kind, f"{path}: {reason}") from error
        try:
            _refuse_foreign(db, path)
        except BoltError as error:
            db.close()
            raise DriverError(ErrorKind.CORRUPT, f"{path}: {error}: restore a backup") from error
        except BaseException:
            db.close()
            raise
        return BoltDriver(db, path)

    def _require(self, path: Path, options: Options) -> None:
        if path.is_dir():
            raise DriverError(
                ErrorKind.CONFIGURATION, f"{path}: a folder, but a bolt database is a file"
            )
        if path.exists():
            return
        if options.read_only or not options.create:
            raise DriverError(ErrorKind.CONFIGURATION, f"{path}: no bolt database there yet")
        if not path.parent.is_dir():
            raise DriverError(
                ErrorKind.CONFIGURATION, f"{path.parent}: no such folder: make it first"
            )

    def _not_bolt(self, path: Path, error: Exception) -> DriverError:
        with path.open("rb") as file:
            head = file.read(_METAS[-1] + 20)
        if self.recognises(path, head):
            return DriverError(ErrorKind.CORRUPT, f"{error}: restore a backup")
        return DriverError(ErrorKind.FOREIGN, f"{path}: not a bolt file; choose another location")

    def files(self, target: str) -> list[Path]:
        """The file alone."""
        return [Path(target)]

    def shell(self, target: str) -> list[str] | None:
        """bolt has the command `bbolt`, but no shell."""
        return None


def _refuse_foreign(db: DB, path: Path) -> None:
    """A file without buckets is new; one with buckets is ours if it bears our mark."""
    own = OWN.table.encode()
    with db.view() as tx:
        if next(tx.buckets(), None) is None:
            return
        if tx.has_bucket(own) and (tx.bucket(own).get(LAYOUT) or b"").isdigit():
            return
    raise DriverError(
        ErrorKind.FOREIGN,
        f"{path}: a bolt file, but not one of storebridge's; choose another location",
    )
