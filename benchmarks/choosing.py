"""Which backend to choose: the words are here, the figures come from a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks import findings
from benchmarks.drawing import units
from benchmarks.record import Cost, Record


class Backend(NamedTuple):
    """What no figure says of a backend."""

    who: str
    """Who can have it open at once."""
    tools: str
    choose: str
    durable: bool = True


BACKENDS = {
    "sqlite": Backend(
        "processes of one machine",
        "`sqlite3`, Datasette, any SQL tool",
        "in doubt: nothing to install, readable with everything",
    ),
    "lmdb": Backend(
        "processes of one machine",
        "`mdb_stat`, `mdb_dump`",
        "reads decide, from several processes, on 64 bits",
    ),
    "bolt": Backend(
        "one process",
        "Go's `bbolt`, `storebridge bolt`",
        "programs in Go read the file, or nothing may be compiled",
    ),
    "tinydb": Backend(
        "one process",
        "an editor, `jq`, `TinyDB`",
        "people read the file, or a TinyDB service grows up; it is all in memory",
    ),
    "sqlalchemy": Backend(
        "many machines",
        "`psql`, any SQL tool",
        "several machines share the work",
    ),
    "memory": Backend(
        "one process", "–", "nothing need outlive the process: tests, caches", durable=False
    ),
}
CHANGE = "set_state"
"""The workload that stands for a durable change."""
ALONE, TOGETHER = "one a transaction", "64 callers"


def table(record: Record) -> str:
    """A table in Markdown, a row for each backend. A column that nothing was measured for is left
    out."""
    found = {title: {name: of(record, name) for name in BACKENDS} for title, of in _COLUMNS.items()}
    titles = [title for title, cells in found.items() if set(cells.values()) != {units.UNKNOWN}]
    heads = ["backend", "open to", *titles, "read by", "choose it when"]
    rows = [
        [
            f"`{name}`",
            backend.who,
            *(found[title][name] for title in titles),
            backend.tools,
            backend.choose,
        ]
        for name, backend in BACKENDS.items()
    ]
    rule = ["---", "---", *["--:"] * len(titles), "---", "---"]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def change_rate(record: Record, engine: str, mode: str) -> float | None:
    """Durable changes a second."""
    figure = findings.ours(record, CHANGE, mode, engine)
    return None if figure is None else 1 / figure.median


def _rate(mode: str) -> Callable[[Record, str], str]:
    def of(record: Record, engine: str) -> str:
        # What is kept nowhere is no durable change, however fast it is.
        return units.rate(change_rate(record, engine, mode) if BACKENDS[engine].durable else None)

    return of


def _get(record: Record, engine: str) -> str:
    figure = findings.ours(record, "get", "reading", engine)
    return units.seconds(None if figure is None else figure.median)


def _cost(of: Callable[[Cost], float | None]) -> Callable[[Record, str], str]:
    def cell(record: Record, engine: str) -> str:
        return units.size(next(filter(None, map(of, _costs(record, engine))), None))

    return cell


def _costs(record: Record, engine: str) -> Iterator[Cost]:
    return (cost for cost in record.costs if cost.ours and cost.engine == engine)


_COLUMNS: dict[str, Callable[[Record, str], str]] = {
    "durable changes, one caller": _rate(ALONE),
    "64 callers": _rate(TOGETHER),
    "get": _get,
    "written per change": _cost(findings.written),
    "on disk per record": _cost(lambda cost: cost.record_bytes),
    "memory": _cost(lambda cost: cost.memory_bytes),
}
