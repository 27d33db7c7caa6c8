"""Locations, their options, and which backend an existing file is of."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import struct
from pathlib import Path
from typing import Any

import pytest

from storebridge import (
    BackendUnavailableError,
    ConfigurationError,
    ForeignFileError,
    UnknownBackendError,
    open_database,
)
from storebridge import backends as finding
from storebridge.location import hide_password, parse_location


def test_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs with absolute and relative paths, bare paths, `~` and escapes name the same file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = str(tmp_path / "a b.db")
    for text in (f"sqlite://{tmp_path}/a%20b.db", "sqlite:a b.db", "a b.db", "~/a b.db", wanted):
        location = parse_location(text)
        assert (location.target, location.backend.name) == (wanted, "sqlite")
        assert location.path == Path(wanted)
    for text in (f"sqlite+pysqlite://{tmp_path}/a b.db", f"sqlite+pysqlite:///{tmp_path}/a b.db"):
        location = parse_location(text)
        assert (location.target, location.backend.name) == (wanted, "sqlalchemy")
    assert parse_location("memory:").path is None
    assert parse_location("memory:x").target == parse_location("memory:///x").target == "x"


@pytest.mark.parametrize(
    ("name", "backend"),
    [("a.db", "sqlite"), ("a.sqlite3", "sqlite"), ("a", "sqlite"), ("a.LMDB", "lmdb")],
)
def test_new_bare_paths(tmp_path: Path, name: str, backend: str) -> None:
    """A new bare path is given to the backend of its suffix, else to SQLite."""
    assert parse_location(str(tmp_path / name)).backend.name == backend
    assert parse_location(str(tmp_path / name), default_type="memory").backend.name == "memory"


def test_options() -> None:
    """Options in the query are parsed; what the query does not say comes from the defaults."""
    text = "/a/b.db?durability=relaxed&lock_timeout=0.5&mode=0660&read_only=true"
    options = parse_location(text, defaults={"durability": "off", "lock_timeout": "9"}).options
    assert (options.durability, options.lock_timeout) == ("relaxed", 0.5)
    assert (options.mode, options.read_only) == (0o660, True)
    options = parse_location("/a/b.db?mode=600", defaults={"lock_timeout": "9"}).options
    assert (options.durability, options.lock_timeout, options.mode) == ("full", 9.0, 0o600)
    assert parse_location("/a/what?.db").target == "/a/what?.db"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("sqlite:", "names no file"),
        ("sqlite://host/a.db", "sqlite:///absolute/path"),
        ("/a.db?durability=ful", "durability='ful'.*full, relaxed, off"),
        ("/a.db?lock_timeout=-1", "lock_timeout='-1'.*seconds"),
        ("/a.db?lock_timeout=nan", "lock_timeout='nan'.*seconds"),
        ("/a.db?lock_timeout=soon", "lock_timeout='soon'.*seconds"),
        ("/a.db?mode=rw", "mode='rw'.*octal"),
        ("/a.db?mode=0200", "mode='0200'.*octal"),
        ("/a.db?mode=1777", "mode='1777'.*octal"),
        ("/a.db?read_only=perhaps", "read_only='perhaps'.*true, false"),
        ("/a.db?speed=high", "unknown option 'speed'.*durability, lock_timeout"),
        ("/a.db?mode=600&x", "name=value"),
        ("/a.db?mode=600&mode=640", "mode.*twice"),
        ("~nobody-of-this-name/a.db", "home"),
        ("sqlite:///a%00.db", "NUL"),
        ("lmdb:a%00", "NUL"),
        ("bolt:///a%00.db", "NUL"),
    ],
)
def test_bad_locations(text: str, words: str) -> None:
    """What is wrong is named, with what is accepted, in one line."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse_location(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [None, b"/a.db", 5])
def test_what_is_neither_text_nor_path(given: Any) -> None:
    """It is refused as a location, not by a TypeError."""
    with pytest.raises(ConfigurationError, match=f"text or a path, not {type(given).__name__}"):
        open_database(given)


