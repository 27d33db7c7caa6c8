"""Databases, and processes that use them."""

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
from storebridge_sqlite import backend

from storebridge.driver import Driver, Options
from storebridge.testing.samples import LAYOUT, TABLES

ACTOR = Path(__file__).with_name("actor.py")


class Process:
    """An actor in a process of its own."""

    def __init__(self, path: Path, uid: int, options: dict[str, Any]) -> None:
        command = [sys.executable, str(ACTOR), str(path), str(uid), json.dumps(options)]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
def start() -> Iterator[Start]:
    """Start processes: `start(path, uid, **options)`; they end with the test."""
    with ExitStack() as stack:

        def start(path: Path, uid: int | None = None, **options: Any) -> Process:
            process = Process(path, os.getuid() if uid is None else uid, options)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.fixture
def driver(path: Path) -> Iterator[Driver]:
    """A new database with the suite's tables."""
    driver = backend.open(str(path), Options(durability="off"))
    driver.create_tables(TABLES, LAYOUT)
    yield driver
    driver.close()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can enter and write to."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)
