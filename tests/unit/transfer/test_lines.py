"""The export format: any body survives, and whatever is altered is found in its line."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storebridge import (
    BackendUnavailableError,
    ConfigurationError,
    DamagedExportError,
    Database,
    Job,
    JobStore,
    StorageError,
    open_database,
)
from storebridge.canonical import encoder
from storebridge.spec import layout_of
from storebridge.testing.stores.awkward import AWKWARD, Clock, fill, seed
from storebridge.testing.stores.base import contents
from storebridge.transfer import compressed, exports, jsonlines
from storebridge.transfer.content import tables_of
from storebridge.transfer.exports import export_database, import_database
from storebridge.transfer.verification import compare

SUFFIXES = ("", ".gz", ".xz", ".zst")
bodies = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=30).map(
        lambda text: json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    st.sampled_from(
        (b"{}", b" {}", b"{}\n", b'{"a":\r1}', b"null", b"", b"1e999", b"NaN", b'{"a":1,"a":2}')
    ),
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Closed by `exported`, its only user."""
    return open_database(f"memory:{tmp_path}")


@pytest.fixture
def exported(database: Database) -> bytes:
    """The export of a database with content of every kind."""
    chance = random.Random(seed())
    with database:
        database.clock = Clock(chance)
        fill(database, chance, 40)
        stream = io.BytesIO()
        export_database(database, stream)
    return stream.getvalue()


class OneTable:
    """A content of one store, whose history has these bodies."""

    name = "here"

    def __init__(self, written: list[bytes]) -> None:
        self.layouts = (layout_of(AWKWARD),)
        self._rows = [(("r", number), body) for number, body in enumerate(written)]

    def pages(self, table: object) -> object:
        name = table.name  # type: ignore[attr-defined]
        if name == "storebridge-meta":
            body = encoder.encode(self.layouts[0])
            return iter([[(("store awkward",), body)]])
        return iter([self._rows] if name == "awkward-history" and self._rows else [])

    def totals(self) -> dict[str, int]:
        return {"sequence": len(self._rows)}


@given(st.lists(bodies, max_size=5))
def test_any_body_survives(written: list[bytes]) -> None:
    """Whatever bytes a body is, it comes back as it was, and each line is JSON for everyone."""
    stream = io.BytesIO()
    digest = jsonlines.write(OneTable(written), stream)  # type: ignore[arg-type]
    for line in stream.getvalue().splitlines():
        json.loads(line)
    stream.seek(0)
    with exports.opened(stream) as content:
        found = compare(OneTable(written), content)  # type: ignore[arg-type]
    assert found.equal
    assert found.digest_b == digest


def read_whole(made: bytes) -> None:
    with exports.opened(io.BytesIO(made)) as content:
        for table in tables_of(content.layouts):
            for _ in content.pages(table):
                pass
        content.digest()


def test_any_altered_byte_is_found_in_its_line(exported: bytes) -> None:
    """One bit changed anywhere is refused, with the number of the line that it is in."""
    chance = random.Random(seed())
    read_whole(exported)
    for at in [0, len(exported) - 1, *(chance.randrange(len(exported)) for _ in range(300))]:
        damaged = bytearray(exported)
        damaged[at] ^= 1 << chance.randrange(8)
        line = exported.count(b"\n", 0, at) + 1
        with pytest.raises(DamagedExportError, match=rf"^-, line {line}: "):
            read_whole(bytes(damaged))


def test_cut_off_anywhere(exported: bytes) -> None:
    """Cut off at any byte, at the end of a line as well, it is refused."""
    chance = random.Random(seed())
    ends = [at + 1 for at, byte in enumerate(exported[:-1]) if byte == 10]
    for at in [0, *chance.sample(ends, 30), *(chance.randrange(len(exported)) for _ in range(100))]:
        with pytest.raises(DamagedExportError, match=f"line {exported.count(10, 0, at) + 1}: "):
            read_whole(exported[:at])


def forged(change: Callable[[list[dict[str, object]]], object], exported: bytes) -> bytes:
    """The export with changed lines and checksums that are right."""
    texts = [line[: -len(jsonlines._CRC % 0)] for line in exported.splitlines(keepends=True)]
    lines = [json.loads(text + b"}") for text in texts]
    whole = {json.dumps(line): text for line, text in zip(lines, texts, strict=True)}
    change(lines)
    crc, made = 0, b""
    for line in lines:
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
        # What is not changed stays as it is: numbers have more than one spelling.
        text = whole.get(json.dumps(line), text)
        crc = crc32(text, crc)
        made += text + jsonlines._CRC % crc
    return made


def entries_of(lines: list[dict[str, object]], table: str) -> list[int]:
    return [number for number, line in enumerate(lines) if line.get("table") == table]


def no_base64(lines: list[dict[str, object]]) -> None:
    line = lines[entries_of(lines, "job")[0]]
    del line["body"]
    line["base64"] = "?"


