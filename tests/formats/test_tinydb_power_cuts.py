"""Power cuts while a TinyDB file is changed, folded, closed, and opened again after a kill:
whatever the disk had by then, everything acknowledged is there, and nothing is half done. The file
is JSON, but where somebody else has it open for writing and so it is written into.

Each safeguard is then taken away, and the same attack must find a loss.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest
from storebridge_tinydb import atomicfile, backend, journal, sharedfile
from storebridge_tinydb import driver as driver_module
from storebridge_tinydb.base import Base
from storebridge_tinydb.driver import TinyDriver
from storebridge_tinydb.inplace import is_marked
from storebridge_tinydb.journal import Journal

from storebridge.driver import DriverError, Durability, Options, Range
from storebridge.testing.harness import reading, writing
from storebridge.testing.samples import ENTRY, LAYOUT, LOG, body_of, entry, values_of
from tests.formats.bolt_support import base_seed, quick_folder
from tests.formats.simulated_folder import FolderSynced, Image, Named, Synced, Watch, images, rename

NAME = "store.json"
State = dict[str, Any]
NOTHING: State = {ENTRY.name: {}, LOG.name: {}, "totals": {}}


class Loss(AssertionError):
    """A crash state that breaks the promise."""


def open_at(folder: Path, durability: Durability) -> TinyDriver:
    driver = backend.open(str(folder / NAME), Options(durability=durability))
    driver.create_tables((ENTRY, LOG), LAYOUT)
    return driver


def state_of(driver: TinyDriver) -> State:
    """All that is there, as one reads it."""
    with reading(driver) as transaction:
        found: State = {}
        for table in (ENTRY.name, LOG.name):
            rows, _ = transaction.scan(table, Range(limit=10_000))
            found[table] = dict(rows)
        found["totals"] = transaction.totals("")
        for by in ("state", "created", "name"):
            count = transaction.count(ENTRY.name, Range(by))
            if count != len(found[ENTRY.name]):
                raise Loss(f"index {by} has {count} entries")
        problems = [str(fault) for fault in transaction.faults(ENTRY.name, values_of)]
    problems += driver.check()
    if problems:
        raise Loss("; ".join(problems))
    return found


class Killed(BaseException):
    """Comes out of where a process was killed."""


def killed(*_: object) -> None:
    raise Killed


def nothing(*_: object, **__: object) -> None:
    """What takes the place of something that is not done."""


class Life:
    """A database's life on a watched disk, and the states that its commits made."""

    def __init__(self, folder: Path, seed: int, durability: Durability, commits: int) -> None:
        self.folder = folder
        self.durability = durability
        self.states: list[State] = [NOTHING]
        self.acknowledged: list[int] = [0]
        """Changes of the disk when state n was acknowledged."""
        self.relied_on: list[int] = []
        """States that were read by the next opening."""
        self.guest: BinaryIO | None = None
        self.chance = random.Random(seed)
        self.watch = Watch(folder)
        try:
            driver = open_at(folder, durability)
            self.note(driver)
            for _ in range(commits):
                driver = self.step(driver)
            driver.close()
            self.watch.look()
        finally:
            self.watch.stop()
            if self.guest is not None:
                self.guest.close()

    def step(self, driver: TinyDriver) -> TinyDriver:
        event = self.chance.randrange(13)
        if event < 8:
            self.commit(driver)
            self.note(driver)
            return driver
        if event == 12:
            self.come_or_go()
            return driver
        if event == 8:
            driver.reclaim(lambda: None)
            return driver
        if event == 9:
            driver.close()
        else:
            # What it has written is still in the system's cache, and not on disk.
            if event == 10:
                self.begin_to_commit(driver)
            driver.leave()
        driver = open_at(self.folder, self.durability)
        # Whoever has read it relies on it.
        self.note(driver)
        self.relied_on.append(len(self.states) - 1)
        return driver

    def come_or_go(self) -> None:
        """Somebody has the file open for writing, as TinyDB has: then it is written into."""
        if self.guest is None:
            self.guest = (self.folder / NAME).open("r+b")
        else:
            self.guest.close()
            self.guest = None

    def begin_to_commit(self, driver: TinyDriver) -> None:
        """Be killed when the line is written and not yet synced."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "_sync", killed)
            patch.setattr(Journal, "_cut", nothing)
            with suppress(Killed):
                self.commit(driver)

    def commit(self, driver: TinyDriver) -> None:
        chance = self.chance
        with writing(driver) as transaction:
            for _ in range(chance.choice((1, 1, 3))):
                key = (f"e{chance.randrange(12)}",)
                old = transaction.get(ENTRY.name, key)
                values = entry(chance.choice("abc"), chance.randrange(9), name=key[0])
                body = body_of(key, values, "x" * chance.choice((5, 40, 300, 1200)))
                if old is None:
                    transaction.insert(ENTRY.name, key, values, body)
                elif chance.random() < 0.4:
                    transaction.remove(ENTRY.name, key, values_of(key, old))
                else:
                    transaction.replace(ENTRY.name, key, values_of(key, old) or (), values, body)
            number = transaction.tally({"n": 1})["n"]
            transaction.insert(LOG.name, (number,), ("w",), b'{"n":%d}' % number)

    def note(self, driver: TinyDriver) -> None:
        self.watch.look()
        self.states.append(state_of(driver))
        self.acknowledged.append(len(self.watch.ops))

    def allowed(self, done: int) -> list[State]:
        """The states that a power cut after so many changes of the disk may leave."""
        last = max(n for n, at in enumerate(self.acknowledged) if at <= done)
        first = last if self.durability == "full" else self.safe(done)
        return self.states[first : last + 2]

    def safe(self, done: int) -> int:
        """The last state that was acknowledged before the journal was synced, or its fold was, or
        that the next opening has shown.
        """
        names: dict[str, int] = {}
        safe, folded = 0, False
        for number, op in enumerate(self.watch.ops[:done], start=1):
            if isinstance(op, Named):
                rename(names, op)
                folded = folded or (op.name == NAME and op.before is not None)
            elif isinstance(op, FolderSynced) and folded:
                safe, folded = number, False
            elif isinstance(op, Synced) and op.file == names.get(f"{NAME}-journal"):
                safe = number
        relied_on = [n for n in self.relied_on if self.acknowledged[n] <= done]
        return max(relied_on + [n for n, at in enumerate(self.acknowledged) if at <= safe])


def attack(folder: Path, seed: int, durability: Durability, commits: int, each: int) -> int:
    """A life, and every crash of it; how many there were."""
    alive, crashed = folder / "alive", folder / "crashed"
    alive.mkdir()
    try:
        life = Life(alive, seed, durability, commits)
    finally:
        shutil.rmtree(alive)
    tried = 0
    for done, image in images(life.watch.ops, each, seed):
        tried += 1
        where = f"seed {seed} {durability} change {done}"
        examine(crashed, image, life.allowed(done), where, write_on=not tried % 5)
    return tried


def examine(
    folder: Path, image: Image, allowed: list[State], where: str, *, write_on: bool
) -> None:
    folder.mkdir()
    try:
        for name, content in image.items():
            (folder / name).write_bytes(content)
        if image.get(NAME) and not is_marked(image[NAME]):
            json.loads(image[NAME])
        driver = open_at(folder, "off")
        try:
            found = state_of(driver)
            if found not in allowed:
                raise Loss(f"{where}: not a state that was committed")
            if write_on:
                go_on(folder, driver)
        finally:
            driver.close()
    except (DriverError, OSError, ValueError) as problem:
        raise Loss(f"{where}: {problem!r}") from problem
    finally:
        shutil.rmtree(folder)


def go_on(folder: Path, driver: TinyDriver) -> None:
    """The survivor takes further writes, and they are there when it is opened the next time."""
    with writing(driver) as transaction:
        transaction.insert(ENTRY.name, ("after",), entry(name="after"), b"{}")
        transaction.remove(ENTRY.name, ("after",), entry(name="after"))
        transaction.tally({"after": 1})
    expected = state_of(driver)
    driver.close()
    json.loads((folder / NAME).read_bytes())
    again = open_at(folder, "off")
    try:
        if state_of(again) != expected:
            raise Loss("what was written after the crash is not there")
    finally:
        again.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with quick_folder(tmp_path) as folder:
        yield folder


@pytest.fixture(autouse=True)
def small_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they are folded every few commits; and `relaxed` syncs now and then, as if time went
    by.
    """
    monkeypatch.setattr(driver_module, "FLOOR", 3000)
    chance = random.Random(1)
    monkeypatch.setattr(Journal, "_is_sync_due", lambda self: chance.random() < 0.3)