@pytest.mark.parametrize("name", ["jobs:1.db", "sqlite:x", "a.db?durability=off", "~", "a%20b"])
def test_paths_are_literal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nothing in a path is a scheme, an option, an escape or a home."""
    monkeypatch.chdir(tmp_path)
    for _ in ("new", "existing"):
        with open_database(Path(name)) as database:
            assert database.location.path == tmp_path / name
            assert database.location.options.durability == "full"
    assert (tmp_path / name).is_file()
    with pytest.raises(ConfigurationError, match="NUL"):
        open_database(Path("a\0b"))


@pytest.mark.parametrize("address", ["//user:secret@host:5432/db", "///db", "//h1,h2/db"])
def test_servers(address: str) -> None:
    """A server's URL is handed on as it is, its options apart; its text has no password."""
    location = parse_location(
        f"postgresql+psycopg:{address}?schema=s&lock_timeout=2&sslmode=prefer"
    )
    assert location.target == f"postgresql+psycopg:{address}"
    assert location.path is None
    assert location.options.lock_timeout == 2.0
    assert location.options.extra == {"schema": "s", "sslmode": "prefer"}
    assert "secret" not in f"{location.text} {location!r}"
    assert parse_location(f"postgresql:{address}", default_type="sqlalchemy").backend.name


def test_servers_of_other_kinds() -> None:
    """What SQLAlchemy could open is refused, until it passes the suite."""
    for text in ("mysql+pymysql://host/db", "postgresql+asyncpg://host/db"):
        with pytest.raises(UnknownBackendError, match=r"postgresql\+psycopg and sqlite\+pysqlite"):
            parse_location(text)
    with pytest.raises(ConfigurationError, match=r"postgresql://user@host/database"):
        parse_location("postgresql:db")


def test_unknown_backends() -> None:
    """The error lists the backends that there are."""
    with pytest.raises(UnknownBackendError, match=r"'nosuch'.*sqlite, lmdb"):
        parse_location("nosuch:///a")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg://user:secret@host/db",
        "postgresql://user:se%2Fcret@host:5432/db?sslmode=require",
        "postgresql://user:p@secret@host/db",
        "postgresql://user:p/secret@host/db",
        "postgresql://user:p?secret@host/db",
        "postgresql://:secret@host/db",
        "postgresql://host/db?user=u&password=secret&sslmode=require",
    ],
)
def test_passwords_are_hidden(text: str) -> None:
    """No password reaches a log or an error."""
    assert "secret" not in hide_password(text).replace("se%2Fcret", "secret")
    assert "host" in hide_password(text)
    with pytest.raises(ConfigurationError) as caught:
        parse_location(text.replace("postgresql", "nosuch").replace("+psycopg", ""))
    assert "secret" not in str(caught.value).replace("se%2Fcret", "secret")


def test_what_is_hidden_already() -> None:
    """Of a message about a location nothing goes but its password."""
    message = "postgresql://me:{}@host/x: write user@host, and in a password @ as %40"
    hidden = hide_password(message.format("***"))
    assert hidden == message.format("***")


def page_with_magic(magic: int) -> bytes:
    return struct.pack("=16xI", magic).ljust(4096, b"\0")


@pytest.fixture
def existing(tmp_path: Path) -> dict[str, Path]:
    """A file or folder of each format that is told by its first bytes, names saying nothing."""
    paths = {name: tmp_path / f"{name}.x" for name in ("sqlite", "lmdb", "bolt", "tinydb")}
    with sqlite3.connect(paths["sqlite"]) as connection:
        connection.execute("create table t (a)")
    connection.close()
    paths["lmdb"].mkdir()
    (paths["lmdb"] / "data.mdb").write_bytes(page_with_magic(0xBEEFC0DE))
    paths["bolt"].write_bytes(page_with_magic(0xED0CDAED))
    paths["tinydb"].write_text(' {"_default": {"1": {"a": 1}}}')
    return paths


