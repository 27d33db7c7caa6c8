"""Power cuts: whatever a disk had by then, the file holds the state before or after the commit
under way, and passes the check.

Each safeguard is then taken away, and the same attack must find a loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from storebridge_bolt.pybolt import DB, BoltError, Durability
from storebridge_bolt.pybolt import meta as meta_module
from storebridge_bolt.pybolt.check import check
from storebridge_bolt.pybolt.commit import Commit

from tests.formats.bolt_support import Model, Scribbler, base_seed, dump, quick_folder
from tests.formats.simulated_disk import Crashes, RecordedDB, RecordingFile, Tape


class Loss(AssertionError):
    """A crash state that breaks the promise."""


class Recording:
    """A database's life: its tape, and the states that its commits made."""

    def __init__(self, path: Path, seed: int, durability: Durability, commits: int) -> None:
        self.durability = durability
        self.states: list[list[str]] = [[]]
        self.committed_at: list[int] = [0]  # operations on the tape when state n was acknowledged
        DB(path, page_size=1024).close()
        RecordingFile.tape = self.tape = Tape(path.read_bytes())
        rnd = random.Random(seed)
        scribbler = Scribbler(seed, keys=60)
        scribbler.value = lambda: rnd.randbytes(rnd.choice([5, 40, 300, 1500]))  # type: ignore[method-assign]
        model = Model()
        with RecordedDB(path, durability=durability, keep_freelist=seed % 4 != 0) as db:
            for _ in range(commits):
                with db.update() as tx:
                    scribbler.transaction(tx, model, rnd.choice([1, 3, 15]))
                # One that changed nothing writes nothing, and is no state of its own.
                if len(self.tape.ops) > self.committed_at[-1]:
                    self.states.append(list(model.lines()))
                    self.committed_at.append(len(self.tape.ops))

    def allowed(self, done: int) -> list[list[str]]:
        """The states that a power cut after so many operations may leave."""
        last = max(n for n, at in enumerate(self.committed_at) if at <= done)
        first = max(last - 1, 0) if self.durability == "relaxed" else last
        return self.states[first : last + 2]


def attack(folder: Path, seed: int, durability: Durability, commits: int, each: int) -> int:
    """Record a life, cut its power everywhere; the number of states tried. Raises Loss."""
    recording = Recording(folder / "live.db", seed, durability, commits)
    tried = 0
    for done, image in Crashes(recording.tape, seed).images(each):
        examine(folder / "crashed.db", image, recording.allowed(done), f"seed {seed} op {done}")
        tried += 1
    return tried


def examine(path: Path, image: bytes, allowed: list[list[str]], where: str) -> None:
    path.write_bytes(image)
    try:
        with DB(path, durability="off") as db:
            found = dump(db)
            problems = list(check(db))
            if found not in allowed:
                raise Loss(f"{where}: not a state that was committed")
            if problems:
                raise Loss(f"{where}: {problems}")
            write_on(db, where)
    except BoltError as problem:
        raise Loss(f"{where}: {problem!r}") from problem


def write_on(db: DB, where: str) -> None:
    """The survivor takes further writes, and they keep it sound."""
    with db.update() as tx:
        tx.create_bucket_if_missing(b"after").put(b"k", b"v" * 700)
    problems = list(check(db))
    if problems:
        raise Loss(f"{where}, written on: {problems}")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with quick_folder(tmp_path) as folder:
        yield folder


def attack_many(folder: Path, states: int) -> None:
    seed = base_seed()
    tried = 0
    while tried < states:
        durability: Durability = "relaxed" if seed % 2 else "full"
        tried += attack(folder, seed, durability, commits=12, each=6)
        (folder / "live.db").unlink()
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


def finds_loss(folder: Path, durability: Durability, lives: int = 40) -> bool:
    """Whether the attack, which finds nothing as things are, finds something now."""
    for seed in range(1, lives):
        with suppress(FileNotFoundError):
            (folder / "live.db").unlink()
        try:
            attack(folder, seed, durability, commits=12, each=6)
        except Loss:
            return True
    return False


def test_without_the_data_sync(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages must be on disk before the meta that names them."""
    real = Commit.write_pages
    monkeypatch.setattr(Commit, "write_pages", lambda self, *, sync: real(self, sync=False))
    assert finds_loss(folder, "full")


def test_without_the_meta_sync(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `full` acknowledges must be on disk."""
    real = Commit.write_meta
    monkeypatch.setattr(
        Commit, "write_meta", lambda self, meta, *, sync: real(self, meta, sync=False)
    )
    assert finds_loss(folder, "full")


def test_with_pages_reused_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a commit frees still belongs to the state that a power cut brings back."""
    real = Commit.free

    def free(self: Commit, page: int, overflow: int) -> None:
        real(self, page, overflow)
        self._freed.clear()
        self.freelist._add(list(range(page, page + overflow + 1)))

    monkeypatch.setattr(Commit, "free", free)
    assert finds_loss(folder, "full")


def test_relaxed_without_holding_pages_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A meta that was not synced may be missing: the state before it must stay whole."""
    monkeypatch.setattr(
        DB, "_last_unneeded", lambda self, readers: min([self._state.meta.txid, *readers])
    )
    assert finds_loss(folder, "relaxed")


def test_without_the_checksum(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A meta page of which only a part arrived must not count."""
    monkeypatch.setattr(meta_module, "fnv1a", lambda data: 0)
    assert finds_loss(folder, "full")