def attack_many(folder: Path, states: int) -> None:
    seed = base_seed()
    tried = 0
    while tried < states:
        durability: Durability = "relaxed" if seed % 2 else "full"
        tried += attack(folder, seed, durability, commits=14, each=5)
        seed += 1
    print(f"{tried} crash states")


def test_power_cuts(folder: Path) -> None:
    """5,000 crash states."""
    attack_many(folder, 5_000)


@pytest.mark.attack
@pytest.mark.timeout(1200)
def test_many_power_cuts(folder: Path) -> None:
    """100,000 crash states."""
    attack_many(folder, 100_000)


def finds_loss(folder: Path, durability: Durability, lives: int = 20) -> bool:
    """Whether the attack, which finds nothing as things are, finds something now."""
    for seed in range(8, 8 + lives):
        try:
            attack(folder, seed, durability, commits=14, each=5)
        except Loss:
            return True
    return False


Sabotage = Callable[[pytest.MonkeyPatch], None]


def no_journal_sync(patch: pytest.MonkeyPatch) -> None:
    """What `full` acknowledges must be on disk."""
    patch.setattr(Journal, "_sync", nothing)


def no_sync_of_a_new_file(patch: pytest.MonkeyPatch) -> None:
    """A file must be on disk before it takes the name."""
    real = atomicfile.write_beside
    patch.setattr(
        sharedfile, "write_beside", lambda path, content: real(path, content, durable=False)
    )


