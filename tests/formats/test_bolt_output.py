"""pybolt's rendering beside the Go command's, byte for byte, on generated and on real files."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from storebridge_bolt.pybolt import DB, render

from tests.formats.bolt_support import (
    REAL_DATA,
    Model,
    Scribbler,
    dump,
    go_dump,
    go_write,
    needs_oracle,
    needs_real_data,
    run,
)

pytestmark = needs_oracle

REAL = sorted((REAL_DATA / "bolt").glob("*.db"))

AWKWARD = [
    b"plain",
    b"\0nul",
    b"caf\xc3\xa9",
    b"\xff\xfe",
    b"tab\there",
    b"<&>",
    b'quo"te\\',
    b"\x7f",
]
AWKWARD += ["\u2028\u00a0\U0001f600\U000e0001".encode(), b"new\nline"]


def ours(command: Callable[..., int], *args: object, **options: object) -> tuple[bytes, int, bytes]:
    out, err = io.BytesIO(), io.BytesIO()
    code = command(*[args[0], out, err, *args[1:]], **options)
    return out.getvalue(), code, err.getvalue()


def same(go: tuple[object, ...], mine: tuple[bytes, int, bytes]) -> None:
    result = run("bbolt", *go)
    assert mine[0] == result.stdout
    assert mine[1] == result.returncode
    assert bool(mine[2]) == bool(result.stderr)
    assert mine[2].count(b"\n") <= 1


def awkward(path: Path) -> None:
    """Names, keys and values that are hard to show."""
    with DB(path, durability="off") as db, db.update() as tx:
        for name in AWKWARD:
            bucket = tx.create_bucket(name)
            bucket.sequence = len(name)
            for key in AWKWARD:
                bucket.put(key, key[::-1])
            bucket.create_bucket(b"inner " + name).put(b"k", b"")


def large(path: Path) -> None:
    """Several levels, overflow pages, free pages, all made by pybolt."""
    model = Model()
    scribbler = Scribbler(5)
    with DB(path, page_size=1024, durability="off") as db:
        for _ in range(6):
            with db.update() as tx:
                scribbler.transaction(tx, model, 500)


def no_freelist(path: Path) -> None:
    with DB(path, durability="off", keep_freelist=False) as db:
        for _ in range(3):
            with db.update() as tx:
                Scribbler(6).transaction(tx, Model(), 100)


def by_go(path: Path) -> None:
    go_write(path, 3, "-rounds", 5)


GENERATED = {"awkward": awkward, "large": large, "no-freelist": no_freelist, "go": by_go}


@pytest.fixture(params=[*GENERATED, *[path.name for path in REAL]])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "file.db"
    if request.param in GENERATED:
        GENERATED[request.param](path)
    else:
        shutil.copyfile(REAL_DATA / "bolt" / request.param, path)
    return path


def bucket_paths(path: Path) -> list[list[bytes]]:
    """The paths of some buckets, nested ones among them."""
    paths: list[list[bytes]] = []
    names: list[bytes] = []
    for line in go_dump(path):
        kind, depth, name, *_ = line.split()
        if kind == "B":
            names[int(depth) :] = [bytes.fromhex(name)]
            paths.append(list(names))
    # Arguments cannot hold NUL, and the Go command takes none that look like options.
    plain = [names for names in paths if all(name and b"\0" not in name for name in names)]
    return plain[:: max(len(plain) // 8, 1)]


@pytest.mark.parametrize("name", ["check", "buckets", "info", "stats", "pages", "inspect"])
def test_whole_file_commands(file: Path, name: str) -> None:
    same((name, file), ours(getattr(render, name), str(file)))


def test_content(file: Path) -> None:
    """Every key, value and sequence is what Go reads, and reading changes no byte."""
    before = file.read_bytes()
    with DB(file, read_only=True) as db:
        assert dump(db) == go_dump(file)
    assert file.read_bytes() == before


def test_page(file: Path) -> None:
    with DB(file, read_only=True) as db, db.view() as tx:
        count = tx.size // db.page_size
    for numbers in ([0], [1, 2, 3], list(range(count))[:150], [count + 5000]):
        same(("page", file, *numbers), ours(render.page, str(file), numbers))
    for form in ("hex", "redacted", "ascii-encoded"):
        go = ("page", "--format-value", form, file, *range(min(count, 10)))
        same(go, ours(render.page, str(file), list(range(min(count, 10))), form=form))


def test_every_page(file: Path) -> None:
    """`page --all` also prints what lies on free pages; where Go's own code panics on such
    leftovers only the rest is compared."""
    result = run("bbolt", "page", "--all", file)
    mine, code, _ = ours(render.page, str(file), every=True)
    assert code == result.returncode
    rule = b"===============================================\n"
    for go_page, my_page in zip(result.stdout.split(rule), mine.split(rule), strict=False):
        if b"runtime error" in go_page or b"does not match" in my_page:
            return
        assert my_page == go_page


def test_keys_and_get(file: Path) -> None:
    for names in bucket_paths(file):
        path = [name.decode(errors="surrogateescape") for name in names]
        same(("keys", file, *path), ours(render.keys, str(file), names))
        for form in render.FORMATS:
            go = ("keys", "--format", form, file, *path)
            same(go, ours(render.keys, str(file), names, form=form))
        with DB(file, read_only=True) as db, db.view() as tx:
            keys = list(tx.bucket(*names))[:4]
        for key in keys:
            for form in render.FORMATS:
                go = ("get", "--parse-format", "hex", "--format", form, file, *path, key.hex())
                mine = ours(
                    render.get, str(file), names, key.hex().encode(), form=form, parse_form="hex"
                )
                same(go, mine)
        go = ("get", file, *path, "no such key")
        same(go, ours(render.get, str(file), names, b"no such key"))


def test_stats_with_prefix(file: Path) -> None:
    same(("stats", file, "b"), ours(render.stats, str(file), b"b"))


def test_compact(file: Path, tmp_path: Path) -> None:
    """The same sizes are printed, and the copy holds the same."""
    mine = ours(render.compact, str(file), str(tmp_path / "mine.db"))
    result = run("bbolt", "compact", "-o", tmp_path / "go.db", file)
    assert mine == (result.stdout, result.returncode, b"")
    assert go_dump(tmp_path / "mine.db") == go_dump(tmp_path / "go.db") == go_dump(file)
    go_write(tmp_path / "mine.db", 1)


def test_errors(tmp_path: Path) -> None:
    """What is no bolt file, or has no such bucket, is an error on both sides."""
    missing = tmp_path / "missing.db"
    assert ours(render.check, str(missing))[1:] == (
        1,
        f'Error: source database file "{missing}" doesn\'t exist\n'.encode(),
    )
    path = tmp_path / "t.db"
    large(path)
    same(("keys", path, "none"), ours(render.keys, str(path), [b"none"]))
    same(("get", path, "none", "k"), ours(render.get, str(path), [b"none"], b"k"))
    same(
        ("keys", "--format", "odd", path, "bucket-0"),
        ours(render.keys, str(path), [b"bucket-0"], form="odd"),
    )
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"not a bolt file" * 1000)
    for name in ("check", "buckets", "info", "stats", "pages", "inspect"):
        same((name, junk), ours(getattr(render, name), str(junk)))


@needs_real_data
def test_real_files_are_there() -> None:
    """The comparison above ran on them."""
    assert len(REAL) >= 5
