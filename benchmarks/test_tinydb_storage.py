"""Our storages for TinyDB and AIOTinyDB beside their own, at 5,000 documents."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from aiotinydb.database import AIOTinyDB
from aiotinydb.storage import AIOJSONStorage
from pytest_benchmark.fixture import BenchmarkFixture
from storebridge_tinydb.aiostorage import AtomicAIOJSONStorage
from storebridge_tinydb.storage import AtomicJSONStorage
from tinydb import JSONStorage, TinyDB

from benchmarks.race import race
from benchmarks.targets import judge

DOCUMENTS = 5_000
ROUNDS = 15
_TICK = 0.001


def _document(number: int) -> dict[str, Any]:
    return {
        "name": f"sensor-{number}",
        "value": number / 7,
        "tags": ["a", "b", str(number)],
        "at": "2026-01-01T12:00:00Z",
        "meta": {"room": number % 7, "ok": True},
    }


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of the same documents, ours and theirs."""
    text = json.dumps({"_default": {str(i): _document(i) for i in range(1, DOCUMENTS + 1)}})
    for name in ("ours", "theirs"):
        (tmp_path / name).write_text(text)
    return tmp_path / "ours", tmp_path / "theirs"


def test_insert(benchmark: BenchmarkFixture, files: tuple[Path, Path]) -> None:
    """A change with each: TinyDB's syncs the file, ours that, its copy's folder and looks twice."""
    with (
        TinyDB(files[0], storage=AtomicJSONStorage) as ours,
        TinyDB(files[1], storage=JSONStorage) as theirs,
    ):
        race(
            benchmark,
            ours=lambda: ours.insert(_document(0)),
            theirs=lambda: theirs.insert(_document(0)),
            operations=1,
            rounds=ROUNDS,
            target="tinydb.storage.insert",
        )


def test_read(benchmark: BenchmarkFixture, files: tuple[Path, Path]) -> None:
    with (
        TinyDB(files[0], storage=AtomicJSONStorage) as ours,
        TinyDB(files[1], storage=JSONStorage) as theirs,
    ):
        race(
            benchmark,
            ours=lambda: ours.get(doc_id=7),
            theirs=lambda: theirs.get(doc_id=7),
            operations=1,
            rounds=ROUNDS,
            target="tinydb.storage.read",
        )


async def _change(path: Path, storage: Any) -> None:
    async with AIOTinyDB(path, storage=storage) as db:
        db.insert(_document(0))


def test_block(benchmark: BenchmarkFixture, files: tuple[Path, Path]) -> None:
    """A block with a change; aiotinydb's syncs nothing."""
    race(
        benchmark,
        ours=lambda: asyncio.run(_change(files[0], AtomicAIOJSONStorage)),
        theirs=lambda: asyncio.run(_change(files[1], AIOJSONStorage)),
        operations=1,
        rounds=ROUNDS,
        target="tinydb.storage.block",
    )


def test_loop_lag(benchmark: BenchmarkFixture, files: tuple[Path, Path]) -> None:
    """For how long a task that wants to run each millisecond cannot, at worst, during a block."""
    lags: dict[str, list[float]] = {"ours": [], "theirs": []}

    def turn() -> None:
        lags["ours"].append(_longest_lag(lambda: _change(files[0], AtomicAIOJSONStorage)))
        lags["theirs"].append(_longest_lag(lambda: _change(files[1], AIOJSONStorage)))

    benchmark.pedantic(turn, rounds=ROUNDS, iterations=1)  # type: ignore[no-untyped-call]
    for side, found in lags.items():
        text = f"{statistics.median(found) * 1e3:.1f} ms, at most {max(found) * 1e3:.1f} ms"
        benchmark.extra_info[side] = text
        print(f"\n{benchmark.name}: {side} {text}", end="")
    judge("tinydb.storage.lag", statistics.median(lags["ours"]) * 1e3)


def _longest_lag(work: Callable[[], Coroutine[Any, Any, None]]) -> float:
    async def main() -> float:
        longest, task = 0.0, asyncio.create_task(work())
        while not task.done():
            began = perf_counter()
            await asyncio.sleep(_TICK)
            longest = max(longest, perf_counter() - began - _TICK)
        await task
        return longest

    return asyncio.run(main())
