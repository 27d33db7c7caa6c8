"""Whether the pages of a data file are as they should be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import lmdb

from storebridge_lmdb.access import may
from storebridge_lmdb.engine import ReadEngine
from storebridge_lmdb.environment import Environment
from storebridge_lmdb.header import DATA, read_meta
from storebridge_lmdb.sizes import ROOMY


def _walker() -> Callable[[str, bool], list[str]] | None:
    """py-lmdb's own check of a file's pages, which came with version 3.0 and only knows how files
    are where addresses have 64 bits. It reads the file and never maps it, so that no damage can end
    the process.
    """
    if not ROOMY:
        return None
    try:
        from lmdb import verify
    except ImportError:
        return None
    walk: Callable[[str, bool], list[str]] = verify.verify
    return walk


def problems(environment: Environment) -> list[str]:
    """What is wrong with an environment's pages, in one snapshot of it: writers go on meanwhile.

    The snapshot is copied without being interpreted, into the database's own folder or, where that
    cannot be written, the system's for temporary files.
    """
    walk = _walker()
    if walk is None:
        return _read_all(environment)
    place = environment.path if may(environment.path, os.W_OK) else None
    with tempfile.TemporaryFile(dir=place) as copy:
        while not _copied(environment, copy):
            pass
        return walk(f"/dev/fd/{copy.fileno()}", False)


def _copied(environment: Environment, copy: IO[bytes]) -> bool:
    """Copy the pages of a snapshot; False if a commit came between it and its meta page.

    LMDB's own copy waits for writers. While a reader is registered nobody changes a page of its
    snapshot, so it is enough to have the right meta pages.
    """
    copy.seek(0)
    copy.truncate()
    engine = ReadEngine(environment)
    try:
        with open(environment.path / DATA, "rb") as source:
            page_size = environment.native.stat()["psize"]
            copy.write(source.read(2 * page_size))
            copy.flush()
            meta = read_meta(Path(f"/dev/fd/{copy.fileno()}"))
            if meta.transaction != engine.snapshot_id():
                return False
            for _ in range(2, meta.pages):
                copy.write(source.read(page_size))
            copy.flush()
            return True
    finally:
        engine.rollback()


def _read_all(environment: Environment) -> list[str]:
    """Read everything there is, so that LMDB itself says what it cannot read."""
    found = []
    engine = ReadEngine(environment)
    try:
        for name in engine.names():
            try:
                engine.read_through(name)
            except lmdb.Error as error:
                found.append(f"{name.decode(errors='replace')}: {error}")
    finally:
        engine.rollback()
    return found
