"""The check: what it finds, and what its strict form finds that bbolt's own lets pass."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import storebridge_bolt.pybolt
from storebridge_bolt.pybolt import DB
from storebridge_bolt.pybolt.check import check
from storebridge_bolt.pybolt.freelist import Freelist
from storebridge_bolt.pybolt.meta import Meta
from storebridge_bolt.pybolt.page import BRANCH, FREELIST, HEADER, encode_branch, encode_leaf

SIZE = 1024


def leaf(page: int, *keys: bytes) -> bytes:
    return encode_leaf(page, list(keys), [b"v"] * len(keys), SIZE)


def branch(page: int, **children: int) -> bytes:
    names = [key.encode() for key in children]
    return encode_branch(page, names, list(children.values()), SIZE)


def freelist(page: int, *ids: int) -> bytes:
    header = HEADER.pack(page, FREELIST, len(ids), 0)
    return (header + b"".join(i.to_bytes(8, "little") for i in ids)).ljust(SIZE, b"\0")


def findings(path: Path, pages: list[bytes], *, strict: bool = True) -> list[str]:
    """The findings for a file of these pages from page 2 on, a freelist there, a root at 3."""
    metas = [
        Meta(SIZE, 3, 0, 2, 2 + len(pages), txid).encode().ljust(SIZE, b"\0") for txid in (0, 1)
    ]
    path.write_bytes(b"".join(metas + pages))
    with DB(path, read_only=True) as db:
        return list(check(db, strict=strict))


def test_a_sound_file(tmp_path: Path) -> None:
    pages = [freelist(2, 6), branch(3, a=4, c=5), leaf(4, b"a", b"b"), leaf(5, b"c"), leaf(6)]
    assert findings(tmp_path / "t.db", pages) == []


STRICT: dict[str, tuple[list[bytes], str]] = {
    "shortened separator": (
        [freelist(2), branch(3, a=4, c=5), leaf(4, b"a", b"b"), leaf(5, b"cc")],
        "page 3: key[1] is not the first key of page 5",
    ),
    "single child": (
        [freelist(2), branch(3, a=4), leaf(4, b"a", b"b")],
        "page 3: branch with a single child",
    ),
    "empty leaf": (
        [freelist(2), branch(3, a=4, c=5), leaf(4, b"a"), leaf(5)],
        "page 5: empty leaf below a branch",
    ),
}


@pytest.mark.parametrize("case", STRICT)
def test_what_only_the_strict_form_finds(tmp_path: Path, case: str) -> None:
    pages, finding = STRICT[case]
    assert findings(tmp_path / "t.db", pages, strict=False) == []
    assert findings(tmp_path / "t.db", pages) == [finding]


WRONG: dict[str, tuple[list[bytes], list[str]]] = {
    "in use and free": (
        [freelist(2, 3), leaf(3, b"a")],
        ["page 3: reachable freed"],
    ),
    "free twice": (
        [freelist(2, 4, 4), leaf(3, b"a"), leaf(4)],
        ["page 4: already freed"],
    ),
    "neither": (
        [freelist(2), leaf(3, b"a"), leaf(4)],
        ["page 4: unreachable unfreed"],
    ),
    "used twice": (
        [freelist(2), branch(3, a=4, c=4), leaf(4, b"a", b"b")],
        ["page 4: multiple references (stack: [3 4])"],
    ),
    "circle": (
        [freelist(2), branch(3, a=4, c=3), leaf(4, b"a", b"b")],
        ["page 3: multiple references (stack: [3 3])"],
    ),
    "keys out of order": (
        [freelist(2), leaf(3, b"b", b"a")],
        ["key[1]=(hex)a on leaf page(3) needs to be > (found <) than previous element (hex)b."
         " Stack: [3]"],
    ),
    "key twice": (
        [freelist(2), leaf(3, b"a", b"a")],
        ["key[1]=(hex)a on leaf page(3) needs to be > (found =) than previous element (hex)a."
         " Stack: [3]"],
    ),
    "beyond the file": (
        [freelist(2), branch(3, a=4, c=9), leaf(4, b"a")],
        ["page 9 is outside of the file's 5 pages (stack: [3 9])"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong(tmp_path: Path, case: str) -> None:
    pages, expected = WRONG[case]
    assert findings(tmp_path / "t.db", pages, strict=False) == expected


def test_from_a_page(tmp_path: Path) -> None:
    pages = [freelist(2), branch(3, a=4, c=5), leaf(4, b"a", b"b"), leaf(5, b"d", b"c")]
    findings(tmp_path / "t.db", pages)
    with DB(tmp_path / "t.db", read_only=True) as db:
        assert list(check(db, from_page=4)) == []
        assert len(list(check(db, from_page=5))) == 1
        assert list(check(db, from_page=99)) == ["page ID (99) out of range [2, 6)"]


def test_single_child_branches_are_mended_by_writing(tmp_path: Path) -> None:
    """A file that another tool left so becomes one that Go can write to."""
    pages = [freelist(2), branch(3, a=4), branch(4, a=5), leaf(5, b"a", b"b")]
    findings(tmp_path / "t.db", pages)
    with DB(tmp_path / "t.db") as db:
        with db.update() as tx:
            tx.create_bucket(b"c")
        assert list(check(db)) == []
    assert HEADER.unpack_from(pages[1])[1] == BRANCH


# The freelist in memory


def test_runs_of_pages() -> None:
    free = Freelist([2, 3, 5, 6, 7, 10, 11])
    assert free.allocate(3) == 5
    assert free.allocate(3) == 0
    assert [free.allocate(1), free.allocate(2), free.allocate(1)] == [2, 10, 3]
    assert free.allocate(1) == 0
    free.undo(1)
    assert free.ids() == [2, 3, 5, 6, 7, 10, 11]


def test_no_page_is_handed_out_twice() -> None:
    """In any mix of single pages and runs, over commits that succeed or fail."""
    rnd = random.Random(3)
    for _ in range(300):
        high, used = 60, set[int]()
        free = Freelist(range(2, high))
        for txid in range(1, 30):
            taken: set[int] = set()
            for _ in range(rnd.randrange(8)):
                count = rnd.choice([1, 1, 1, 2, 3])
                page = free.allocate(count)
                pages = set(range(page, page + count)) if page else set()
                assert not pages & (used | taken)
                taken |= pages
            freed = set(rnd.sample(sorted(used), min(len(used), rnd.randrange(8))))
            free.free(txid, freed)
            if rnd.randrange(4):
                free.keep()
                used = (used | taken) - freed
            else:
                free.undo(txid)
            free.release(txid)
            assert set(free.ids()) == set(range(2, high)) - used


def test_freed_pages_wait() -> None:
    free = Freelist()
    free.free(7, [4, 3])
    free.free(8, [9])
    assert free.allocate(1) == 0
    assert len(free) == 3
    free.release(7)
    assert [free.allocate(1), free.allocate(1), free.allocate(1)] == [3, 4, 0]
    free.keep()
    assert free.ids() == [9]


# The package


def test_the_engine_imports_nothing_of_storebridge() -> None:
    """Only the standard library and itself."""
    folder = Path(storebridge_bolt.pybolt.__file__).parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                assert not name.startswith(("storebridge", "msgspec", "click", "rich")), file


def test_public_names_are_documented() -> None:
    module = storebridge_bolt.pybolt
    for name in module.__all__:
        thing: Callable[..., object] = getattr(module, name)
        if isinstance(thing, type):
            assert thing.__doc__, name
            for key, member in vars(thing).items():
                if callable(member) and not key.startswith("_"):
                    assert member.__doc__, f"{name}.{key}"
