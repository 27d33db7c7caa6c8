"""What an expert would write by hand for one service on one engine: the same records, indexes,
event rows, counters and durability as the stores, without anything that makes it portable."""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import lmdb
import msgspec

from storebridge import Execution
from storebridge.events import STATE
from storebridge.times import microseconds, now

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Execution).decode
FILTERS = ("job_id", "state", "node_id", "namespace")
_MAP_SIZE = 1 << (34 if sys.maxsize > 2**32 else 29)


class EventBody(msgspec.Struct, omit_defaults=True):
    """What happened to an execution."""

    kind: str
    at: datetime
    revision: int
    state: str
    previous_state: str | None = None


decode_event = msgspec.json.Decoder(EventBody).decode


class SqliteByHand:
    """Executions on sqlite3."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._cursor = self._connection.cursor()
        run = self._execute = self._cursor.execute
        run("PRAGMA journal_mode=WAL")
        run(f"PRAGMA synchronous={synchronous}")
        run("PRAGMA cache_size=-16384")
        run(
            "CREATE TABLE IF NOT EXISTS execution (id TEXT PRIMARY KEY, created_at INTEGER,"
            " modified_at INTEGER, job_id TEXT, state TEXT, node_id TEXT, namespace TEXT,"
            " body TEXT NOT NULL)"
        )
        run("CREATE INDEX IF NOT EXISTS created ON execution (created_at, id)")
        run("CREATE INDEX IF NOT EXISTS modified ON execution (modified_at, id)")
        for name in FILTERS:
            run(f"CREATE INDEX IF NOT EXISTS by_{name} ON execution ({name}, created_at, id)")
        run(
            "CREATE TABLE IF NOT EXISTS history (record_id TEXT, sequence INTEGER,"
            " body TEXT NOT NULL, PRIMARY KEY (record_id, sequence)) WITHOUT ROWID"
        )
        run("CREATE UNIQUE INDEX IF NOT EXISTS by_sequence ON history (sequence)")
        run(
            "CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER)"
            " WITHOUT ROWID"
        )
        row = run("SELECT value FROM counter WHERE name = 'sequence'").fetchone()
        self._sequence: int = row[0] if row else 0
        self._counts: dict[str, int] = {}

    def begin(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        for name, by in self._counts.items():
            self._execute(
                "INSERT INTO counter VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + ?",
                (name, by, by),
            )
        self._counts.clear()
        self._execute("COMMIT")

    def create(self, execution: Execution) -> None:
        execution.id = f"e-{os.urandom(16).hex()}"
        execution.revision = 1
        execution.state = "Created"
        execution.created_at = execution.modified_at = at = now()
        time = microseconds(at)
        self._execute(
            "INSERT INTO execution VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                execution.id,
                time,
                time,
                execution.job_id,
                execution.state,
                execution.node_id,
                execution.namespace,
                encode(execution).decode(),
            ),
        )
        self._event(execution, "created", None)

    def set_state(self, record_id: str, state: str, allowed: frozenset[str]) -> None:
        row = self._execute("SELECT body FROM execution WHERE id = ?", (record_id,)).fetchone()
        execution = decode(row[0])
        previous = execution.state
        if previous not in allowed:
            raise ValueError(previous)
        execution.state = state
        execution.revision += 1
        execution.modified_at = now()
        self._execute(
            "UPDATE execution SET state = ?, modified_at = ?, body = ? WHERE id = ?",
            (state, microseconds(execution.modified_at), encode(execution).decode(), record_id),
        )
        self._event(execution, STATE, previous)

    def _event(self, execution: Execution, kind: str, previous: str | None) -> None:
        self._sequence += 1
        state = execution.state
        body = encode(EventBody(kind, execution.modified_at, execution.revision, state, previous))
        self._execute(
            "INSERT INTO history VALUES (?, ?, ?)", (execution.id, self._sequence, body.decode())
        )
        self._counts["sequence"] = self._counts.get("sequence", 0) + 1
        self._counts[state] = self._counts.get(state, 0) + 1
        if previous is not None:
            self._counts[previous] = self._counts.get(previous, 0) - 1

    def get(self, record_id: str) -> Execution:
        row = self._execute("SELECT body FROM execution WHERE id = ?", (record_id,)).fetchone()
        return decode(row[0])

    def find(self, state: str, limit: int) -> list[Execution]:
        rows = self._execute(
            "SELECT body FROM execution WHERE state = ? ORDER BY created_at, id LIMIT ?",
            (state, limit),
        )
        return [decode(body) for (body,) in rows]

    def history(self, record_id: str) -> list[EventBody]:
        query = "SELECT body FROM history WHERE record_id = ? ORDER BY sequence"
        return [decode_event(body) for (body,) in self._execute(query, (record_id,))]

    def scan(self) -> int:
        rows = self._execute("SELECT body FROM execution ORDER BY created_at, id")
        return sum(len(decode(body).id) > 0 for (body,) in rows)

    def counts(self) -> dict[str, int]:
        return dict(self._execute("SELECT state, count(*) FROM execution GROUP BY state"))

    def delete(self, record_id: str) -> None:
        row = self._execute("SELECT body FROM execution WHERE id = ?", (record_id,)).fetchone()
        execution = decode(row[0])
        self._execute("DELETE FROM execution WHERE id = ?", (record_id,))
        self._counts[execution.state] = self._counts.get(execution.state, 0) - 1

    def compact(self) -> None:
        self._execute("VACUUM")
        self._execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()


class LmdbByHand:
    """Executions on py-lmdb."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        self._path = path
        self._environment = lmdb.open(
            str(path), map_size=_MAP_SIZE, max_dbs=16, sync=sync, metasync=sync
        )
        names = ("execution", "created", "modified", *FILTERS, "history", "sequence", "counter")
        self._main, self._created, self._modified, *rest = (
            self._environment.open_db(name.encode()) for name in names
        )
        self._filters = dict(zip(FILTERS, rest[:4], strict=True))
        self._history, self._by_sequence, self._counter = rest[4:]
        self._counts: dict[str, int] = {}
        with self._environment.begin(self._counter) as transaction:
            self._sequence = int(transaction.get(b"sequence") or 0)

    def begin(self) -> None:
        self._transaction = self._environment.begin(write=True)

    def commit(self) -> None:
        get, put = self._transaction.get, self._transaction.put
        for name, by in self._counts.items():
            key = name.encode()
            put(key, b"%d" % (int(get(key, db=self._counter) or 0) + by), db=self._counter)
        self._counts.clear()
        self._transaction.commit()

    def create(self, execution: Execution) -> None:
        execution.id = f"e-{os.urandom(16).hex()}"
        execution.revision = 1
        execution.state = "Created"
        execution.created_at = execution.modified_at = at = now()
        key = execution.id.encode()
        put = self._transaction.put
        put(key, encode(execution), db=self._main, overwrite=False)
        tail = f"{microseconds(at):016x} {execution.id}".encode()
        put(tail, key, db=self._created)
        put(tail, key, db=self._modified)
        filters = self._filters
        put(f"{execution.job_id} ".encode() + tail, key, db=filters["job_id"])
        put(f"{execution.state} ".encode() + tail, key, db=filters["state"])
        if execution.node_id is not None:
            put(f"{execution.node_id} ".encode() + tail, key, db=filters["node_id"])
        put(f"{execution.namespace} ".encode() + tail, key, db=filters["namespace"])
        self._event(execution, "created", None)

    def set_state(self, record_id: str, state: str, allowed: frozenset[str]) -> None:
        key = record_id.encode()
        get, put, delete = self._transaction.get, self._transaction.put, self._transaction.delete
        execution = decode(get(key, db=self._main) or b"")
        previous, modified = execution.state, microseconds(execution.modified_at)
        if previous not in allowed:
            raise ValueError(previous)
        execution.state = state
        execution.revision += 1
        execution.modified_at = now()
        created = f"{microseconds(execution.created_at):016x} {record_id}"
        put(key, encode(execution), db=self._main)
        delete(f"{previous} {created}".encode(), db=self._filters["state"])
        put(f"{state} {created}".encode(), key, db=self._filters["state"])
        delete(f"{modified:016x} {record_id}".encode(), db=self._modified)
        changed = f"{microseconds(execution.modified_at):016x} {record_id}".encode()
        put(changed, key, db=self._modified)
        self._event(execution, STATE, previous)

    def _event(self, execution: Execution, kind: str, previous: str | None) -> None:
        self._sequence += 1
        state = execution.state
        body = encode(EventBody(kind, execution.modified_at, execution.revision, state, previous))
        number = f"{self._sequence:016x}"
        key = f"{execution.id} {number}".encode()
        self._transaction.put(key, body, db=self._history, overwrite=False)
        self._transaction.put(number.encode(), key, db=self._by_sequence)
        self._counts["sequence"] = self._counts.get("sequence", 0) + 1
        self._counts[state] = self._counts.get(state, 0) + 1
        if previous is not None:
            self._counts[previous] = self._counts.get(previous, 0) - 1

    def get(self, record_id: str) -> Execution:
        with self._environment.begin() as transaction:
            return decode(transaction.get(record_id.encode(), db=self._main) or b"")

    def find(self, state: str, limit: int) -> list[Execution]:
        found: list[Execution] = []
        prefix = f"{state} ".encode()
        with self._environment.begin() as transaction:
            cursor = transaction.cursor(db=self._filters["state"])
            cursor.set_range(prefix)
            for key, record_key in cursor:
                if not key.startswith(prefix) or len(found) == limit:
                    break
                found.append(decode(transaction.get(record_key, db=self._main) or b""))
        return found

    def history(self, record_id: str) -> list[EventBody]:
        found: list[EventBody] = []
        prefix = f"{record_id} ".encode()
        with self._environment.begin() as transaction:
            cursor = transaction.cursor(db=self._history)
            cursor.set_range(prefix)
            for key, body in cursor:
                if not key.startswith(prefix):
                    break
                found.append(decode_event(body))
        return found

    def scan(self) -> int:
        total = 0
        with self._environment.begin() as transaction:
            for record_key in transaction.cursor(db=self._created).iternext(keys=False):
                total += len(decode(transaction.get(record_key, db=self._main) or b"").id) > 0
        return total

    def counts(self) -> dict[str, int]:
        counts: dict[bytes, int] = {}
        with self._environment.begin() as transaction:
            cursor = transaction.cursor(db=self._filters["state"])
            for key in cursor.iternext(values=False):
                state = key.partition(b" ")[0]
                counts[state] = counts.get(state, 0) + 1
        return {state.decode(): count for state, count in counts.items()}

    def delete(self, record_id: str) -> None:
        key = record_id.encode()
        delete = self._transaction.delete
        execution = decode(self._transaction.get(key, db=self._main) or b"")
        created = f"{microseconds(execution.created_at):016x} {record_id}"
        delete(key, db=self._main)
        delete(created.encode(), db=self._created)
        modified = f"{microseconds(execution.modified_at):016x} {record_id}"
        delete(modified.encode(), db=self._modified)
        for name, database in self._filters.items():
            field = getattr(execution, name)
            if field is not None:
                delete(f"{field} {created}".encode(), db=database)
        self._counts[execution.state] = self._counts.get(execution.state, 0) - 1

    def compact(self) -> None:
        """Copies into a new file; putting that in the place of the old one is not safe while it is
        open, and is left out."""
        with tempfile.TemporaryDirectory(dir=self._path) as folder:
            self._environment.copy(folder, compact=True)

    def close(self) -> None:
        self._environment.close()
