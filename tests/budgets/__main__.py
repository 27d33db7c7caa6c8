"""`python -m tests.budgets`: whether every operation keeps to its budget. With `--update`, what it
costs now becomes the budget."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.budgets import comparison
from tests.budgets.measure import costs_of
from tests.budgets.operations import BACKENDS
from tests.disk_traffic import INSTALLED


def main() -> int:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(BACKENDS, pool.map(costs_of, BACKENDS), strict=True))
    budgets = comparison.read()
    if not INSTALLED:
        print("strace is not installed: bytes and syncs were not counted")
    if sys.argv[1:] == ["--update"]:
        if not INSTALLED:
            return 1
        comparison.write(comparison.renewed(budgets, found))
        print(f"written: {comparison.PATH}; `git diff` shows what changed")
        return 0
    more, less = (
        [line for backend, costs in found.items() for line in lines(budgets, backend, costs)]
        for lines in (comparison.complaints, comparison.savings)
    )
    for line in (*more, *less):
        print(line)
    if more:
        print(comparison.ACCEPT)
    elif less:
        print("less than budgeted: `make budgets UPDATE=1` sees to it that it stays so")
    else:
        print("every operation keeps to its budget")
    return bool(more)


if __name__ == "__main__":
    sys.exit(main())
