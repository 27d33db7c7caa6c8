"""The workloads that every contender is given, and how a round of one is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median, quantiles
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.contenders.base import CALLERS, Contender, execution, setting
from benchmarks.record import Figure

ROUND_SECONDS = 0.03
SETTINGS = {f"setting-{number:05}": setting(number) for number in range(1000)}


class Workload(NamedTuple):
    """`method` is a contender's, and is given what `make(contender, operations)` makes. `least`
    and `most`: operations in a round. `whole`: it does all it does in one call, whose time is that
    of one operation."""

    name: str
    mode: str
    method: str
    make: Callable[[Contender, int], tuple[Any, ...]]
    least: int = 1
    most: int = 500
    whole: bool = False


def _executions(_: Contender, count: int) -> tuple[Any, ...]:
    return ([execution(number) for number in range(count)],)


def _moves(contender: Contender, count: int) -> tuple[Any, ...]:
    return (contender.moves(count),)


def _ids(contender: Contender, count: int) -> tuple[Any, ...]:
    return (contender.shuffled()[:count],)


def _some_keys(_: Contender, count: int) -> tuple[Any, ...]:
    return (list(SETTINGS)[:count],)


def _some_settings(_: Contender, count: int) -> tuple[Any, ...]:
    return (dict(list(SETTINGS.items())[:count]),)


def _nothing(*_: Any) -> tuple[Any, ...]:
    return ()


def _at_rest(contender: Contender, _: int) -> tuple[Any, ...]:
    contender.rest()
    return ()


EACH, TOGETHER, MANY, READING = "one a transaction", "in a batch", "64 callers", "reading"
WORKLOADS = (
    Workload("create", EACH, "create_each", _executions, most=100),
    Workload("create", TOGETHER, "create_together", _executions, least=100),
    Workload("set_state", EACH, "set_state_each", _moves, most=100),
    Workload("set_state", TOGETHER, "set_state_together", _moves, least=100),
    Workload("set_state", MANY, "set_state_callers", _moves, least=4 * CALLERS, most=8 * CALLERS),
    Workload("get", READING, "get", _ids, least=10, most=1000),
    Workload("find 100 by state", READING, "find", lambda _, count: (count,), most=50),
    Workload("history", READING, "history", _ids, least=50),
    Workload("scan", READING, "scan", _nothing, whole=True),
    Workload("recount", READING, "recount", _nothing, whole=True),
    Workload("open", READING, "reopen", _at_rest, whole=True),
    Workload("key-value get", READING, "kv_get", _some_keys, least=50, most=1000),
    Workload("key-value set", EACH, "kv_set", _some_settings, most=100),
    # Last, since it takes records away.
    Workload("compact", "a tenth removed", "compact", _nothing, whole=True),
)


class Lane:
    """One contender at one workload: its rounds."""

    def __init__(self, contender: Contender, workload: Workload) -> None:
        self.contender = contender
        self._workload = workload
        self._call = getattr(contender, workload.method)
        self.times: list[float] = []
        self.operations = 1

    def warm_up(self) -> None:
        """A round that is not counted, by which the next ones are sized."""
        workload = self._workload
        self.operations = workload.least
        took = self._run()
        if not workload.whole:
            wanted = int(workload.least * ROUND_SECONDS / max(took, 1e-9))
            self.operations = min(max(wanted, workload.least), workload.most)

    def round(self) -> None:
        self.times.append(self._run() / self.operations)

    def _run(self) -> float:
        if self._workload.method == "compact":
            _shrink(self.contender)
        given = self._workload.make(self.contender, self.operations)
        started = perf_counter()
        told = self._call(*given)
        took = perf_counter() - started
        return told if isinstance(told, float) else took

    def figure(self, records: int) -> Figure:
        contender, low, high = self.contender, min(self.times), max(self.times)
        if len(self.times) > 1:
            low, _, high = quantiles(self.times, n=4, method="inclusive")
        return Figure(
            workload=self._workload.name,
            mode=self._workload.mode,
            contender=contender.name,
            engine=contender.engine,
            ours=contender.ours,
            promise=contender.promise_in(self._workload.name),
            records=records,
            rounds=len(self.times),
            median=median(self.times),
            low=low,
            high=high,
        )


def _shrink(contender: Contender) -> None:
    """Remove the next tenth of the records."""
    shrink = contender.shrink  # type: ignore[attr-defined]
    tenth = len(contender.ids) // 10
    shrink(contender.shuffled()[contender.removed : contender.removed + tenth])
    contender.removed += tenth


def lanes(workload: Workload, contenders: Sequence[Contender]) -> list[Lane]:
    """Those who can do it, ours first."""
    needed = (workload.method, "shrink") if workload.method == "compact" else (workload.method,)
    able = [each for each in contenders if all(getattr(each, name, None) for name in needed)]
    return [Lane(each, workload) for each in sorted(able, key=lambda each: not each.ours)]
