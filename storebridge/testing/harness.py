"""What a backend author hands to the suite, and the few helpers that every part of it uses."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path

from storebridge.driver import Backend, Driver, DriverError, ErrorKind, Options, Traits, Transaction


def load_backend(path: str) -> Backend:
    """The backend of an entry-point name (`sqlite`) or an import path (`package:object`)."""
    if ":" in path:
        module, _, name = path.partition(":")
        backend: Backend = getattr(importlib.import_module(module), name)
        return backend
    found = entry_points(group="storebridge.backends", name=path)
    if not found:
        raise LookupError(f"no backend {path!r} is installed: give an import path, package:object")
    backend = next(iter(found)).load()
    return backend  # noqa: RET504 - an entry point loads Any; the name gives it its type


@dataclass
class BackendHarness:
    """A backend under test, and where it may put databases.

    `path`: the entry point's name, or `package:object`; text, so that other processes can load
    it too. `folder`: an empty folder, pytest's `tmp_path`. `new_target`: for a backend without
    files whose databases have to be made or named: gives a new, empty one at each call.
    `effort`: the share of the random examples to run, for an engine that takes long over each.
    """

    path: str
    folder: Path
    new_target: Callable[[], str] | None = None
    effort: float = 1.0
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @cached_property
    def backend(self) -> Backend:
        return load_backend(self.path)

    @cached_property
    def target(self) -> str:
        """The target of this test's own database; the same at every use."""
        return self.fresh()

    @property
    def files(self) -> bool:
        """Whether the backend keeps files or folders (a backend that does has suffixes)."""
        return bool(self.backend.suffixes)

    def fresh(self) -> str:
        """The target of one more, new database, in a folder of its own."""
        if self.new_target is not None:
            return self.new_target()
        if not self.files:
            return f"{self.backend.name}:"
        folder = self.folder / f"database-{next(self._numbers)}"
        folder.mkdir()
        return str(folder / f"store{self.backend.suffixes[0]}")

    def location(self, target: str | None = None) -> str:
        """The URL of a target, for what is opened through `storebridge.open_database`."""
        target = self.target if target is None else target
        return f"{self.backend.name}://{target}" if self.files else target

    def open(self, target: str | None = None, options: Options | None = None) -> Driver:
        """A driver; without options: not made to survive power cuts, so that tests are quick."""
        options = Options(durability="off") if options is None else options
        return self.backend.open(self.target if target is None else target, options)

    @cached_property
    def traits(self) -> Traits:
        """What the driver says of its engine, asked of a database of its own."""
        driver = self.open(self.fresh())
        driver.close()
        return driver.traits

    def require_processes(self, processes: str) -> None:
        if self.traits.processes != processes:
            _skip(f"trait processes: {self.traits.processes}")

    def require_persistent(self) -> None:
        if not self.traits.persistent:
            _skip("trait persistent: False")

    def require_files(self) -> None:
        if not self.files:
            _skip(f"{self.backend.name} keeps no files")


def _skip(reason: str) -> None:
    import pytest  # the workers, which import this module, start in half the time without

    pytest.skip(reason)


def patience(seconds: float) -> float:
    """How long a test may wait for what takes no time: where everything is slow, such as under
    emulation, `STOREBRIDGE_PATIENCE` says how many times as long."""
    return seconds * float(os.environ.get("STOREBRIDGE_PATIENCE", "1"))


def attack() -> int:
    """How many times as long the random and the killing tests are to run."""
    return int(os.environ.get("STOREBRIDGE_ATTACK", "1"))


@contextmanager
def writing(driver: Driver) -> Iterator[Transaction]:
    """A write transaction, committed at the end of the block, rolled back if it raises."""
    transaction = driver.begin(write=True)
    try:
        yield transaction
    except BaseException:
        transaction.rollback()
        raise
    transaction.commit()


@contextmanager
def reading(driver: Driver) -> Iterator[Transaction]:
    transaction = driver.begin(write=False)
    try:
        yield transaction
    finally:
        transaction.rollback()


def kind_of(error: BaseException, driver: Driver | None = None) -> ErrorKind | None:
    """What an error means: its own kind, or what the driver says of its engine's error."""
    if isinstance(error, DriverError):
        return error.kind
    return None if driver is None else driver.kind(error)


@contextmanager
def refused(*kinds: ErrorKind, driver: Driver | None = None) -> Iterator[None]:
    """The block must raise an error of one of these kinds. Without a driver (nothing could be
    opened, so nobody can classify) it must be a DriverError.
    """
    import pytest  # see _skip

    with pytest.raises(Exception) as caught:
        yield
    kind = kind_of(caught.value, driver)
    assert kind in kinds, f"expected {kinds}, but {caught.value!r} is {kind}"
    assert "\n" not in str(caught.value), "an error is one line"


def tree(harness: BackendHarness) -> dict[str, tuple[int, bytes]]:
    """Everything at and beside the target: mode and content."""
    folder = Path(harness.target).parent
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in sorted(folder.rglob("*"))
    }
