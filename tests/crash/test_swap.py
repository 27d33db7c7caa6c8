"""kill -9 at random moments inside reclaiming, with other processes beside: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from storebridge.testing.harness import BackendHarness
from storebridge.testing.samples import LAYOUT, TABLES
from tests.crash.reclaimers import Loss, Reclaimer, found, reclaimer

ROOT = Path(__file__).parents[2]
SMALL_DISK = ["unshare", "--map-root-user", "--mount"]
MOUNTED = 'mount -t tmpfs -o size=12M none "$1" && mkdir "$1/database" && shift && exec "$@"'
BESIDE = ("nobody", "a writer", "a reclaimer", "one who comes and goes")


class Attack:
    """A database that processes live in, and what they have acknowledged."""

    def __init__(self, harness: BackendHarness, seed: str, sabotage: str = "") -> None:
        self.harness = harness
        self.chance = random.Random(seed)
        self.sabotage = sabotage
        self.done = {"a": 0, "b": 0}
        self.killed_inside = 0
        self.given_back = 0

    def round(self, beside: str) -> None:
        """Let a process reclaim, kill it, and look for what it, and who was beside it, had done."""
        durability = self.chance.choice(("off", "relaxed", "full"))
        with ExitStack() as stack:
            said: dict[str, list[Any]] = {}
            b = c = None
            if beside in ("a writer", "a reclaimer"):
                how = {"reclaims": True} if beside == "a reclaimer" else {"pause": 0.02}
                b = self._start(stack, "b", durability=durability, **how)
                said["b"] = [b.hear()]
            elif beside == "one who comes and goes":
                c = stack.enter_context(reclaimer(self.harness, "come_and_go"))
                assert c.hear() == "came"
            a = self._start(stack, "a", durability=durability, reclaims=True)
            said["a"] = self._kill_inside(a)
            if b is not None:
                assert b.process.poll() is None
                said["b"] += b.kill()
            if c is not None:
                c.go()
                c.finish()
        acknowledged = {name: [n for n in each if type(n) is int] for name, each in said.items()}
        self._look(acknowledged)

    def _start(self, stack: ExitStack, name: str, **arguments: Any) -> Reclaimer:
        arguments |= {"name": name, "first": self.done[name], "sabotage": self.sabotage}
        if self.sabotage:
            arguments["lock_timeout"] = 1.0  # of locks that nobody will give back
        return stack.enter_context(reclaimer(self.harness, "live", **arguments))

    def _kill_inside(self, process: Reclaimer) -> list[Any]:
        """Kill it some milliseconds after it began to reclaim for the first or a later time."""
        said: list[Any] = []
        for _ in range(self.chance.randint(1, 3)):
            said.append(process.hear())
            while said[-1] != "reclaiming":
                said.append(process.hear())
        time.sleep(self.chance.random() ** 2 * 0.03)
        rest = process.kill()
        self.given_back += said.count("reclaimed")
        self.killed_inside += all(type(each) is int for each in rest)
        return said + rest

    def _look(self, acknowledged: dict[str, list[int]]) -> None:
        driver = self.harness.open()
        try:
            driver.create_tables(TABLES, LAYOUT)
            for name, steps in acknowledged.items():
                done = found(driver, name)
                last = max(steps, default=self.done[name] - 1)
                if done not in (last + 1, last + 2):
                    raise Loss(f"{name} acknowledged step {last}, and {done} were done")
                self.done[name] = done
            folder = Path(self.harness.target).parent
            assert not list(folder.rglob("*-compacting"))
        finally:
            driver.close()


def attack(harness: BackendHarness, rounds: int) -> None:
    """So many rounds, in turns with nobody and with each kind of other process beside; more, if
    too few kills struck inside, as it happens on a busy machine."""
    seed = os.environ.get("STOREBRIDGE_SEED", "1")
    print(f"again with STOREBRIDGE_SEED={seed}")
    attack = Attack(harness, f"swap {seed}")
    kinds = BESIDE if harness.traits.processes == "many" else BESIDE[:1]
    wanted = max(1, rounds // 4)
    for number in range(4 * rounds):
        if number >= rounds and attack.killed_inside >= wanted:
            break
        attack.round(kinds[number % len(kinds)])
    print(f"{attack.killed_inside} killed inside, {attack.given_back} given back before")
    assert attack.killed_inside >= wanted


@pytest.mark.parametrize(
    ("backend", "rounds"), [("sqlite", 4), ("lmdb", 4), ("bolt", 2), ("tinydb", 2)]
)
def test_killed_while_reclaiming(backend: str, rounds: int, tmp_path: Path) -> None:
    """Every step that was acknowledged is there, whole, by anybody; the engine's own check passes;
    and nothing that was killed halfway lies about.
    """
    attack(BackendHarness(backend, tmp_path), rounds)


@pytest.mark.attack
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["sqlite", "lmdb", "bolt", "tinydb"])
def test_killed_while_reclaiming_often(backend: str, tmp_path: Path) -> None:
    """The same, forty times a backend."""
    attack(BackendHarness(backend, tmp_path), 40)


@pytest.mark.parametrize(
    "sabotage",
    ["lmdb: nobody is looked for", "sqlite: a copy is put in the file's place"],
)
def test_the_attack_finds_a_swap_under_a_writer(sabotage: str, tmp_path: Path) -> None:
    """Put another file in the place of one that somebody writes to, and what he wrote is gone: the
    attack notices.
    """
    attack = Attack(BackendHarness(sabotage.partition(":")[0], tmp_path), "sabotage", sabotage)
    noticed = (AssertionError, sqlite3.DatabaseError)
    with pytest.raises(noticed):  # noqa: PT012 - in which round is a matter of chance
        for _ in range(20):
            attack.round("a writer")


@pytest.mark.parametrize(
    ("backend", "said"),
    [("sqlite", "full"), ("lmdb", "full"), ("bolt", "reclaimed"), ("tinydb", "full")],
)
def test_a_full_disk(backend: str, said: str, tmp_path: Path) -> None:
    """Where there is no room for the work it is refused before any file is touched; bolt needs
    none. As soon as there is room, space is given back.
    """
    within = (*SMALL_DISK, "sh", "-c", MOUNTED, "sh", str(tmp_path))
    if subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("the system permits no mounts")
    target = tmp_path / "database" / f"store.{backend}"
    asked = {"task": "on_a_full_disk", "backend": backend, "target": str(target)}
    command = [sys.executable, "-m", "tests.crash.reclaimers", json.dumps(asked)]
    done = subprocess.run([*within, *command], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f'"{said}"\n', done.stderr
