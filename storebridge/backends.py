"""Finding backends: the built-in ones by name, others through the entry-point group
`storebridge.backends`, and the backend of an existing file by its first bytes."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from storebridge.driver import Backend
from storebridge.errors import (
    BackendUnavailableError,
    ConfigurationError,
    ForeignFileError,
    UnknownBackendError,
)

GROUP = "storebridge.backends"
HEAD_SIZE = 4096
DEFAULT = "sqlite"


class Builtin(NamedTuple):
    """A backend that ships with storebridge. `extra`: what to install for it, if anything."""

    module: str
    extra: str | None
    schemes: tuple[str, ...]
    suffixes: tuple[str, ...]


BUILTIN = {
    "sqlite": Builtin("storebridge_sqlite", None, ("sqlite",), (".db", ".sqlite", ".sqlite3")),
    "lmdb": Builtin("storebridge_lmdb", "lmdb", ("lmdb",), (".lmdb", ".mdb")),
    "bolt": Builtin("storebridge_bolt", None, ("bolt",), (".bolt", ".boltdb")),
    "tinydb": Builtin("storebridge_tinydb", None, ("tinydb",), (".json",)),
    "sqlalchemy": Builtin(
        "storebridge_sqlalchemy",
        "postgres",
        ("postgresql+psycopg", "postgresql", "sqlite+pysqlite"),
        (),
    ),
    "memory": Builtin("storebridge_memory", None, ("memory",), ()),
}
SERVERS = ("postgresql+psycopg", "postgresql")
"""Schemes whose URLs name a server, not a file."""


def backend_named(name: str) -> Backend:
    """The backend of this name or URL scheme.

    UnknownBackendError lists the names there are; BackendUnavailableError says what to install.
    """
    for builtin_name, builtin in BUILTIN.items():
        if name == builtin_name or name in builtin.schemes:
            return _import(builtin_name, builtin)
    for backend in _third_party():
        if name == backend.name or name in backend.schemes:
            return backend
    known = ", ".join([*BUILTIN, *(backend.name for backend in _third_party())])
    if "sql" in name:
        known += "; of SQLAlchemy's databases postgresql+psycopg and sqlite+pysqlite"
    raise UnknownBackendError(f"no backend is called {name!r}; there are: {known}")


def _import(name: str, builtin: Builtin) -> Backend:
    try:
        module = importlib.import_module(builtin.module)
    except ImportError as error:
        raise unavailable(name, error) from error
    # A package may be there for its engine alone, before it is a backend.
    backend = getattr(module, "backend", None)
    if backend is None:
        raise BackendUnavailableError(f"{builtin.module} is no backend yet: upgrade storebridge")
    return cast(Backend, backend)


def unavailable(name: str, error: ImportError) -> BackendUnavailableError:
    """What to say where a backend, or the engine that it imports when it opens, is missing."""
    builtin = BUILTIN.get(name)
    how = f"pip install 'storebridge[{builtin.extra}]'" if builtin and builtin.extra else str(error)
    return BackendUnavailableError(f"the {name} backend is not installed: {how}")


def _third_party() -> Iterator[Backend]:
    from importlib.metadata import entry_points

    for entry_point in entry_points(group=GROUP):
        if entry_point.name not in BUILTIN:
            yield entry_point.load()


def third_party_names() -> list[str]:
    """The names of installed backends that do not ship with storebridge."""
    return [backend.name for backend in _third_party()]


def name_of_existing(path: Path) -> str | None:
    """Which backend's format an existing file or folder has; None where there is nothing yet.

    Works while the backend is not installed. ForeignFileError for a file that is none of them.
    """
    try:
        head = _head(path)
        return _name_by_content(path, head) if head or _has_files(path) else None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error


def _name_by_content(path: Path, head: bytes) -> str:
    for name, recognises in _BY_MAGIC.items():
        if recognises(path, head):
            return name
    for backend in _third_party():
        if backend.recognises(path, head):
            return backend.name
    # Last: whatever else starts as a JSON object looks like it.
    if _is_tinydb(head):
        return "tinydb"
    raise ForeignFileError(f"{path}: not a database of any known backend; choose another location")


def name_by_suffix(path: Path) -> str:
    """Which backend a new bare path is given to."""
    suffix = path.suffix.lower()
    for name, builtin in BUILTIN.items():
        if suffix in builtin.suffixes:
            return name
    if suffix:
        for backend in _third_party():
            if suffix in backend.suffixes:
                return backend.name
    return DEFAULT


def _has_files(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _head(path: Path) -> bytes:
    if path.is_dir() or not path.exists():
        return b""
    if not path.is_file():
        raise ConfigurationError(f"{path}: is neither a file nor a folder")
    with path.open("rb") as file:
        return file.read(HEAD_SIZE)


def _is_sqlite(path: Path, head: bytes) -> bool:
    return head.startswith(b"SQLite format 3\0")


def _is_lmdb(path: Path, head: bytes) -> bool:
    data = path / "data.mdb"
    # After the header of a page, which begins with its number: as long as the writer's addresses.
    return path.is_dir() and data.is_file() and 0xBEEFC0DE in _numbers(_head(data), (12, 16))


def _is_bolt(path: Path, head: bytes) -> bool:
    return 0xED0CDAED in _numbers(head, (16,))


def _is_tinydb(head: bytes) -> bool:
    if head.startswith(b'\x18"'):  # the process that was writing into it was killed
        return True
    text = head.lstrip()
    return text.startswith(b"{") and text[1:].lstrip()[:1] in (b'"', b"}")


def _numbers(head: bytes, offsets: tuple[int, ...]) -> list[int]:
    """The numbers of 32 bits that stand there; none in a file that is too short."""
    return [struct.unpack_from("=I", head, at)[0] for at in offsets if len(head) >= at + 4]


_BY_MAGIC = {"sqlite": _is_sqlite, "lmdb": _is_lmdb, "bolt": _is_bolt}
