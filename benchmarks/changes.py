"""What durable changes cost, as a program: `python -m benchmarks.changes CONTENDER FOLDER RESULT`.

It fills a contender's store with records, marks a section (see `tests.disk_traffic`) in which it
makes changes of state, each durable before the next, and closes. Into the file RESULT it writes how
many changes it made, and how many bytes on the disk each record takes then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import create_engine, text

from benchmarks.contenders.base import Contender, execution
from tests.disk_traffic import mark
from tests.postgres_server import own_server

RECORDS = 2_000
SECTION = "changes"
_CHANGES = 500
"""So many that what is put off is among them: a checkpoint of a log, a fold of a journal."""
_FEW = 10
"""Of those who write everything anew for each change."""
_FIRST = 20
_ON_DISK = """
SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n
ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog',
'information_schema')
"""
CONTENDERS = {
    "storebridge sqlite": "ours.OurSqlite",
    "sqlite3 by hand": "by_hand.Sqlite3",
    "aiosqlite by hand": "by_hand.Aiosqlite",
    "APScheduler": "libraries.APScheduler",
    "huey": "libraries.Huey",
    "diskcache": "libraries.Diskcache",
    "sqlitedict": "libraries.Sqlitedict",
    "storebridge lmdb": "ours.OurLmdb",
    "py-lmdb by hand": "by_hand.PyLmdb",
    "storebridge bolt": "ours.OurBolt",
    "bbolt by hand (Go)": "bbolt.Bbolt",
    "storebridge tinydb": "ours.OurTinydb",
    "TinyDB": "tiny.Tinydb",
    "aiotinydb": "tiny.Aiotinydb",
    "storebridge PostgreSQL": "postgres.OurPostgres",
    "psycopg by hand": "postgres.Psycopg",
}
"""By their names: where they are in `benchmarks.contenders`. Each is imported alone."""


def kind_of(name: str) -> type[Contender]:
    """The class of a contender."""
    module, _, kind = CONTENDERS[name].partition(".")
    found: type[Contender] = getattr(import_module(f"benchmarks.contenders.{module}"), kind)
    return found


class Result(NamedTuple):
    """What the program found out by itself."""

    changes: int
    record_bytes: float


@contextmanager
def filled(kind: type[Contender], folder: Path) -> Iterator[tuple[Contender, str | None]]:
    """A contender with its records, and the address of its server, if it has one."""
    with ExitStack() as stack:
        url = None
        make: Callable[..., Contender] = kind
        if kind.engine == "sqlalchemy":
            url = stack.enter_context(contextmanager(own_server)(durable=True)).url
            make = partial(make, url=url)
        contender = make(folder / "store")
        stack.callback(contender.close)
        contender.prepare(RECORDS)
        if _only_creates(contender):  # and its queue is empty
            change(contender, RECORDS)
        yield contender, url


def change(contender: Any, count: int) -> None:
    """Make so many changes of state. Who knows no states creates records."""
    if _only_creates(contender):
        contender.create_each([execution(number) for number in range(count)])
    else:
        contender.set_state_each(contender.moves(count))


def _only_creates(contender: Contender) -> bool:
    return not hasattr(contender, "set_state_each")


def run(name: str, folder: Path) -> Result:
    """Fill, change and close."""
    kind = kind_of(name)
    count = _FEW if kind.engine == "tinydb" and not kind.ours else _CHANGES
    size = None
    with filled(kind, folder) as (contender, url):
        change(contender, _FIRST)
        mark(SECTION)
        change(contender, count)
        mark("")
        if url is not None:
            size = _size_on_server(url)
    records = RECORDS + (_FIRST + count if _only_creates(contender) else 0)
    return Result(count, (size or _size_of(folder / "store")) / records)


def _size_on_server(url: str) -> int:
    with create_engine(url).connect() as connection:
        return int(connection.scalar(text(_ON_DISK)) or 0)


def _size_of(folder: Path) -> int:
    """What its files take on the disk: holes in them do not."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def main() -> None:
    name, folder, result = sys.argv[1:]
    Path(result).write_text(" ".join(map(str, run(name, Path(folder)))))


if __name__ == "__main__":
    main()
