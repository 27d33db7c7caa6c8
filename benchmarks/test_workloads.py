"""Every workload by the stores on each backend, and by whoever can do the same on its engine, in
turns in one run; everybody is as durable as a store, unless his name says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.contenders.base import Contender
from benchmarks.contenders.bbolt import ORACLE, Bbolt
from benchmarks.contenders.by_hand import Aiosqlite, PyLmdb, Sqlite3
from benchmarks.contenders.libraries import APScheduler, Diskcache, Huey, Sqlitedict
from benchmarks.contenders.ours import OurBolt, OurLmdb, OurMemory, OurSqlite, OurTinydb
from benchmarks.contenders.postgres import OurPostgres, Psycopg
from benchmarks.contenders.tiny import Aiotinydb, Tinydb
from benchmarks.record import FULL, RUN
from benchmarks.workloads import SETTINGS, WORKLOADS, Workload, lanes
from tests.postgres_server import own_server

ROUNDS = 15 if FULL else 5
RECORDS = 20_000 if FULL else 4_000
FEW = 2_000 if FULL else 1_000
"""Of what rewrites its file for each change."""
Make = Callable[[Path], Contender]
GROUPS: dict[str, tuple[int, tuple[Make, ...]]] = {
    "sqlite": (
        RECORDS,
        (OurSqlite, Sqlite3, Aiosqlite, APScheduler, Huey, Diskcache, Sqlitedict),
    ),
    "lmdb": (RECORDS, (OurLmdb, PyLmdb)),
    "bolt": (RECORDS, (OurBolt, Bbolt) if ORACLE.exists() else (OurBolt,)),
    "tinydb": (FEW, (OurTinydb, Tinydb, Aiotinydb)),
    "memory": (RECORDS, (OurMemory,)),
    "sqlalchemy": (RECORDS, ()),
}


@pytest.fixture(scope="module", params=GROUPS)
def group(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, list[Contender]]]:
    """All contenders of one engine, filled, and how many records they have."""
    name = str(request.param)
    records, makers = GROUPS[name]
    servers = own_server(durable=True) if name == "sqlalchemy" else None
    if servers is not None:
        url = next(servers).url
        makers = (partial(OurPostgres, url=url), partial(Psycopg, url=url))
    folder = tmp_path_factory.mktemp(name)
    contenders = [make(folder / str(number)) for number, make in enumerate(makers)]
    for contender in contenders:
        contender.prepare(records)
        if hasattr(contender, "kv_fill"):
            contender.kv_fill(SETTINGS)
    yield records, contenders
    for contender in contenders:
        contender.close()
    if servers is not None:
        next(servers, None)


@pytest.mark.parametrize(
    "workload", WORKLOADS, ids=[f"{each.name}, {each.mode}" for each in WORKLOADS]
)
def test_workload(
    benchmark: BenchmarkFixture, group: tuple[int, list[Contender]], workload: Workload
) -> None:
    """In each round everybody has a turn."""
    records, contenders = group
    ours, *others = lanes(workload, contenders) or pytest.skip("nobody here can do it")
    for lane in (ours, *others):
        lane.warm_up()

    def they() -> None:
        for lane in others:
            lane.round()

    benchmark.pedantic(ours.round, setup=they, rounds=ROUNDS, iterations=1)  # type: ignore[no-untyped-call]
    figures = [lane.figure(records) for lane in (ours, *others)]
    RUN.figures += figures
    print(f"\n{workload.name}, {workload.mode}:")
    for figure in figures:
        print(
            f"  {figure.contender}: {figure.median * 1e6:,.1f} us"
            f" ({figure.low * 1e6:,.1f} to {figure.high * 1e6:,.1f}),"
            f" {figure.median / figures[0].median:.2f} of ours"
        )
