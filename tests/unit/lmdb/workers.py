"""What other processes do in these tests: `python workers.py WHAT PATH [ARGUMENT]`, one line of
JSON at the end. As processes of their own, since a fork would share LMDB's locks.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable

from storebridge_lmdb import backend
from storebridge_lmdb.driver import LmdbDriver

from storebridge.driver import DriverError, Options
from tests.unit.lmdb.support import EVENT, THING, names, put
from tests.unit.users import OWNER, become


def opened(path: str, **given: object) -> LmdbDriver:
    options = Options(**{"lock_timeout": 5.0, "durability": "off", **given})  # type: ignore[arg-type]
    driver = backend.open(path, options)
    driver.create_tables([THING, EVENT], 1)
    return driver


def hold_reader(path: str, argument: str) -> object:
    """Register a reader, say so, and wait to be killed."""
    driver = opened(path, read_only=argument == "read-only")
    transaction = driver.begin(False)
    transaction.get("thing", ("a",))
    print("ready", flush=True)
    time.sleep(60)
    return None


def hold_writer(path: str, argument: str) -> object:
    """Change something, do not commit, say so, and wait to be killed."""
    transaction = opened(path).begin(True)
    transaction.insert("thing", ("never committed",), ("new",), b"{}")
    print("ready", flush=True)
    time.sleep(60)
    return None


def insert(path: str, argument: str) -> object:
    """Insert so many large things in a map of another size."""
    size, count = argument.split()
    driver = opened(path, extra={"map_size": size})
    for number in range(int(count)):
        put(driver, f"p{os.getpid()}-{number}", bytes(50_000))
    described = driver.describe()["mapsize"]
    driver.close()
    return described


def disk_full(path: str, argument: str) -> object:
    """Insert with a limit on the size of files, then without."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    driver = opened(path, durability="full")
    put(driver, "before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    acknowledged, kinds = ["before"], set()
    for number in range(200):
        name, body = f"t{number}", bytes(int(argument))
        try:
            put(driver, name, body)
            acknowledged.append(name)
        except Exception as error:
            kind = driver.kind(error)
            kinds.add(kind.value if kind else repr(error))
    found = names(driver)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    put(driver, "after", bytes(300_000))
    driver.close()
    driver = opened(path)
    return {
        "kinds": sorted(kinds),
        "kept": found == sorted(acknowledged),
        "after": names(driver) == sorted([*acknowledged, "after"]),
        "problems": list(driver.check()),
    }


def as_nobody(path: str, argument: str) -> object:
    """Read, or write, as another user; a kind of error, or the names found."""
    become(OWNER)
    try:
        driver = opened(path, read_only=argument == "read", lock_timeout=0.5)
        if argument == "write":
            put(driver, "by nobody")
        found = names(driver)
        locking = driver.describe()["locking"]
        driver.close()
        return [found, locking]
    except DriverError as error:
        return error.kind.value


def as_root(path: str, argument: str) -> object:
    """Read, or write, as root."""
    driver = opened(path, read_only=argument == "read")
    if argument == "write":
        put(driver, "by root")
    found = names(driver)
    driver.close()
    return found


def make_as_nobody(path: str, argument: str) -> object:
    """Make a database as another user."""
    become(OWNER)
    driver = opened(path, mode=int(argument, 8))
    put(driver, "made")
    driver.close()
    return None


WORK: dict[str, Callable[[str, str], object]] = {
    work.__name__: work
    for work in (
        hold_reader,
        hold_writer,
        insert,
        disk_full,
        as_nobody,
        as_root,
        make_as_nobody,
    )
}

if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]](sys.argv[2], " ".join(sys.argv[3:]))))
