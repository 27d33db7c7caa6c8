"""Damaged files: a typed error or right data, never a hang, a foreign exception or much memory.

Bolt has no checksums on its data, so a flipped bit inside a key or value cannot be noticed by
anybody; what the test demands of such a file is that everything ends, and in a BoltError if in an
error. Of cut, swapped and blanked pages it demands the right data or an error.
"""

from __future__ import annotations

import io
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from storebridge_bolt.pybolt import DB, BoltError, render
from storebridge_bolt.pybolt.check import check
from storebridge_bolt.pybolt.compact import compact
from storebridge_bolt.pybolt.page import MIN_PAGE_SIZE

from tests.formats.bolt_support import REAL_DATA, Model, Scribbler, base_seed, dump, quick_folder

SLOW_SECONDS = 10.0
MUCH_MEMORY_KIB = 300 << 10


def beginnings(image: bytearray, page_size: int) -> list[int]:
    """The pages, metas apart, that have a header: others hold a long value's middle, and nobody
    can tell whether that is right."""
    return [
        page
        for page in range(2, len(image) // page_size)
        if int.from_bytes(image[page * page_size : page * page_size + 8], "little") == page
    ]


def flip_bits(image: bytearray, page_size: int, rnd: random.Random) -> bool:
    """Flip bits, most of them where the structure is: at the beginnings of pages."""
    for _ in range(rnd.choice([1, 1, 1, 2, 8])):
        at = rnd.randrange(len(image))
        if rnd.random() < 0.8:
            at = at // page_size * page_size + rnd.randrange(96)
        image[min(at, len(image) - 1)] ^= 1 << rnd.randrange(8)
    return False


def set_field(image: bytearray, page_size: int, rnd: random.Random) -> bool:
    """Set a field to something extreme."""
    at = rnd.randrange(len(image) // page_size) * page_size + rnd.randrange(0, 96, 2)
    size = rnd.choice([2, 4, 8])
    value = rnd.choice([0, 1, 2, 3, 0xFFFF, 0x7FFF_FFFF, 2**64 - 1, rnd.getrandbits(64)])
    image[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    return False


def truncate(image: bytearray, page_size: int, rnd: random.Random) -> bool:
    """Cut the file, at a page or anywhere."""
    size = rnd.randrange(len(image))
    del image[size // page_size * page_size if rnd.random() < 0.5 else size :]
    return True


def swap_pages(image: bytearray, page_size: int, rnd: random.Random) -> bool:
    """Exchange two pages, metas left alone."""
    one, two = (rnd.choice(beginnings(image, page_size)) * page_size for _ in range(2))
    first, second = image[one : one + page_size], image[two : two + page_size]
    image[one : one + page_size], image[two : two + page_size] = second, first
    return True


def blank_page(image: bytearray, page_size: int, rnd: random.Random) -> bool:
    """Zero a page, metas left alone: what a lost write to a grown file leaves."""
    at = rnd.choice(beginnings(image, page_size)) * page_size
    image[at : at + page_size] = bytes(page_size)
    return True


def link_pages(image: bytearray, page_size: int, rnd: random.Random) -> bool:
    """Let a page's element name another page, so that circles and shared pages come about."""
    count = len(image) // page_size
    page = rnd.randrange(2, count) * page_size
    at = page + 16 + 16 * rnd.randrange(4) + rnd.choice([8, 8, 0])
    image[at : at + 8] = rnd.randrange(count).to_bytes(8, "little")
    return False


DAMAGES: list[Callable[[bytearray, int, random.Random], bool]] = [
    flip_bits,
    flip_bits,
    set_field,
    truncate,
    swap_pages,
    blank_page,
    link_pages,
]


def originals(folder: Path) -> Iterator[bytes]:
    """Generated files of several shapes, and the smaller real ones."""
    for seed, page_size in [(1, 1024), (2, 1024), (3, 4096), (4, 16384)]:
        path = folder / "generated.db"
        scribbler, model = Scribbler(seed, keys=400), Model()
        with DB(path, page_size=page_size, durability="off", keep_freelist=seed != 2) as db:
            for _ in range(4):
                with db.update() as tx:
                    scribbler.transaction(tx, model, 120)
        yield path.read_bytes()
        path.unlink()
    for path in sorted((REAL_DATA / "bolt").glob("*.db")):
        if path.stat().st_size <= 1 << 18:
            yield path.read_bytes()


def page_size_of(image: bytes) -> int:
    return max(int.from_bytes(image[24:28], "little"), MIN_PAGE_SIZE)


def exercise(path: Path, rnd: random.Random) -> list[str] | None:
    """Use a file in every way; what was read of it, None where it is refused."""
    content = None
    with suppress(BoltError), DB(path, read_only=True) as db:
        with suppress(BoltError):
            content = dump(db)
        list(check(db))
        with suppress(BoltError), db.view() as tx:
            for name in list(tx.buckets()):
                bucket = tx.bucket(name)
                bucket.get(b"bucket-1")
                bucket.items(reverse=True, limit=50)
                bucket.cursor().seek(b"k")
    for command in (render.stats, render.pages, render.inspect):
        command(str(path), io.BytesIO(), io.BytesIO())
    render.page(str(path), io.BytesIO(), io.BytesIO(), every=True)
    if rnd.random() < 0.3:
        target = path.with_suffix(".compacted")
        with suppress(BoltError), DB(path, read_only=True) as db:
            compact(db, target)
        target.unlink(missing_ok=True)
    with suppress(BoltError), DB(path, durability="off") as db, db.update() as tx:
        for name in list(tx.buckets())[:3]:
            bucket = tx.bucket(name)
            for entry in bucket.items(limit=20):
                bucket.delete(entry[0])
            bucket.put(b"zz", b"v" * rnd.randrange(3000))
        if rnd.random() < 0.3:
            tx.delete_bucket(next(tx.buckets(), b"none"))
    return content


def attack(folder: Path, count: int) -> None:
    seed = base_seed()
    images = list(originals(folder))
    path = folder / "damaged.db"
    contents = []
    for original in images:
        path.write_bytes(original)
        contents.append(exercise(path, random.Random(0)))
    assert None not in contents
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        rnd = random.Random(seed + number)
        which = rnd.randrange(len(images))
        image = bytearray(images[which])
        damage = rnd.choice(DAMAGES)
        strict = damage(image, page_size_of(images[which]), rnd)
        path.write_bytes(image)
        start = time.process_time()  # a busy machine is no hang
        where = f"STOREBRIDGE_SEED={seed + number}: {damage.__name__} of file {which}"
        try:
            found = exercise(path, rnd)
        except Exception as problem:
            raise AssertionError(f"{where}: {problem!r}") from problem
        assert time.process_time() - start < SLOW_SECONDS, where
        if strict:
            assert found in (None, contents[which]), where
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < MUCH_MEMORY_KIB, f"{grown} KiB"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with quick_folder(tmp_path) as folder:
        yield folder


def test_damaged_files(folder: Path) -> None:
    """5,000 damaged files."""
    attack(folder, 5_000)


@pytest.mark.attack
@pytest.mark.timeout(1800)
def test_many_damaged_files(folder: Path) -> None:
    """50,000 damaged files."""
    attack(folder, 50_000)
