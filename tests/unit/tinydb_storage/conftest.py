"""Processes that work on the same TinyDB file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


class Actor:
    """`actor.py` in a process of its own."""

    def __init__(self, role: str, path: Path, argument: str = "") -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.tinydb_storage.actor", role, path, argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def hear(self) -> str:
        """The next line that it says."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, f"ended with {self.popen.wait()}"
        return line.strip()

    def go_on(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def kill(self) -> str:
        """Kill it, and give what it said and nobody has heard."""
        self.popen.kill()
        assert self.popen.stdout is not None
        # Not by `communicate`, which passes over what was read from the pipe with an earlier line.
        rest = "" if self.popen.stdout.closed else self.popen.stdout.read()
        self.popen.communicate()
        return rest


Start = Callable[..., Actor]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start actors: `start(role, path, argument)`; they end with the test."""
    with ExitStack() as stack:

        def start(role: str, path: Path, argument: str = "") -> Actor:
            actor = Actor(role, path, argument)
            stack.callback(actor.kill)
            return actor

        yield start