FORGERIES: dict[str, Callable[[list[dict[str, object]]], object]] = {
    "removed": lambda lines: lines.pop(entries_of(lines, "job")[3]),
    "added": lambda lines: lines.insert(5, lines[5] | {"key": ["store awkwarz"]}),
    "swapped": lambda lines: lines.insert(
        entries_of(lines, "job")[2], lines.pop(entries_of(lines, "job")[1])
    ),
    "moved to another table": lambda lines: lines.insert(
        -1, lines.pop(entries_of(lines, "job")[0])
    ),
    "a key of two fields": lambda lines: lines[entries_of(lines, "job")[0]].update(key=["a", "b"]),
    "a number for a text": lambda lines: lines[entries_of(lines, "job")[0]].update(key=[7]),
    "NUL in a key": lambda lines: lines[entries_of(lines, "job")[0]].update(key=["a\0"]),
    "beyond 64 bits": lambda lines: lines[entries_of(lines, "job-history")[0]].update(
        key=["a", 2**63]
    ),
    "no body": lambda lines: lines[entries_of(lines, "job")[0]].pop("body"),
    "no base64": no_base64,
    "another total": lambda lines: lines[-1]["end"]["totals"].update(sequence=1),  # type: ignore[index]
    "newer": lambda lines: lines[0].update(format=2),
    "newer layout": lambda lines: lines[0].update(layout=99),
    "another kind": lambda lines: lines[0].update(storebridge="import"),
    "other tables": lambda lines: lines[0].update(tables=["storebridge-meta"]),
    "a mark": lambda lines: lines.insert(1, lines[1] | {"key": ["opener 1 2 3"]}),
    "an unreadable store": lambda lines: lines[1].update(body={}),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forgeries(forgery: str, exported: bytes, tmp_path: Path) -> None:
    """Lines that were changed together with their checksums do not pass, either: the digests, and
    what a table can hold, tell. Nothing of them stays.
    """
    read_whole(forged(lambda lines: None, exported))
    made = forged(FORGERIES[forgery], exported)
    with pytest.raises(DamagedExportError, match=r"line \d+: "):
        import_database(io.BytesIO(made), tmp_path / "new.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files(suffix: str, tmp_path: Path) -> None:
    """Compressed or not: the file has its name only when it is whole, is its owner's alone, is not
    overwritten unasked, and cut off or altered anywhere it is refused.
    """
    path = tmp_path / f"x.jsonl{suffix}"
    with open_database(f"memory:{tmp_path}") as database:
        jobs = JobStore(database)
        for number in range(50):
            jobs.create(
                Job(id=f"j-{number}", meta={"noise": random.Random(number).randbytes(99).hex()})
            )
        report = export_database(database, path)
        assert list(tmp_path.iterdir()) == [path]
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConfigurationError, match="is there"):
            export_database(database, path)
        assert export_database(database, path, overwrite=True) == report.__class__(
            **(report.__dict__ | {"seconds": pytest.approx(report.seconds, abs=60)})
        )
        assert exports.is_export(path)
        whole = path.read_bytes()
        kept = contents(database)
    assert import_database(path, tmp_path / "back.db").digest == report.digest
    with open_database(tmp_path / "back.db") as database:
        assert contents(database) == kept
    chance = random.Random(seed())
    for _ in range(20):
        at = chance.randrange(1, len(whole))
        path.write_bytes(whole[:at])
        with pytest.raises(DamagedExportError, match=r"line \d+: "):
            import_database(path, tmp_path / "new.db")
        altered = bytearray(whole)
        altered[at] ^= 0xFF
        path.write_bytes(altered)
        try:
            taken = import_database(path, tmp_path / f"new-{at}.db")
        except DamagedExportError:
            assert not (tmp_path / f"new-{at}.db").exists()
        else:  # a byte of the compressed file that says nothing of what is in it
            assert suffix
            assert taken.digest == report.digest


def test_two_write_one_file(tmp_path: Path) -> None:
    """While a process writes an export, another one of the same name is refused; what a killed one
    has left is written anew, for its owner alone.
    """
    path, partial = tmp_path / "x.jsonl", tmp_path / "x.jsonl.partial"
    code = (
        "import sys; from storebridge import *; from storebridge.transfer import export_database\n"
        "def wait(progress):\n"
        "    if progress.stage == 'verify': print(flush=True); sys.stdin.read()\n"
        "with open_database('memory:x') as database:\n"
        "    JobStore(database)\n"
        "    export_database(database, sys.argv[1], watch=wait)"
    )
    command = [sys.executable, "-c", code, str(path)]
    with open_database(f"memory:{tmp_path}") as database:
        JobStore(database).create(Job())
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            with pytest.raises(StorageError, match="another process"):
                export_database(database, path)
            other.kill()
        partial.chmod(0o644)
        digest = export_database(database, path).digest
    assert path.stat().st_mode & 0o777 == 0o600
    assert import_database(path, tmp_path / "x.db").digest == digest
    assert not partial.exists()


def test_a_link_in_the_way(tmp_path: Path) -> None:
    """In a folder that others may write to, nothing is written where a link leads."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "x.jsonl.partial").symlink_to(precious)
    link = pytest.raises(StorageError, match="symbolic links")
    with open_database(f"memory:{tmp_path}") as database, link:
        export_database(database, tmp_path / "x.jsonl")
    assert precious.read_text() == "mine"


def test_zstd_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, and no file is left behind."""

    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(compressed, "import_module", missing)
    missing_extra = pytest.raises(BackendUnavailableError, match=r"storebridge\[zstd\]")
    with open_database(f"memory:{tmp_path}") as database, missing_extra:
        export_database(database, tmp_path / "x.zst")
    assert list(tmp_path.iterdir()) == []


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there, or cannot be written, is one of our errors."""
    with pytest.raises(ConfigurationError, match="No such file"):
        import_database(tmp_path / "x.jsonl", tmp_path / "x.db")
    no_folder = pytest.raises(StorageError, match="No such file")
    with open_database(f"memory:{tmp_path}") as database, no_folder:
        export_database(database, tmp_path / "none" / "x.jsonl")
    assert list(tmp_path.iterdir()) == []
