"""Go's own bbolt: what an expert writes by hand in Go, in a process of its own. See
`tests/formats/oracle/executions.go`, which measures itself."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contenders.base import Contender, Pair
from storebridge import Execution

ORACLE = Path(__file__).resolve().parents[2] / ".oracle" / "boltoracle"
"""Built by `make oracle`."""


class Bbolt(Contender):
    """Records and their order are made in Go, so that only their number counts here."""

    name, engine = "bbolt by hand (Go)", "bolt"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._made = self._moved = 0

    def _do(self, name: str, count: int = 1, first: int = 0, *flags: str) -> float:
        command = [str(ORACLE), "executions", "-do", name, "-count", str(count), *flags]
        command += ["-first", str(first), "-records", str(len(self.ids))]
        command.append(str(self.folder / "hand.bolt"))
        return int(subprocess.run(command, capture_output=True, check=True).stdout) / 1e9

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        self.create_together(executions)
        return [f"e-{number:032x}" for number in range(self._made)]

    def moves(self, count: int) -> list[Pair]:
        return [("", "")] * count

    def create_each(self, executions: Sequence[Execution]) -> float:
        first, self._made = self._made, self._made + len(executions)
        return self._do("create", len(executions), first)

    def create_together(self, executions: Sequence[Execution]) -> float:
        first, self._made = self._made, self._made + len(executions)
        return self._do("create", len(executions), first, "-together")

    def _move(self, name: str, pairs: Sequence[Pair], *flags: str) -> float:
        first, self._moved = self._moved, self._moved + len(pairs)
        return self._do(name, len(pairs), first, *flags)

    def set_state_each(self, pairs: Sequence[Pair]) -> float:
        return self._move("set-state", pairs)

    def set_state_together(self, pairs: Sequence[Pair]) -> float:
        return self._move("set-state", pairs, "-together")

    def set_state_callers(self, pairs: Sequence[Pair]) -> float:
        return self._move("callers", pairs)

    def get(self, ids: Sequence[str]) -> float:
        return self._do("get", len(ids))

    def find(self, times: int) -> float:
        return self._do("find", times)

    def history(self, ids: Sequence[str]) -> float:
        return self._do("history", len(ids))

    def scan(self) -> float:
        return self._do("scan")

    def recount(self) -> float:
        return self._do("recount")

    def shrink(self, ids: Sequence[str]) -> float:
        return self._do("delete", len(ids), self.removed)

    def compact(self) -> float:
        return self._do("compact")

    def reopen(self) -> float:
        return self._do("open")
