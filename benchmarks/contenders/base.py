"""What a contender is: a store of executions and settings that does the workloads it can do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import msgspec

from storebridge import Execution, to_json

CALLERS = 64
PATH = ("Created", "BidAccepted", "Running", "WaitingVerification", "ResultAccepted", "Publishing")
"""The states that each execution goes through, so that it can be changed five times."""
SPEC = to_json({"engine": {"type": "docker", "params": {"image": "ubuntu", "cmd": ["x" * 40] * 8}}})
_JOBS = [f"j-{random.Random(number).randbytes(16).hex()}" for number in range(4000)]


def plain(execution: Execution) -> dict[str, Any]:
    """The record as plain objects, for those who keep such."""
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(execution))
    return made


Pair = tuple[str, str]
"""An id, and the state that it is to be brought into."""


def execution(number: int) -> Execution:
    """A record of about 850 bytes, as compute nodes keep them."""
    return Execution(
        job_id=_JOBS[number % len(_JOBS)],
        node_id=f"node-{number % 20}",
        state=PATH[0],
        desired_state="Running",
        spec=SPEC,
        message="accepted by the scheduler",
    )


def setting(number: int) -> dict[str, Any]:
    """A setting of about 150 bytes, as lab devices and controllers keep them."""
    return {
        "enabled": number % 2 == 0,
        "unit": "degC",
        "setting": 20 + number / 7,
        "range": [0, 100],
        "sensor": f"sensor-{number % 20}",
        "description": "fermentation temperature of the left vessel",
    }


class Contender:
    """A store on one engine. It can do the workloads that it has a method for; each does all it is
    given, and returns the seconds that took where the caller cannot measure them.

    `fill` comes first and is given records without ids; it returns their ids.
    """

    name: ClassVar[str]
    engine: ClassVar[str]
    """The backend whose users might take this instead."""
    promise: ClassVar[str] = "same"
    """What it keeps: `same` as a store (durable, indexed, with history), or what it does not."""
    ours: ClassVar[bool] = False
    most_callers: ClassVar[int] = CALLERS

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.ids: list[str] = []
        self.removed = 0
        """How many of them, in the shuffled order, are gone."""
        self._moves: Iterator[Pair] = iter(())

    def fill(self, executions: Sequence[Execution]) -> list[str]:
        raise TypeError(f"{self.name} keeps no records")

    def prepare(self, records: int) -> None:
        """Fill an empty store."""
        self.ids = self.fill([execution(number) for number in range(records)])
        shuffled = self.shuffled()
        self._moves = ((each, state) for state in PATH[1:] for each in shuffled)

    def shuffled(self) -> list[str]:
        """The ids of all records, in the same random order for everybody."""
        ids = list(self.ids)
        random.Random(len(ids)).shuffle(ids)
        return ids

    def moves(self, count: int) -> list[Pair]:
        """The next changes of state, which all are allowed, in random order."""
        return [next(self._moves) for _ in range(count)]

    @classmethod
    def promise_in(cls, workload: str) -> str:
        """What it keeps in a workload, where that differs."""
        return cls.promise

    def rest(self) -> None:
        """Let go what only some workloads need."""

    def close(self) -> None:
        """End it."""


class Threads:
    """For contenders that change one state in a call: 64 threads that do."""

    def __init__(self, count: int = CALLERS) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count)
        self._lock = Lock()

    def change(self, set_state: Any, pairs: Sequence[Pair], *, one_at_a_time: bool) -> None:
        """Let each thread change its part. `one_at_a_time`: the contender may be used by one thread
        at a time only, so they wait for each other, as its users would."""

        def caller(part: Sequence[Pair]) -> None:
            for pair in part:
                if one_at_a_time:
                    with self._lock:
                        set_state(*pair)
                else:
                    set_state(*pair)

        parts = [pairs[n :: self.count] for n in range(self.count)]
        for _ in self._pool.map(caller, parts):
            pass

    def close(self) -> None:
        self._pool.shutdown()
