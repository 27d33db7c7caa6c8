"""What a driver may be able to do besides the contract. The layer above asks with `isinstance`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from storebridge.driver.backend import Options
from storebridge.driver.contract import Key, Rows, Transaction, Values
from storebridge.driver.pages import Columns


class Usage(NamedTuple):
    """What a database takes on disk, in bytes, side files included."""

    size: int
    free: int
    """How much of it holds nothing, or only what was replaced: what reclaiming would give back."""
    lasting: int | None = None
    """What `free` is a part of, where that is not `size`: without a log that comes and goes,
    however much is in the database."""

    @property
    def share(self) -> float:
        """How much is free, from 0 to 1."""
        whole = self.size if self.lasting is None else self.lasting
        return self.free / whole if whole else 0.0


class Reclaimed(NamedTuple):
    """What `Compactor.reclaim` did, in bytes on disk, side files included."""

    before: int
    after: int
    skipped: str | None = None
    """Why nothing, or less than there is to gain, was reclaimed, in one line: `process 4711 has it
    open`; None if it was done. Worth another try later.
    """


@runtime_checkable
class Compactor(Protocol):
    """A driver that can give free space in its files back to the system."""

    def usage(self) -> Usage:
        """What is used and free now. Costs little, however large the database is. From any thread,
        at any time.
        """

    def reclaim(self, breathe: Callable[[], None]) -> Reclaimed:
        """Make the files as small as the content allows, or nearly so.

        Called by the only writer of the process, with no write transaction open; readers of other
        threads may come and go, and see no error. A driver that can work in steps calls `breathe`
        between them, with nothing locked: other writers get their turn there. One that must rewrite
        everything costs as much as the content, so the caller looks at `usage` first; where there
        is nothing to gain, nothing is done. One that must have the files alone does not wait for
        other processes, but skips and says so.

        Whatever moment the process is killed at, or the power is cut, the files hold the old
        content or the new, which are the same, and every change acknowledged meanwhile. DriverError
        of kind FULL, before anything is touched, where the disk has not enough room for the work;
        of kind READ_ONLY where the database was opened for reading.
        """


class Reader(NamedTuple):
    """A process that is in the midst of reading, and keeps what it sees from being reused."""

    pid: int
    behind: int
    """Transactions that have been committed since its view was taken."""


@runtime_checkable
class ReaderLister(Protocol):
    """A driver whose engine knows who reads at this moment."""

    def readers(self) -> Sequence[Reader]:
        """The readers, other processes' too, as far as the engine tells. From any thread."""


@runtime_checkable
class Tidier(Protocol):
    """A driver whose engine keeps free space for itself, to use it again."""

    def size(self) -> int:
        """Bytes on disk. Costs little, however large the database is."""

    def tidy(self) -> str | None:
        """Have the engine do now what it does by itself in the end: make the space of what was
        removed usable again. Others may read and write meanwhile. Returns why that was not done, or
        not everywhere, in one line.
        """


@runtime_checkable
class Notifier(Protocol):
    """A driver that hears of what other processes commit, at once. Now and then it misses some, so
    whoever waits looks by itself as well.
    """

    def add_listener(self, heard: Callable[[], object]) -> None:
        """Call `heard()` soon after each commit of a transaction that tallied, whichever process
        it was in, and sometimes without any; in a thread of the driver's. It must be quick and not
        raise.
        """

    def remove_listener(self, heard: Callable[[], object]) -> None:
        """Call it no more."""


class PipelinedTransaction(Transaction, Protocol):
    """A write transaction that is far from its engine. What needs no answer is not waited for: that
    it failed is told by a later call, at the latest by `commit`.
    """

    def add(self, table: str, key: Key, values: Values, body: bytes) -> None:
        """As `insert`, where nobody asks whether the key existed: then nothing is changed."""

    def remove(self, table: str, key: Key, values: Values | None) -> None:
        """As the contract's, also where the entry is not there."""

    def number(
        self, deltas: Mapping[str, int], name: str, entries: Sequence[tuple[str, Key, bytes]]
    ) -> None:
        """As `tally`, and then insert entries, each of a table without columns, whose key's last
        field is their number: what the named integer then is for the last of them, one less for
        each before it. They are given without that field.
        """


