"""Many callers: what sharing a commit gives, beside those who write by hand, or commit each alone.

Both sides change the state of the same executions in the same random order, durably, on one disk;
where that is faster than a millisecond a sync, `strace` makes it as slow as that for both.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import pytest

from benchmarks.targets import judge
from storebridge import Execution, aio

ROOT = Path(__file__).parents[1]


def slowed(milliseconds: int) -> list[str]:
    """What makes each sync of a program take so much longer."""
    calls = "fdatasync,fsync,msync"
    delay = f"inject={calls}:delay_enter={milliseconds * 1000}"
    quiet = ["--seccomp-bpf", "-qq", "-o", "/dev/null"]
    return ["strace", "-f", *quiet, "-e", f"trace={calls}", "-e", delay]


class Side:
    """Runs `callers` in a process of its own; medians of its rounds."""

    def __init__(self, name: str, count: int, folder: Path, slow: int) -> None:
        self._name, self._count, self._folder, self._slow = name, count, folder, slow
        self.rates: list[float] = []
        self.p99s: list[float] = []

    def run(self) -> None:
        folder = self._folder / f"{self._name}-{len(self.rates)}".replace(":", "-")
        folder.mkdir()
        program = [sys.executable, "-m", "benchmarks.callers", self._name, str(folder)]
        command = [*(slowed(self._slow) if self._slow else ()), *program, str(self._count)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        seconds, p99 = map(float, done.stdout.split())
        self.rates.append(self._count / seconds)
        self.p99s.append(p99)


def against(
    tmp_path: Path, ours: str, theirs: str, counts: tuple[int, int], target: str, *, slow: int = 0
) -> None:
    """Alternate, and print how many times as many changes a second ours makes. `slow`: by how many
    milliseconds a sync is delayed."""
    sides = [
        Side(name, count, tmp_path, slow)
        for name, count in zip((ours, theirs), counts, strict=True)
    ]
    for _ in range(3):
        for side in sides:
            side.run()
    mine, other = (median(side.rates) for side in sides)
    judge(target, mine / other)
    print(
        f"{ours}: {mine:,.0f}/s, p99 {median(sides[0].p99s) * 1e3:.1f} ms; {theirs}:"
        f" {other:,.0f}/s{f', syncs of {slow} ms more' if slow else ''}"
    )


def test_beside_hand_written_that_commits_every_64(tmp_path: Path) -> None:
    against(tmp_path, "together:sqlite", "by-hand:64", (4096, 4096), "callers.64")


def test_beside_hand_written_that_commits_each(tmp_path: Path) -> None:
    against(tmp_path, "together:sqlite", "by-hand:1", (4096, 512), "callers.1", slow=1)


@pytest.mark.parametrize("slow", [1, 10])
def test_beside_apscheduler(slow: int, tmp_path: Path) -> None:
    """On a disk, and on an SD card."""
    target = f"callers.apscheduler.{slow}"
    counts = (4096, 256) if slow == 1 else (1024, 64)
    against(tmp_path, "together:sqlite", "apscheduler", counts, target, slow=slow)


@pytest.mark.parametrize("backend", ["lmdb", "bolt"])
def test_beside_itself_one_by_one(backend: str, tmp_path: Path) -> None:
    sides = (f"together:{backend}", f"one-by-one:{backend}")
    against(tmp_path, *sides, (4096, 512), f"callers.{backend}", slow=1)


def test_a_lone_caller(tmp_path: Path) -> None:
    """What awaiting a write costs over waiting for it in an executor."""

    async def work() -> None:
        async with await aio.open_execution_store(f"memory:{tmp_path.name}") as executions:
            await executions.create(Execution(id="e", job_id="j"))
            sync, loop = executions.sync, asyncio.get_running_loop()
            with ThreadPoolExecutor(1) as pool:
                ours, theirs = [], []
                for number in range(2000):
                    started = perf_counter()
                    await executions.update("e", message=str(number))
                    between = perf_counter()
                    await loop.run_in_executor(
                        pool, partial(sync.update, "e", message=f"x{number}")
                    )
                    ours.append(between - started)
                    theirs.append(perf_counter() - between)
        judge("callers.lone", (median(ours) - median(theirs)) * 1e6)

    asyncio.run(work())


def test_idle(tmp_path: Path) -> None:
    """What an open store with one watcher costs while nothing happens."""

    async def work() -> None:
        async with await aio.open_execution_store(f"sqlite://{tmp_path}/node.db") as executions:

            async def watch() -> None:
                async for _ in executions.watch(after=0):
                    pass

            watcher = asyncio.create_task(watch())
            await asyncio.sleep(1)
            used, started = process_time(), perf_counter()
            await asyncio.sleep(10)
            share = (process_time() - used) / (perf_counter() - started)
            watcher.cancel()
        judge("callers.idle", share * 100)

    asyncio.run(work())