@pytest.mark.parametrize("name", ["sqlite", "lmdb", "bolt", "tinydb"])
def test_recognition(existing: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An existing file is told by its first bytes, even while its backend is not installed: then
    the error says what to install.
    """
    assert finding.name_of_existing(existing[name]) == name
    gone = finding.Builtin("storebridge_not_there", "some-extra", (), ())
    monkeypatch.setitem(finding.BUILTIN, name, gone)
    with pytest.raises(BackendUnavailableError, match=rf"{name}.*storebridge\[some-extra\]"):
        parse_location(str(existing[name]))


def test_lmdb_of_the_other_word_size(tmp_path: Path) -> None:
    """What a machine of 32 bits made is recognised on one of 64, and the other way round, so that
    the error can say why it cannot be read.
    """
    folder = tmp_path / "jobs"
    folder.mkdir()
    header = 8 + {8: 4, 4: 8}[struct.calcsize("P")]
    (folder / "data.mdb").write_bytes(struct.pack(f"={header}xI", 0xBEEFC0DE).ljust(4096, b"\0"))
    assert finding.name_of_existing(folder) == "lmdb"
    with pytest.raises(ForeignFileError, match=r"as this \d\d-bit machine writes them"):
        open_database(str(folder))


def test_contradictions(existing: dict[str, Path], tmp_path: Path) -> None:
    """A type that contradicts the scheme or the existing file is an error that names it."""
    with pytest.raises(ConfigurationError, match=r"MY_TYPE is 'lmdb'.*existing file.*'sqlite'"):
        parse_location(str(existing["sqlite"]), default_type="lmdb", type_source="MY_TYPE")
    with pytest.raises(ConfigurationError, match=r"MY_TYPE is 'lmdb'.*location.*'sqlite'"):
        parse_location(f"sqlite://{tmp_path}/n", default_type="lmdb", type_source="MY_TYPE")


@pytest.mark.parametrize(
    "content",
    [b"hello", b"[1]", b"\x89PNG\r\n", b"{", b"SQLite format 2\0", page_with_magic(0xBEEFC0DF)],
)
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    """A file of no known format is refused, and unharmed."""
    path = tmp_path / "file.db"
    path.write_bytes(content)
    with pytest.raises(ForeignFileError, match=r"file\.db"):
        open_database(str(path))
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file.db"]


def test_foreign_folders(tmp_path: Path) -> None:
    """A folder with something else in it is refused, and unharmed; an empty one is new."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ForeignFileError, match="full"):
        open_database(str(tmp_path / "full"))
    assert os.listdir(tmp_path / "full") == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    assert finding.name_of_existing(tmp_path / "empty") is None


def test_what_is_neither_file_nor_folder(tmp_path: Path) -> None:
    """A pipe is refused at once: reading it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="neither a file nor a folder"):
        open_database(str(tmp_path / "pipe"))


def test_what_cannot_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the system refuses while a backend looks for its magic number is said in words."""

    def refuse(path: Path, head: bytes) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    (tmp_path / "data.mdb").touch()
    monkeypatch.setitem(finding._BY_MAGIC, "lmdb", refuse)
    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
        open_database(tmp_path)


@pytest.mark.parametrize("backend", ["sqlite", "lmdb", "bolt", "tinydb"])
def test_names_that_are_too_long(tmp_path: Path, backend: str) -> None:
    """The file system's refusal is said in words."""
    with pytest.raises(ConfigurationError, match="too long"):
        open_database(f"{backend}://{tmp_path}/{'a' * 300}")


def test_symbolic_links_are_one_location(tmp_path: Path) -> None:
    """Two names of one file are one database."""
    (tmp_path / "link.db").symlink_to(tmp_path / "file.db")
    with open_database(tmp_path / "file.db") as one, open_database(tmp_path / "link.db") as other:
        assert one is other


def test_an_empty_json_object_is_tinydb(tmp_path: Path) -> None:
    """What TinyDB writes first is recognised."""
    (tmp_path / "x").write_text(json.dumps({}))
    assert finding.name_of_existing(tmp_path / "x") == "tinydb"