def no_folder_sync_of_a_fold(patch: pytest.MonkeyPatch) -> None:
    """The name must be the new file's before the journal is taken away."""
    patch.setattr(sharedfile, "sync_folder", nothing)


def no_folder_sync_of_a_journal(patch: pytest.MonkeyPatch) -> None:
    """A journal without a name is none."""
    patch.setattr(journal, "sync_folder", nothing)


def no_sync_of_what_was_found(patch: pytest.MonkeyPatch) -> None:
    """What a killed process has left in the system's cache, and was read from there, must not be
    gone after the next power cut."""
    real = journal.read
    patch.setattr(journal, "read", lambda path, sync=False: real(path))


def no_checksum(patch: pytest.MonkeyPatch) -> None:
    """A line of which only a part arrived must not count."""
    patch.setattr(journal, "_checked", unchecked)


def unchecked(text: bytes, seed: int, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except ValueError:
        return None


def journal_first(patch: pytest.MonkeyPatch) -> None:
    """The journal may only go when the file has it all."""
    real = TinyDriver._fold

    def fold(self: TinyDriver) -> None:
        self._journal_path.unlink(missing_ok=True)
        real(self)

    patch.setattr(TinyDriver, "_fold", fold)


def no_look_whether_it_is_folded(patch: pytest.MonkeyPatch) -> None:
    """A journal that a crash has left behind its fold is of the former content."""
    opening = import_module("storebridge_tinydb.backend")  # the package's own `backend` hides it
    patch.setattr(opening, "_is_in", lambda found, mark: False)


def all_damage_is_damage(patch: pytest.MonkeyPatch) -> None:
    """With `relaxed` a power cut may take a line and leave the next."""
    patch.setattr(journal, "_was_on_disk", lambda header, rest, commit, seed: any(rest[1:]))


def written_in_place(patch: pytest.MonkeyPatch) -> None:
    """As TinyDB does it."""

    def write(self: Base, content: bytes) -> None:
        self.path.write_bytes(content)
        fd = os.open(self.path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        self._note(hashlib.sha256(content).hexdigest())

    patch.setattr(Base, "replace", write)


@pytest.mark.parametrize(
    ("sabotage", "durability"),
    [
        (no_journal_sync, "full"),
        (no_sync_of_a_new_file, "full"),
        (no_folder_sync_of_a_fold, "full"),
        (no_folder_sync_of_a_journal, "full"),
        (no_sync_of_what_was_found, "full"),
        (no_sync_of_what_was_found, "relaxed"),
        (no_checksum, "full"),
        (journal_first, "full"),
        (no_look_whether_it_is_folded, "full"),
        (all_damage_is_damage, "relaxed"),
        (written_in_place, "full"),
    ],
)
def test_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sabotage: Sabotage, durability: Durability
) -> None:
    """With any one safeguard taken away, a loss is found."""
    sabotage(monkeypatch)
    assert finds_loss(folder, durability), sabotage.__doc__
