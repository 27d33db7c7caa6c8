"""A storage for people who use `TinyDB` directly."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import warnings
from typing import Any

from tinydb.storages import JSONStorage

from storebridge.errors import ConflictError
from storebridge_tinydb.sharedfile import LOCK_TIMEOUT, SharedFile

Tables = dict[str, dict[str, Any]]


class AtomicJSONStorage(JSONStorage):
    """`TinyDB(path, storage=AtomicJSONStorage)`: as TinyDB's own storage, but nothing gets lost.

    A change is on the disk when it returns. Whenever the process is killed, the power fails or the
    disk is full, and whoever reads at whatever moment, the file is whole, with the change or
    without it. It is replaced, not written into: its folder must be writable, and other hard links
    keep the old content. A failure to write is an OSError.

    A change whose base somebody else has changed meanwhile is refused with a ConflictError; repeat
    it. TinyDB holds in memory which id is free and what a query gave, so where several processes
    change one file, let each open it for a moment, with `exclusive=True`. Then they take turns,
    also with those who use aiotinydb, and nobody meets a ConflictError. Who would wait for longer
    than `lock_timeout` seconds gets a StoreLockedError that names the holder.

    The other arguments are those of `tinydb.JSONStorage`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        create_dirs: bool = False,
        encoding: str | None = None,
        access_mode: str = "r+",
        *,
        exclusive: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        self.kwargs = kwargs
        self._mode = access_mode
        self._writable = bool(set(access_mode) & set("+wax"))
        self._lock_timeout = lock_timeout
        self._handle = SharedFile(path)
        self._encoding = self._open(path, create_dirs, encoding)
        self._base: bytes | None = None
        self._known: dict[str, set[str]] = {}
        self._foreign: dict[tuple[str, str], Any] = {}
        if exclusive:
            self._handle.lock(lock_timeout)

    def _open(
        self, path: str | os.PathLike[str], create_dirs: bool, encoding: str | None
    ) -> str | None:
        """Refuse what `open` refuses, and say which encoding a text in the file has."""
        mode = self._mode
        if set(mode) & set("+wa"):
            self._handle.create(folders=create_dirs)
        if mode not in ("r", "rb", "r+", "rb+"):
            warnings.warn(
                "Using an `access_mode` other than 'r', 'rb', 'r+' or 'rb+' can empty the file",
                stacklevel=3,
            )
        else:  # if it were opened for writing, others could not replace it
            mode = mode.removesuffix("+")
        with open(path, mode, encoding=encoding) as file:
            if self._writable and not os.access(path, os.W_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return getattr(file, "encoding", None)

    def read(self) -> Tables | None:
        """What the file holds; None if it is empty."""
        content = self._handle.read()
        text = content.decode(self._encoding) if self._encoding else content
        data: Tables | None = json.loads(text) if content else None
        self._note(data, _digest(content))
        return data

    def write(self, data: Tables) -> None:
        """Replace what the file holds."""
        if not self._writable:
            raise io.UnsupportedOperation(
                f'{self._handle.path}: cannot be written with the access mode "{self._mode}"'
            )
        content = json.dumps(data, **self.kwargs).encode(self._encoding or "utf-8")
        with self._handle.lock_held(self._lock_timeout):
            if data:  # who drops all tables overwrites what others did, and means to
                self._refuse_conflicts(data)
            self._handle.replace(content)
        self._base = _digest(content)
        self._known = _ids(data)
        for name, document_id in self._foreign:
            self._known.get(name, set()).discard(document_id)

    def _note(self, data: Tables | None, digest: bytes) -> None:
        """Remember what the next change is based on, and which documents others have added."""
        if self._base is None:
            self._known = _ids(data)
        elif digest != self._base or self._foreign:
            self._foreign = {
                (name, document_id): data[name][document_id]
                for name, ids in _ids(data).items()
                for document_id in ids - self._known.get(name, set())
                if data is not None
            }
        self._base = digest

    def _refuse_conflicts(self, data: Tables) -> None:
        path = self._handle.path
        if self._base not in (None, _digest(self._handle.read())):
            raise ConflictError(
                f"{path}: somebody else changed it since it was read; nothing was written, repeat"
                " the change (after opening the file again, if a middleware keeps its content)"
            )
        # TinyDB changes a document in its place. Another object in its place is a new document, to
        # which TinyDB gave an id that was free when it last looked.
        for (name, document_id), document in self._foreign.items():
            written = data.get(name, {}).get(document_id, document)
            if written is not document and written != document:
                raise ConflictError(
                    f"{path}: would overwrite document {document_id} of table {name!r}, which"
                    " somebody else added; nothing was written, open the file again"
                )


def _ids(data: Tables | None) -> dict[str, set[str]]:
    # Whatever else the file holds has no documents.
    return {name: set(table) for name, table in (data or {}).items() if isinstance(table, dict)}


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=32).digest()
