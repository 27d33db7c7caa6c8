"""What the bolt tests share: the Go oracle, a model of a file's content, random transactions."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from storebridge_bolt.pybolt import DB, Bucket, Tx

PROJECT = Path(__file__).resolve().parents[2]
ORACLE = PROJECT / ".oracle"
REAL_DATA = Path(os.environ.get("STOREBRIDGE_REAL_DATA", PROJECT.parent / "shared" / "data"))
ATTACK = os.environ.get("STOREBRIDGE_ATTACK") == "1"

needs_oracle = pytest.mark.skipif(
    not (ORACLE / "bbolt").exists() or not (ORACLE / "boltoracle").exists(),
    reason="the Go oracle is not built: run `make oracle` (needs Go)",
)
needs_real_data = pytest.mark.skipif(
    not (REAL_DATA / "bolt").is_dir(),
    reason=f"no real bolt files in {REAL_DATA / 'bolt'} (set STOREBRIDGE_REAL_DATA)",
)


@contextmanager
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: for tests that write thousands of files."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = memory / f"storebridge-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def base_seed() -> int:
    """The seed of this run's random tests; set STOREBRIDGE_SEED to repeat one that failed."""
    seed = int(os.environ.get("STOREBRIDGE_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"STOREBRIDGE_SEED={seed}")
    return seed


def run(tool: str, *args: object) -> subprocess.CompletedProcess[bytes]:
    """Run one of the oracle's programs."""
    command = [str(ORACLE / tool), *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120)


def go_check(path: Path) -> None:
    """Fail unless `bbolt check` finds nothing."""
    result = run("bbolt", "check", path)
    assert result.stdout == b"OK\n", (result.stdout[-2000:], result.stderr[-2000:])


def go_write(path: Path, seed: int, *options: object) -> None:
    """Let Go write to a file at random, in strict mode."""
    result = run("boltoracle", "write", "-seed", seed, *options, path)
    assert result.returncode == 0, result.stderr.decode()[:3000]


def go_dump(path: Path) -> list[str]:
    """A file's content as Go reads it."""
    result = run("boltoracle", "dump", path)
    assert result.returncode == 0, result.stderr.decode()[:3000]
    return result.stdout.decode().splitlines()


class Model:
    """A bucket of plain dictionaries."""

    def __init__(self) -> None:
        self.sequence = 0
        self.entries: dict[bytes, bytes | Model] = {}

    def bucket(self, name: bytes) -> Model:
        child = self.entries.setdefault(name, Model())
        assert isinstance(child, Model)
        return child

    def values(self) -> list[tuple[bytes, bytes]]:
        return sorted((k, v) for k, v in self.entries.items() if isinstance(v, bytes))

    def lines(self, depth: int = 0) -> Iterator[str]:
        for key, value in sorted(self.entries.items()):
            if isinstance(value, bytes):
                yield f"V {depth - 1} {key.hex()} {value.hex()}".strip()
            else:
                yield f"B {depth} {key.hex()} {value.sequence}"
                yield from value.lines(depth + 1)

    @classmethod
    def parse(cls, lines: list[str]) -> Model:
        root = cls()
        path = [root]
        for line in lines:
            kind, depth, name, *rest = line.split()
            del path[int(depth) + (1 if kind == "B" else 2) :]
            key = bytes.fromhex(name)
            if kind == "B":
                child = path[-1].bucket(key)
                child.sequence = int(rest[0])
                path.append(child)
            else:
                path[-1].entries[key] = bytes.fromhex(rest[0]) if rest else b""
        return root


def dump(db: DB) -> list[str]:
    """A database's content as pybolt reads it, in the oracle's form."""
    with db.view() as tx:
        lines: list[str] = []
        for name in tx.buckets():
            _dump(tx.bucket(name), 0, name, lines)
        return lines


def _dump(bucket: Bucket, depth: int, name: bytes, lines: list[str]) -> None:
    lines.append(f"B {depth} {name.hex()} {bucket.sequence}")
    for key, value in bucket.cursor():
        if value is None:
            _dump(bucket.bucket(key), depth + 1, key, lines)
        else:
            lines.append(f"V {depth} {key.hex()} {value.hex()}".strip())


class Scribbler:
    """Makes the same random changes to a database and to a model, reading on the way."""

    def __init__(self, seed: int, keys: int = 3000, key_size: int = 8) -> None:
        self.random = random.Random(seed)
        self.keys = keys
        self.key_size = key_size  # long keys make branches of few children: tall trees

    def transaction(self, tx: Tx, model: Model, ops: int) -> None:
        removing = self.random.random() < 0.35
        for _ in range(self.random.randint(1, ops)):
            name = self.bucket_name(4)
            bucket, inside = tx.create_bucket_if_missing(name), model.bucket(name)
            for _ in range(self.random.randrange(3)):
                name = self.bucket_name(3)
                bucket, inside = bucket.create_bucket_if_missing(name), inside.bucket(name)
            self.change(bucket, inside, removing)
            if self.random.randrange(300) == 0 and model.entries:
                name = self.random.choice(list(model.entries))
                tx.delete_bucket(name)
                del model.entries[name]

    def change(self, bucket: Bucket, model: Model, removing: bool) -> None:
        rnd = self.random
        choice = rnd.randrange(20)
        if choice == 0:
            model.sequence = (model.sequence + 1) % 2**64
            bucket.sequence = model.sequence
        elif choice == 1:
            bucket.sequence = model.sequence = rnd.getrandbits(64)
        elif choice == 2:
            self.look(bucket, model)
        elif choice == 3 and rnd.randrange(10) == 0:
            self.remove_bucket(bucket, model)
        elif choice < 8 or removing:
            self.remove_some(bucket, model)
        else:
            key, value = self.key(), self.value()
            if rnd.randrange(5) == 0:
                assert bucket.put_new(key, value) is (key not in model.entries)
                model.entries.setdefault(key, value)
            else:
                bucket.put(key, value)
                model.entries[key] = value

    def look(self, bucket: Bucket, model: Model) -> None:
        start, stop = sorted([self.key(), self.key()])
        want = [(k, v) for k, v in model.values() if start <= k < stop]
        assert bucket.items(start, stop) == want
        assert bucket.items(start, stop, reverse=True, limit=7) == want[::-1][:7]
        assert bucket.items(start, limit=3) == [(k, v) for k, v in model.values() if k >= start][:3]
        key = self.key()
        found = model.entries.get(key)
        assert bucket.get(key) == (found if isinstance(found, bytes) else None)

    def remove_bucket(self, bucket: Bucket, model: Model) -> None:
        names = [name for name, value in model.entries.items() if isinstance(value, Model)]
        assert list(bucket.buckets()) == sorted(names)
        if names:
            name = self.random.choice(names)
            bucket.delete_bucket(name)
            del model.entries[name]

    def remove_some(self, bucket: Bucket, model: Model) -> None:
        cursor = bucket.cursor()
        entry = cursor.seek(self.key())
        while entry is not None and self.random.randrange(12):
            key, value = entry
            if value is not None:
                cursor.delete()
                del model.entries[key]
            entry = cursor.next() if self.random.randrange(4) else cursor.prev()

    def bucket_name(self, most: int) -> bytes:
        return b"bucket-%d" % self.random.randrange(most)

    def key(self) -> bytes:
        key = self.random.randrange(self.keys).to_bytes(8, "big")
        return key.ljust(400 if key[7] % 64 == 0 else self.key_size, b"\0")

    def value(self) -> bytes:
        choice = self.random.randrange(40)
        size = self.random.randrange(20000) if choice == 0 else self.random.randrange(150)
        return self.random.randbytes(0 if choice == 1 else size)
