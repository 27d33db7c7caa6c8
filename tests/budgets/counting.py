"""What an operation costs, counted while it runs: calls, SQL statements, steps of SQLite's machine.

All of it is the same in every run and on every machine: nothing here is a time.
"""

from __future__ import annotations

import gc
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import lmdb

from storebridge.driver.contract import Driver, Transaction

_ROOT = Path(__file__).parents[2]
_PORTABLE = f"{_ROOT / 'storebridge'}/"
_CONTRACT = f"{_PORTABLE}driver/"
_BACKENDS = f"{_ROOT / 'backends'}/"
_OURS = (_PORTABLE, _BACKENDS)
_BELOW_CONTRACT = (_CONTRACT, _BACKENDS)
_CONTRACT_CALLS = {
    name for part in (Transaction, Driver) for name in vars(part) if not name.startswith("_")
}
_PYTHON_ENGINES = (f"{_BACKENDS}storebridge_bolt/pybolt/", f"{_CONTRACT}sortedmap.py")
"""Engines in Python: that of bolt, and the maps under memory and tinydb."""
_NATIVE_ENGINES = (lmdb.Environment, lmdb.Transaction, lmdb.Cursor)
_INLINED = {"<listcomp>", "<setcomp>", "<dictcomp>"}
"""Functions of their own in Python 3.11 only."""


class Counting:
    """Counts into `counts` in the block of `with counting():`.

    `calls`: of functions by our code or into it, the built-in ones too. `libraries`: calls within
    what our code calls. `contract`: calls of a driver by the portable layer. `engine`: SQL
    statements, or calls of LMDB, of pybolt, or of the maps, by a backend. `steps`: instructions of
    SQLite's machine, which tell a scan from a search.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._active = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        gc.disable()  # what it calls, it calls whenever it likes
        self._active = True
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._active = False
            gc.enable()

    @contextmanager
    def watching_sqlite(self) -> Iterator[None]:
        """See the statements of every connection that is made in the block."""
        connect = sqlite3.connect

        def connect_and_watch(*args: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **options)
            connection.set_trace_callback(self._see_statement)
            connection.set_progress_handler(self._see_step, 1)
            return connection

        sqlite3.connect = connect_and_watch  # type: ignore[assignment]
        try:
            yield
        finally:
            sqlite3.connect = connect

    def _see_statement(self, sql: str) -> None:
        # What begins so are statements that SQLite runs for itself, within one of ours.
        if self._active and not sql.startswith("--"):
            self.counts["engine"] += 1

    def _see_step(self) -> int:
        if self._active:
            self.counts["steps"] += 1
        return 0

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self._see_call(frame.f_code, None if frame.f_back is None else frame.f_back.f_code)
        elif event == "c_call":
            self._see_builtin(frame.f_code, argument)

    def _see_builtin(self, caller: CodeType, called: Any) -> None:
        if not _is_in(caller, _OURS):
            self.counts["libraries"] += caller.co_filename != __file__
            return
        self.counts["calls"] += 1
        if isinstance(getattr(called, "__self__", None), _NATIVE_ENGINES):
            self.counts["engine"] += 1

    def _see_call(self, callee: CodeType, caller: CodeType | None) -> None:
        if callee.co_name in _INLINED or callee.co_filename == __file__:
            return
        inside = caller is not None and _is_in(caller, _OURS)
        self.counts["calls" if inside or _is_in(callee, _OURS) else "libraries"] += 1
        if not inside or caller is None:
            return
        if _is_in(callee, _PYTHON_ENGINES) and not _is_in(caller, _PYTHON_ENGINES):
            self.counts["engine"] += 1
        if (
            callee.co_name in _CONTRACT_CALLS
            and _is_in(callee, _BELOW_CONTRACT)
            and not _is_in(caller, _BELOW_CONTRACT)
        ):
            self.counts["contract"] += 1


def _is_in(code: CodeType, places: tuple[str, ...]) -> bool:
    return code.co_filename.startswith(places)
