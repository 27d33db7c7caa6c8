"""Another process with a database open, perhaps of another user: does what its stdin says, one
word a line, and answers each in one line of JSON.

Run as `python -m tests.unit.actor BACKEND PATH UID GID OPTIONS`, the options as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

from storebridge.driver import Backend, Compactor, Driver, DriverError, Options, Range
from storebridge.testing.harness import load_backend
from storebridge.testing.samples import LAYOUT, LOG, TABLES
from tests.unit.users import become


class Actor:
    def __init__(self, backend: Backend, path: str, options: Options) -> None:
        self.backend = backend
        self.path = path
        self.options = options
        self.driver: Driver | None = None

    def warm_up(self) -> None:
        """Import what opening imports, while we may read it for certain."""
        with tempfile.TemporaryDirectory() as folder:
            self.backend.open(os.path.join(folder, "any"), Options()).close()

    def open(self) -> str:
        self.driver = self.backend.open(self.path, self.options)
        self.driver.create_tables(TABLES, LAYOUT)
        return "opened"

    def close(self) -> str:
        assert self.driver is not None
        self.driver.close()
        return "closed"

    def write(self) -> int:
        """Add an entry with the next number; the number."""
        assert self.driver is not None
        transaction = self.driver.begin(write=True)
        try:
            number = transaction.tally({"n": 1})["n"]
            transaction.insert(LOG.name, (number,), (f"w{os.getpid()}",), b'{"n":%d}' % number)
        except BaseException:
            transaction.rollback()
            raise
        transaction.commit()
        return number

    def count(self) -> int:
        assert self.driver is not None
        transaction = self.driver.begin(write=False)
        rows, _ = transaction.scan(LOG.name, Range(limit=10**9))
        transaction.commit()
        return len(rows)

    def hold(self) -> str:
        """Begin to write and stay there."""
        assert self.driver is not None
        self.transaction = self.driver.begin(write=True)
        self.transaction.tally({"n": 1000})
        return "held"

    def fold(self) -> int:
        """Write so much that the write-ahead log is folded into the file."""
        assert self.driver is not None
        transaction = self.driver.begin(write=True)
        for _ in range(100):
            number = transaction.tally({"n": 1})["n"]
            transaction.insert(LOG.name, (number,), ("w",), b'"%s"' % (b"x" * 100_000))
        transaction.commit()
        return number

    def load_and_clear(self) -> str:
        """Write much, and remove it again."""
        assert self.driver is not None
        last = self.fold()
        transaction = self.driver.begin(write=True)
        for number in range(last - 99, last + 1):
            transaction.remove(LOG.name, (number,), ("w",))
        transaction.commit()
        return "cleared"

    def reclaim(self) -> str | None:
        """Give free space back; why not, if so."""
        assert isinstance(self.driver, Compactor)
        return self.driver.reclaim(lambda: None).skipped

    def load(self) -> int:
        """Write in a loop for three seconds; how often."""
        end, turns = time.monotonic() + 3, 0
        while time.monotonic() < end:
            self.write()
            turns += 1
        return turns

    def files(self) -> dict[str, int]:
        """The owners of the files in the folder."""
        return {entry.name: entry.stat().st_uid for entry in os.scandir(os.path.dirname(self.path))}


def main() -> None:
    name, path, uid, gid, options = sys.argv[1:]
    actor = Actor(load_backend(name), path, Options(**json.loads(options)))
    if int(uid) != os.getuid():
        actor.warm_up()
        become(int(uid), int(gid))
    for line in sys.stdin:
        try:
            answer = getattr(actor, line.strip())()
        except Exception as error:
            kind = error.kind.value if isinstance(error, DriverError) else type(error).__name__
            answer = {"error": kind, "message": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
