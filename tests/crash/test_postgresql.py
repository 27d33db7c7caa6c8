"""Eight clients on one server, which are killed, lose their connections, and see the server restart
and crash: nothing acknowledged is lost, nothing is done twice, and who watches misses no event.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from storebridge import Database, Job, JobStore, StorageError, open_database
from storebridge.testing.stores.base import assert_sound
from tests.crash.postgresql_client import SHARED
from tests.postgres_server import Server
from tests.unit.sqlalchemy.proxy import Proxy, proxy_to

CLIENTS = 8
TOP = Path(__file__).parents[2]


class Client:
    """A client process, and what it has said."""

    def __init__(self, location: str, name: str, seed: str, stop: Path) -> None:
        asked = {"location": location, "name": name, "seed": seed, "stop": str(stop)}
        self.said: list[list[str]] = []
        self.killed = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.postgresql_client", json.dumps(asked)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=TOP,
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):
                self.said.append(json.loads(line))

    def kill(self) -> None:
        self.killed = True
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.wait(timeout=120)
        self._listener.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def done(self, what: str) -> Counter[str]:
        """What was acknowledged, by record."""
        return Counter(w[2] for w in self.said if w[:2] == ["done", what])

    def perhaps_done(self, what: str) -> Counter[str]:
        """What was neither acknowledged nor said to have failed: it was killed in the middle, or
        told that nobody knows.
        """
        found: Counter[str] = Counter()
        for now, following in zip(self.said, [*self.said[1:], ["unknown"]], strict=True):
            if now[:2] == ["try", what] and following[0] == "unknown":
                found[now[2]] += 1
        return found


class Watcher:
    """Reads the events while they come, whatever happens to the server."""

    def __init__(self, database: Database) -> None:
        self.seen: list[tuple[int, str, str, int]] = []
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        last = False
        while not last:
            last = self._stop.is_set()
            after = self.seen[-1][0] if self.seen else 0
            with suppress(StorageError):
                for event in self._database.events(after):
                    told = (event.sequence, event.record_id, event.kind, event.revision)
                    self.seen.append(told)
            self._stop.wait(0.005)

    def finish(self) -> None:
        self._stop.set()
        self._thread.join()


def unsettle(proxy: Proxy, chance: random.Random) -> None:
    """Have the connection cut when something is committed."""

    def cut(piece: bytes) -> bool:
        return b"COMMIT\0" in piece and chance.random() < 0.1

    proxy.deliver = chance.random() < 0.5
    proxy.cut_when = cut


class Storm:
    """Clients that come and go while the server does."""

    def __init__(self, server: Server, location: str, seed: str, folder: Path) -> None:
        self.clients: list[Client] = []
        """All that there were."""
        self._server = server
        self._location = location
        self._seed = seed
        self._stop = folder / "stop"
        self._chance = random.Random(f"storm {seed}")

    def run(self, rounds: Iterator[object]) -> None:
        """In each round, once something was done since the last one, one client is killed and
        another one takes its place; now and then the server is restarted, or crashes.
        """
        with ExitStack() as stack:
            proxies = [stack.enter_context(proxy_to(self._location)) for _ in range(3)]
            where = [proxy.url(self._location) for proxy in proxies]
            where += [self._location] * (CLIENTS - len(where))
            try:
                running = [self._start(location) for location in where]
                for number, _ in enumerate(rounds):
                    self._await_work(running)
                    for proxy in proxies:
                        unsettle(proxy, self._chance)
                    place = self._chance.randrange(CLIENTS)
                    running[place].kill()
                    running[place] = self._start(where[place])
                    if number % 3 == 1:
                        how = signal.SIGQUIT if number % 2 else signal.SIGINT
                        self._server.restart(how)
                self._await_work(running)
            finally:
                self._stop.touch()
                for client in self.clients:
                    client.end()

    def _start(self, location: str) -> Client:
        client = Client(location, f"c{len(self.clients)}", self._seed, self._stop)
        self.clients.append(client)
        return client

    def _await_work(self, running: list[Client]) -> None:
        """Until every client has done something of late."""
        before = [len(client.said) for client in running]
        give_up = time.monotonic() + 60
        while any(
            sum(word[0] == "done" for word in client.said[said:]) < 3
            for client, said in zip(running, before, strict=True)
        ):
            assert time.monotonic() < give_up, "a client never gets a turn"
            time.sleep(0.01)


def total(clients: list[Client], what: str) -> tuple[Counter[str], Counter[str]]:
    """What was acknowledged, and the most that can have been done."""
    done: Counter[str] = sum((client.done(what) for client in clients), Counter())
    perhaps: Counter[str] = sum((client.perhaps_done(what) for client in clients), Counter())
    return done, done + perhaps


def attack(server: Server, folder: Path, rounds: Iterator[object]) -> None:
    seed = os.environ.get("STOREBRIDGE_SEED", "1")
    print(f"again with STOREBRIDGE_SEED={seed}")
    location = f"{server.target()}&lock_timeout=20"
    with open_database(location) as database:
        jobs = JobStore(database)
        for job_id in (*(f"shared-{n}" for n in range(SHARED)), "together-0", "together-1"):
            jobs.create(Job(id=job_id))
        watcher = Watcher(database)
        storm = Storm(server, location, seed, folder)
        try:
            storm.run(rounds)
        finally:
            watcher.finish()
        check(jobs, storm.clients, watcher)


def check(jobs: JobStore, clients: list[Client], watcher: Watcher) -> None:
    found = {job.id: job for job in jobs.each()}
    done, at_most = total(clients, "up")
    assert done
    for number in range(SHARED):
        job = found[f"shared-{number}"]
        assert done[job.id] <= job.priority <= at_most[job.id]
        assert job.revision == job.priority + 1
    done, at_most = total(clients, "together")
    one, other = found["together-0"], found["together-1"]
    assert done[""] <= one.priority == other.priority <= at_most[""]
    check_records(found, clients)
    check_events(jobs.database, watcher)
    assert_sound(jobs.database)


def check_records(found: dict[str, Any], clients: list[Client]) -> None:
    """Created and not deleted: there; deleted: not there."""
    created, perhaps_created = total(clients, "create")
    deleted, perhaps_deleted = total(clients, "delete")
    assert max(created.values()) == 1
    for job_id in created:
        assert job_id in found or perhaps_deleted[job_id], job_id
    for job_id in deleted:
        assert job_id not in found, job_id
    for job_id in found:
        assert job_id.startswith(("shared", "together")) or perhaps_created[job_id], job_id


def check_events(database: Database, watcher: Watcher) -> None:
    """Who watched has seen what there is: each event once, in order, none that came in between
    afterwards. And never were more than three jobs running: what was counted in a transaction held.
    """
    there = [(e.sequence, e.record_id, e.kind, e.revision) for e in database.events(0)]
    assert watcher.seen == there
    running: set[str] = set()
    for event in database.events(0):
        if event.state == "Running" and event.kind == "state":
            running.add(event.record_id)
        else:
            running.discard(event.record_id)
        assert len(running) <= 3


def test_clients_and_server_fail(own_postgresql: Server, tmp_path: Path) -> None:
    """A few rounds of it."""
    attack(own_postgresql, tmp_path, iter(range(4)))


@pytest.mark.attack
def test_clients_and_server_fail_for_a_minute(own_postgresql: Server, tmp_path: Path) -> None:
    """A minute of it."""
    end = time.monotonic() + 60
    attack(own_postgresql, tmp_path, iter(lambda: time.monotonic() > end, True))