@runtime_checkable
class Pipelined(Protocol):
    """A driver whose write transactions are better told things than asked."""

    def begin_pipelined(self) -> PipelinedTransaction:
        """As `begin(write=True)`."""


class IndexPart(NamedTuple):
    """Entries of an index, in its order, as the driver that made them writes them."""

    table: str
    by: str
    entries: list[bytes]
    keys: list[bytes]
    """Whose each of them is."""


class IndexEntries(Protocol):
    """What the indexes of one table are to hold, in bounded memory however much that is. To be
    closed. What it cannot keep for want of room raises an error of kind FULL."""

    def add(self, rows: Rows, values: Columns) -> None:
        """Take note of the entries of these, whose values are these, column by column."""

    def parts(self) -> Iterator[IndexPart]:
        """All of them, index by index, some at a time; once, when all have been added. UniqueClash,
        with the key of one, for an index that two of them may not both be in.
        """

    def close(self) -> None:
        """Forget them."""


class LoadingTransaction(Transaction, Protocol):
    """A write transaction that takes the bodies of a table and its index entries apart. Until it
    has both, the table is no table yet: whoever fills it in this way sees to it that nobody takes
    it for one.
    """

    def put_bodies(self, table: str, rows: Rows) -> None:
        """Set the bodies of these keys, which are in order, and leave the indexes alone."""

    def remove_bodies(self, table: str, keys: Sequence[Key]) -> None:
        """Take out these keys, where they are there, and leave the indexes alone."""

    def clear_indexes(self, table: str) -> None:
        """Take out whatever its indexes hold."""

    def put_entries(self, part: IndexPart) -> None:
        """Set these index entries."""


@runtime_checkable
class Loader(Protocol):
    """A driver that fills a table in less time and memory if it gets the bodies first, and then
    each index in its own order. Its write transactions are `LoadingTransaction`s.
    """

    def index_entries(self, table: str) -> IndexEntries:
        """For the entries of a table that was created."""


class HeldVersion(Protocol):
    """What was the last committed transaction when this was made. To be closed."""

    def stands(self) -> bool:
        """Whether nothing was committed since, by whichever process or program. False where that
        is not known for certain, or the files were touched otherwise: then who asks looks itself.
        """

    def close(self) -> None:
        """Give it back."""


@runtime_checkable
class Versioned(Protocol):
    """A driver whose engine knows every change of its file, whoever makes it."""

    def hold_version(self) -> HeldVersion:
        """That of this moment. Views that are taken later are of it as long as it stands."""


@runtime_checkable
class Movable(Protocol):
    """A backend (not a driver) whose databases are files, or folders, that may be renamed while
    nobody has them open."""

    def files(self, target: str) -> Sequence[Path]:
        """The file or folder at a target, then those that may be beside it, there or not: what has
        to be renamed together.
        """


class Replacement(Protocol):
    """A database on a server that nobody else has open, and what is to take its place."""

    @property
    def options(self) -> Mapping[str, str]:
        """The backend's own, by which the place is opened where the new one is made."""

    def put_in_place(self) -> str:
        """Put the new one, which nobody has open, where the old one is: all of it or nothing, and
        permanently. Who may use the old one may use the new one. Returns where the old one is kept.
        """

    def remove(self) -> None:
        """Remove what was made, whole or not."""


@runtime_checkable
class Replaceable(Protocol):
    """A backend (not a driver) with databases on a server that can take each other's place."""

    def alone(
        self, target: str, options: Options, is_due: Callable[[int], bool]
    ) -> AbstractContextManager[Replacement | None]:
        """Keep every process but this one, on any machine, from having open what is at a target: in
        the block they wait for `lock_timeout` and are then refused with kind LOCKED. One that had
        it open and has lost its connection meanwhile is told so when it connects again.

        None, at once or after a while: its layout is not, or no longer, one that `is_due`. An error
        of kind LOCKED if a process has it open for longer than `lock_timeout`; of kind
        CONFIGURATION, in one line that says what to grant, where this user may not replace it.
        """

    def is_beside(self, target: str, options: Options) -> bool:
        """Whether this is a place where a database is made that is to take another one's."""
