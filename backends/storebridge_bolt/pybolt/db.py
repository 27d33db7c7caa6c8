"""The database: opening a file, handing out transactions, and who may use which pages when."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Literal, NamedTuple, TypeVar

from .batch import Batcher
from .cache import PageCache
from .commit import Commit
from .datafile import DataFile, create_file
from .errors import (
    DatabaseClosedError,
    DatabaseFailedError,
    InvalidFileError,
    ReadOnlyError,
    TxError,
)
from .freelist import Freelist, stored_freelist
from .meta import Meta, choose_meta, is_page_size, new_file, read_metas
from .page import MAX_NEW_PAGE_SIZE
from .tree import Pages, used_pages
from .tx import Tx

Durability = Literal["full", "relaxed", "off"]
Result = TypeVar("Result")


class _State(NamedTuple):
    """What a transaction begins with; replaced whole by each commit."""

    meta: Meta
    pages: Pages


class DB:
    """An open bolt database: one file, locked against other processes.

    `path`          is created where it is missing, unless `read_only`, with four pages
    `read_only`     shares the file with other readers; the default excludes everybody else
    `lock_timeout`  seconds to wait for the file; LockTimeoutError names who holds it
    `durability`    "full": what is committed survives a power cut. "relaxed": the last commits may
                    be lost then, consistency never; it halves the syncs. "off": no syncs at all,
                    for tests and for files that can be made again
    `mode`          the permissions of a new file
    `page_size`     of a new file, 1024 to 65536; the system's by default
    `keep_freelist` whether free pages are listed in the file. Without the list commits write less
                    where there are many, and the next opening must walk the file to find them
    `cache_bytes`   how much of often read pages to keep decoded, in the file's bytes; in memory it
                    is about as much again for small values

    Opening raises InvalidFileError for what is not a bolt file or was cut short,
    DatabaseTooLargeError where the machine cannot map it, and OSError from the system.

    A DB may be used by many threads; a transaction by one at a time. It does not survive a fork:
    in the child everything raises DatabaseClosedError. Nobody may cut the file short while it is
    open: as with any mapped file, reading what is gone kills the process.
    """

    file_class: ClassVar[type[DataFile]] = DataFile

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        lock_timeout: float = 5.0,
        durability: Durability = "full",
        mode: int = 0o600,
        page_size: int | None = None,
        keep_freelist: bool = True,
        cache_bytes: int = 32 << 20,
    ) -> None:
        if durability not in ("full", "relaxed", "off"):
            raise ValueError(f"durability is full, relaxed or off, not {durability!r}")
        size = mmap.PAGESIZE if page_size is None else page_size
        if not is_page_size(size) or size > MAX_NEW_PAGE_SIZE:
            raise ValueError(f"a page size is a power of two from 1024 to 65536, not {size}")
        self._path = os.fspath(path)
        self._read_only = read_only
        self._durability = durability
        self._keep_freelist = keep_freelist
        self._closed: str | None = "not open yet"  # why; None while it is open
        self._failed: str | None = None
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._cache = PageCache(cache_bytes)
        self._freelist: Freelist | None = None  # read when a write transaction needs it
        self._durable_txid = -1  # the last state whose meta is known to be on disk
        self._readers: dict[int, tuple[int, weakref.ref[Tx]]] = {}
        self._make_locks()
        self._write_thread: int | None = None
        self._writer: weakref.ref[Tx] | None = None
        if not read_only and not os.path.exists(self._path):
            create_file(self._path, new_file(size), mode)
        self._file = self.file_class(self._path, read_only=read_only, lock_timeout=lock_timeout)
        try:
            if not read_only and self._file.size() == 0:
                self._fill_empty_file(size)
            self._state = self._load()
        except BaseException:
            self._closed = "opening failed"
            self._file.close()
            raise
        self._closed = None
        _open_databases[id(self)] = weakref.ref(self)

    def _make_locks(self) -> None:
        self._mutex = threading.Lock()  # the state and the readers, for moments
        self._file_lock = threading.Lock()  # while a commit writes, or the file is closed
        self._write_lock = threading.Lock()  # from the beginning of a write to its end
        self._batcher = Batcher(self)

    def _fill_empty_file(self, page_size: int) -> None:
        try:
            self._file.write(new_file(page_size), 0)
            self._file.sync()
        except BaseException:
            self._file.truncate(0)  # half of a file would be taken for a damaged one
            raise

    def _load(self) -> _State:
        meta = choose_meta(*read_metas(self._file.read))
        size = self._file.size()
        if size < meta.high_water * meta.page_size:
            raise InvalidFileError(
                f"{self._path} is cut short: it has {size} bytes of"
                f" {meta.high_water * meta.page_size}"
            )
        return _State(meta, self._map_pages(meta, self._file.map()))

    def _map_pages(self, meta: Meta, data: mmap.mmap) -> Pages:
        self._maps.add(data)
        return Pages(data, meta.page_size, meta.high_water, self._cache)

    @property
    def path(self) -> str:
        """The file's path, as it was given."""
        return self._path

    @property
    def page_size(self) -> int:
        """The size of the file's pages."""
        return self._state.meta.page_size

    @property
    def read_only(self) -> bool:
        """Whether the database was opened for reading."""
        return self._read_only

    @property
    def durability(self) -> Durability:
        """What a commit promises."""
        return self._durability

    def __repr__(self) -> str:
        return f"<pybolt database {self._path}>"

    # Transactions

    def begin(self, writable: bool = False) -> Tx:
        """A new transaction. It must be ended: by `commit`, `rollback`, or as a context manager.

        Where another thread has a write transaction, a further one waits for its end; where this
        thread has, TxError says so, for it would wait for itself. Raises ReadOnlyError where the
        database cannot be written, CorruptError where its freelist is damaged.
        """
        if not writable:
            return self._begin_read()
        self._check_open()
        if self._read_only:
            raise ReadOnlyError(f"{self._path} was opened for reading")
        if self._write_thread == threading.get_ident():
            raise TxError("this thread has a write transaction already")
        taken: list[bool] = []
        tx = None
        try:
            # In one step, within which no signal handler can raise: else it would not be known
            # whether the lock was taken.
            taken.extend(map(self._write_lock.acquire, (True,)))
            self._check_open()
            if self._failed:
                raise DatabaseFailedError(self._failed)
            self._release()
            state = self._state
            tx = Tx(self, state.meta, state.pages, writable=True)
            tx._over = False
            self._writer = weakref.ref(tx)
            self._write_thread = threading.get_ident()
        except BaseException:
            if tx is not None:
                self._finish(tx)
            elif taken:
                self._write_lock.release()
            raise
        return tx

    def _begin_read(self) -> Tx:
        self._check_open()
        # Between looking at the state and being known as its reader no commit may come to think
        # that nobody looks at it.
        with self._mutex:
            self._check_open()
            meta, pages = self._state
            tx = Tx(self, meta, pages, writable=False)
            tx._over = False
            self._readers[id(tx)] = (meta.txid, weakref.ref(tx))
        return tx

    def view(self) -> Tx:
        """A read transaction: `with db.view() as tx: …`."""
        return self._begin_read()

    def update(self) -> Tx:
        """A write transaction: `with db.update() as tx: …` commits at the end."""
        return self.begin(writable=True)

    def batch(self, function: Callable[[Tx], Result]) -> Result:
        """Run a function in a write transaction shared with other threads' functions.

        It returns once the function's changes are committed, with its result, or raises what it
        raised. Many threads that write at once share the syncs so. The function may be called more
        than once, when another one in the same transaction fails; it must not end the transaction.
        """
        return self._batcher.run(function)

    def _check_open(self) -> None:
        if self._closed:
            raise DatabaseClosedError(self._closed)

    def _release(self) -> None:
        """Make pages available that neither a reader nor a power cut can bring back."""
        freelist = self._freelist
        if freelist is None:
            # Whoever wrote the file last may have been killed before a sync. The pages that its
            # last state freed are ours to use only once that state is on disk.
            with self._file_lock:
                self._check_open()
                if self._durability != "off":
                    self._file.sync_data()
            self._durable_txid = self._state.meta.txid
            freelist = self._freelist = self._load_freelist()
        with self._mutex:
            readers = [txid for txid, _ in list(self._readers.values())]
        freelist.release(self._last_unneeded(readers))

    def _last_unneeded(self, readers: list[int]) -> int:
        """The last transaction whose freed pages nobody needs.

        They belong to the states before it: a reader needs them, and so does a disk that might
        not have got that transaction's meta page.
        """
        return min([self._durable_txid, *readers])

    def _load_freelist(self) -> Freelist:
        meta, pages = self._state
        if not meta.keeps_freelist:
            used = used_pages(pages, meta.root)
            return Freelist(page for page in range(2, meta.high_water) if not used[page])
        return Freelist(stored_freelist(pages, meta))

    def _has_readers(self) -> bool:
        with self._mutex:
            return bool(self._readers)

    def _commit(self, tx: Tx) -> None:
        with self._file_lock:
            if tx._over:
                raise TxError("the transaction is over")
            try:
                if tx._trims or self._has_changes(tx):
                    self._commit_changes(tx)
            finally:
                self._finish(tx)

    def _commit_changes(self, tx: Tx) -> None:
        assert self._freelist is not None
        size = self._file.size()
        commit = Commit(self._file, tx._pages, self._freelist, tx._meta, tx._dropped)
        # Should this end in a way that is not foreseen here, writing on would not be safe.
        self._failed = f"{self._path}: a commit was cut off; open the database again"
        try:
            meta = commit.build(tx._root, keep_freelist=self._keep_freelist, trim=tx._trims)
            data = self._write_pages(commit)
            self._write_meta(commit, meta)
        except DatabaseFailedError as problem:
            self._failed = str(problem)
            raise
        except BaseException:
            if not commit.done:
                unsure = self._durability == "relaxed" and self._durable_txid < commit.old.txid
                commit.undo(size, rewrite_meta=unsure)
                self._failed = None
            raise
        self._state = _State(meta, self._map_pages(meta, data))
        self._freelist.keep()
        self._failed = None
        if tx._trims:
            self._cut_short(meta)

    def _cut_short(self, meta: Meta) -> None:
        """Give the system what the file has beyond its last state, unless somebody reads an older
        one, which may reach further.
        """
        with self._mutex:
            if any(txid < meta.txid for txid, _ in self._readers.values()):
                return
        end = meta.high_water * meta.page_size
        with contextlib.suppress(OSError):  # an overlong file is no harm
            if self._file.size() > end:
                if self._durability != "off" and self._durable_txid < meta.txid:
                    # A power cut must not bring a state back that the file is too short for.
                    self._file.sync_data()
                    self._durable_txid = meta.txid
                self._file.truncate(end)

    @staticmethod
    def _has_changes(tx: Tx) -> bool:
        waiting = [tx._root]
        while waiting:
            bucket = waiting.pop()
            if bucket._changes or bucket._sequence != bucket._committed_sequence:
                return True
            waiting += bucket._children.values()
        return False

    def _write_pages(self, commit: Commit) -> mmap.mmap:
        """Put the new pages on disk; a map of the file in which they are."""
        commit.write_pages(sync=self._durability != "off")
        # That sync took the last commit's meta along, however it was written.
        self._durable_txid = commit.old.txid
        data = commit.pages.data
        return data if len(data) >= commit.high_water * commit.old.page_size else self._file.map()

    def _write_meta(self, commit: Commit, meta: Meta) -> None:
        commit.write_meta(meta, sync=self._durability == "full")
        if self._durability != "relaxed":
            self._durable_txid = meta.txid

    def _finish(self, tx: Tx) -> None:
        """End a transaction. Called by the garbage collector too, so it takes no lock."""
        if tx._over:
            return
        tx._end()
        if tx._writable:
            self._writer = self._write_thread = None
            self._write_lock.release()
        else:
            self._readers.pop(id(tx), None)

    # The end

    def close(self) -> None:
        """End all transactions without commit, and give up the file and its lock.

        Nothing happens where the database is closed already.
        """
        if self._closed:
            self._drop_inherited_file()
            return
        with self._mutex:
            self._closed = f"{self._path} was closed"
        _open_databases.pop(id(self), None)
        with self._file_lock:  # let a commit under way come to its end
            for tx in self._transactions():
                self._finish(tx)
            try:
                if self._durability == "relaxed" and not self._read_only:
                    self._file.sync_data()
            finally:
                self._file.close()
                # A map keeps the file open, and may itself be kept, by whatever is in a cycle.
                for data in list(self._maps):
                    data.close()

    def _transactions(self) -> list[Tx]:
        refs = [ref for _, ref in list(self._readers.values())]
        if self._writer is not None:
            refs.append(self._writer)
        return [tx for tx in (ref() for ref in refs) if tx is not None]

    def _drop_inherited_file(self) -> None:
        if self._forked:
            self._forked = False
            self._file.close(unlock=False)

    _forked = False

    def _after_fork(self) -> None:
        """In the child: refuse everything. The lock, and the pages' future, are the parent's."""
        self._closed = (
            f"{self._path} was opened before a fork: the child must open it again, once the"
            " parent has closed it"
        )
        self._forked = True
        for tx in self._transactions():
            tx._end()
        # Threads that the child does not have may hold them.
        self._make_locks()

    def __del__(self) -> None:
        if not getattr(self, "_closed", "never opened"):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1)
            self.close()

    def __enter__(self) -> DB:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_open_databases: dict[int, weakref.ref[DB]] = {}


def _after_fork_in_child() -> None:
    for ref in list(_open_databases.values()):
        db = ref()
        if db is not None:
            db._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
