"""Other processes and other users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Process:
    """An actor in a process of its own."""

    def __init__(self, *arguments: object, options: dict[str, Any]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.actor", *map(str, arguments), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def begin(self, word: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(word + "\n")
        self.popen.stdin.flush()

    def answer(self) -> Any:
        assert self.popen.stdout is not None
        return json.loads(self.popen.stdout.readline())

    def do(self, word: str) -> Any:
        self.begin(word)
        return self.answer()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate()


Start = Callable[..., Process]


@pytest.fixture
def start(engine: str) -> Iterator[Start]:
    """Start processes on a backend: `start(path, uid, gid, **options)`; they end with the test."""
    with ExitStack() as stack:

        def start(
            path: Path, uid: int | None = None, gid: int | None = None, **options: Any
        ) -> Process:
            uid = os.getuid() if uid is None else uid
            gid = uid if gid is None else gid
            process = Process(engine, path, uid, gid, options=options)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can enter and write to."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)
