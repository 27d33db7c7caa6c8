"""An exception that strikes wherever Python lets a signal handler raise one in some files: where a
function begins, behind a call, and where a loop turns. But not where a finaliser begins: nothing of
it would be done, and nobody could help it."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType
from typing import Any

_LOOKS = ("CALL", "JUMP_BACKWARD", "BEFORE_WITH")


class Strike(BaseException):
    """What strikes."""


class Striking:
    """Strikes at the place with this number, of those in files whose names end so."""

    def __init__(self, number: int, files: tuple[str, ...]) -> None:
        self._left = number
        self._files = files
        self._last: dict[FrameType, int] = {}
        self.where = ""
        """Where it has struck; empty: there were not so many places."""

    def _see_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(self._files):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._see

    def _see(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event != "opcode":
            return self._see
        last = self._last.get(frame)
        self._last[frame] = frame.f_lasti
        if self._is_place(frame, last):
            self._left -= 1
            if self._left < 0:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                sys.settrace(None)
                raise Strike(self.where)
        return self._see

    def _is_place(self, frame: FrameType, last: int | None) -> bool:
        if last is None:
            return frame.f_code.co_name != "__del__"
        return _instructions(frame.f_code)[last].startswith(_LOOKS)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """In the block, in this thread; what was struck is ended with the block."""
        before = sys.gettrace()
        try:
            sys.settrace(self._see_call)
            yield
        except Strike:
            pass
        finally:
            sys.settrace(before)
            self._last.clear()


@cache
def _instructions(code: CodeType) -> dict[int, str]:
    return {each.offset: each.opname for each in dis.get_instructions(code)}


def strikes(files: tuple[str, ...], act: Callable[[Striking], None]) -> int:
    """Let `act(striking)` be struck at one place after the other; how many there were."""
    number = 0
    while True:
        striking = Striking(number, files)
        act(striking)
        if not striking.where:
            return number
        number += 1
