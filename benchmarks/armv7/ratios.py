"""Each backend beside the same work written by hand, in turns, as ratios of medians.

    python -m benchmarks.armv7.ratios FILE BACKEND...

adds to FILE, as JSON, what each backend came to. By hand is sqlite3, for lmdb also py-lmdb: the
same records, indexes, event rows and counters (`benchmarks/by_hand.py`). Durable changes are timed
by the clock; all else is processor time, which others on the machine do not change much.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Protocol

from benchmarks.by_hand import LmdbByHand, SqliteByHand
from benchmarks.machine import facts
from storebridge import EXECUTION_STATES, Execution, open_execution_store, to_json

RECORDS = 2000
DURABLE = 25
"""Changes in a round."""
ROUNDS = 5
_ALLOWED = frozenset(EXECUTION_STATES.transitions)
_PATH = ("BidAccepted", "Running", "WaitingVerification", "ResultAccepted", "Publishing")
_SPEC = to_json(
    {"engine": {"type": "docker", "params": {"image": "ubuntu", "cmd": ["x" * 40] * 8}}}
)


class Side(Protocol):
    """What both can do."""

    ids: list[str]

    def create(self) -> None:
        """Create so many records in one transaction."""

    def set_state(self, state: str) -> None:
        """Change the state of each of the last created, in random order, in one transaction."""

    def set_state_durably(self, ids: list[str]) -> None:
        """Change the state of each, in a transaction of its own that is on the disk."""

    def get(self) -> None:
        """Read each of the last created, in random order."""

    def find(self) -> None:
        """Read up to 1,000 records of a state, by time of creation."""

    def close(self) -> None:
        """Give it back."""


class Ours:
    """A backend."""

    def __init__(self, backend: str, folder: Path, *, durable: bool) -> None:
        durability = "full" if durable else "off"
        self._store = open_execution_store(f"{backend}://{folder / 'ours'}?durability={durability}")
        self.ids: list[str] = []

    def create(self) -> None:
        with self._store.database.transaction():
            self.ids = [self._store.create(_execution(number)).id for number in range(RECORDS)]

    def set_state(self, state: str) -> None:
        with self._store.database.transaction():
            for record_id in self.ids:
                self._store.set_state(record_id, state)

    def set_state_durably(self, ids: list[str]) -> None:
        for record_id in ids:
            self._store.set_state(record_id, "Running")

    def get(self) -> None:
        for record_id in self.ids:
            self._store.get(record_id)

    def find(self) -> None:
        assert len(list(self._store.find(state="Created", limit=1000))) == 1000

    def close(self) -> None:
        self._store.close()


class ByHand:
    """sqlite3 or py-lmdb, without storebridge."""

    def __init__(self, engine: str, folder: Path, *, durable: bool) -> None:
        self._engine = (
            SqliteByHand(folder / "hand.db", "FULL" if durable else "OFF")
            if engine == "sqlite3"
            else LmdbByHand(folder / "hand", sync=durable)
        )
        self.ids: list[str] = []

    def create(self) -> None:
        made = [_execution(number) for number in range(RECORDS)]
        self._engine.begin()
        for execution in made:
            self._engine.create(execution)
        self._engine.commit()
        self.ids = [execution.id for execution in made]

    def set_state(self, state: str) -> None:
        self._engine.begin()
        for record_id in self.ids:
            self._engine.set_state(record_id, state, _ALLOWED)
        self._engine.commit()

    def set_state_durably(self, ids: list[str]) -> None:
        for record_id in ids:
            self._engine.begin()
            self._engine.set_state(record_id, "Running", _ALLOWED)
            self._engine.commit()

    def get(self) -> None:
        for record_id in self.ids:
            self._engine.get(record_id)

    def find(self) -> None:
        assert len(self._engine.find("Created", 1000)) == 1000

    def close(self) -> None:
        self._engine.close()


def _execution(number: int) -> Execution:
    return Execution(
        job_id=f"j-{number % 400:032x}",
        node_id=f"node-{number % 20}",
        desired_state="Running",
        spec=_SPEC,
        message="accepted by the scheduler",
    )


Work = Callable[[Side], None]
Clock = Callable[[], float]


def _race(
    sides: dict[str, Side], clock: Callable[[], float], works: list[Work]
) -> dict[str, float]:
    """The median seconds of each side, all in turns in each round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for work in works:
        for name, side in sides.items():
            started = clock()
            work(side)
            times[name].append(clock() - started)
    return {name: median(taken) for name, taken in times.items()}


def _in_memory(sides: dict[str, Side]) -> dict[str, dict[str, float]]:
    def again(work: Work) -> list[Work]:
        return [work] * ROUNDS

    def change_to(state: str) -> Work:
        return lambda side: side.set_state(state)

    found = {"create": _race(sides, process_time, again(lambda side: side.create()))}
    for side in sides.values():
        random.Random(1).shuffle(side.ids)
    found["set_state"] = _race(sides, process_time, [change_to(state) for state in _PATH])
    found["get"] = _race(sides, process_time, again(lambda side: side.get()))
    found["find"] = _race(sides, process_time, again(lambda side: side.find()))
    return found


def _on_disk(sides: dict[str, Side]) -> dict[str, float]:
    for side in sides.values():
        side.create()
        random.Random(1).shuffle(side.ids)

    def change_from(start: int) -> Work:
        return lambda side: side.set_state_durably(side.ids[start : start + DURABLE])

    starts = range(0, 2 * ROUNDS * DURABLE, DURABLE)
    return _race(sides, perf_counter, [change_from(start) for start in starts])


def measure(backend: str) -> dict[str, dict[str, float]]:
    """By operation: how many times as long as by hand it takes, by what that was written on."""
    engines = ["sqlite3", "py-lmdb"] if backend == "lmdb" else ["sqlite3"]
    found: dict[str, dict[str, float]] = {}
    for durable in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            sides: dict[str, Side] = {
                each: ByHand(each, folder, durable=durable) for each in engines
            }
            sides["ours"] = Ours(backend, folder, durable=durable)
            found |= {"durable set_state": _on_disk(sides)} if durable else _in_memory(sides)
            for side in sides.values():
                side.close()
    return {
        operation: {each: round(seconds["ours"] / seconds[each], 2) for each in engines}
        for operation, seconds in found.items()
    }


def main(file: Path, backends: list[str]) -> None:
    """Measure what the file does not have yet."""
    ratios: dict[str, object] = json.loads(file.read_text())["ratios"] if file.exists() else {}
    for backend in backends:
        if backend not in ratios:
            ratios[backend] = measure(backend)
            results = {"machine": facts(), "records": RECORDS, "ratios": ratios}
            file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
