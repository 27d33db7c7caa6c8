"""What a location says, and what it must not tell anybody."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from storebridge_sqlalchemy import backend
from storebridge_sqlalchemy.address import address_of

from storebridge import ConfigurationError, Job, JobStore, StorageError, open_database
from storebridge.driver import DriverError, ErrorKind, Options
from tests.postgres_server import Database, Server, own_server

HOST = "postgresql+psycopg://user:s3cr3t@host:5433/db"


def test_what_is_handed_on() -> None:
    """The URL's parts and libpq's options go to libpq as they are; ours stay here."""
    address = address_of(f"{HOST}?sslmode=verify-full&schema=s", {"prefix": "p_", "pool_size": "3"})
    wanted = {"host": "host", "port": 5433, "user": "user", "password": "s3cr3t", "dbname": "db"}
    assert wanted.items() <= address.connect.items()
    assert address.connect["sslmode"] == "verify-full"
    assert (address.schema, address.prefix, address.pool_size) == ("s", "p_", 3)
    assert not {"schema", "prefix", "pool_size"} & address.connect.keys()
    socket = address_of("postgresql:///db?host=/var/run/postgresql", {})
    assert socket.connect["host"] == "/var/run/postgresql"
    several = address_of("postgresql://h1,h2/db", {"target_session_attrs": "read-write"})
    assert several.connect["host"] == "h1,h2"
    escaped = address_of("postgresql://u:p%40%2F%3A@h/db", {"connect_timeout": "3"})
    assert escaped.connect["password"] == "p@/:"
    assert escaped.connect["connect_timeout"] == "3"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("postgresql://user:s3cr3t@@host/db", "%40"),
        ("postgresql://user:x@s3cr3t@host/db", "%40"),
        ("postgresql://user:s3cr3t@host:port/db", "cannot be understood"),
        ("postgresql://user:s3cr3t:x@host:5x/db", "cannot be understood"),
        (f"{HOST}?nosuch=1", "unknown option 'nosuch'"),
        (f"{HOST}?schema=A;b", "schema='A;b': accepted are"),
        (f"{HOST}?prefix={'x' * 21}", "prefix=.*up to 20"),
        (f"{HOST}?pool_size=0", "pool_size='0'.*from 2 to 999"),
    ],
)
def test_what_cannot_be_understood(target: str, words: str) -> None:
    """Is a configuration error in one line, without the password."""
    with pytest.raises(DriverError, match=words) as caught:
        backend.open(target, Options())
    assert caught.value.kind is ErrorKind.CONFIGURATION
    assert "\n" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_options_of_the_other_kind(tmp_path: Path) -> None:
    """What belongs to a server is refused of a file, and the other way round."""
    with pytest.raises(ConfigurationError, match="unknown option 'sslmode' of a SQLite file"):
        open_database(f"sqlite+pysqlite://{tmp_path}/a.db?sslmode=require")
    with pytest.raises(ConfigurationError, match="unknown option 'cache' of a server"):
        open_database(f"{HOST}?cache=100")
    assert list(tmp_path.iterdir()) == []
    with open_database(f"sqlite+pysqlite://{tmp_path}/a.db?cache=100") as database:
        JobStore(database)


def test_the_shell_is_told_no_password() -> None:
    """Whoever can list processes sees what `psql` is told."""
    command = backend.shell(f"{HOST}?schema=s&sslpassword=0th3r&sslmode=require&passfile=/p")
    assert command is not None
    text = " ".join(command)
    assert "psql" in text
    assert "s3cr3t" not in text
    assert "0th3r" not in text
    for part in (
        "host=host",
        "port=5433",
        "sslmode=require",
        "passfile=/p",
        "search_path=s",
        "read_only=on",
    ):
        assert part in text


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_the_shell_looks_at_the_tables(target: str) -> None:
    """`psql` finds the tables, and cannot change them."""
    with open_database(target) as database:
        JobStore(database)
    command = [sys.executable, "-m", "storebridge", "shell", target]
    for sql, code in (("SELECT count(*) FROM jobs", 0), ("DELETE FROM job", 1)):
        done = subprocess.run([*command, "-Atc", sql], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert ("read-only" in done.stderr) == bool(code)


def test_no_error_has_the_password(postgresql: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong when connecting is said without the password, however it was given."""
    caplog.set_level(logging.DEBUG)
    good = postgresql.url.partition("@")[2]
    for text in (
        f"postgresql+psycopg://nobody:s3cr3t@{good}x",
        f"postgresql+psycopg://nobody@{good}x?password=s3cr3t",
        "postgresql+psycopg://nobody:s3cr3t@127.0.0.1:1/x",
        "postgresql+psycopg://nobody:s3cr3t@nowhere.invalid/x",
        f"postgresql+psycopg://nobody:s3cr3t@{good}?sslmode=nonsense",
        f"postgresql+psycopg://nobody:s3cr3t@{good}?connect_timeout=s",
    ):
        with pytest.raises((StorageError, ConfigurationError)) as caught:
            open_database(text)
        assert "s3cr3t" not in f"{caught.value!r} {caught.value}"
        assert "\n" not in str(caught.value)
    assert "s3cr3t" not in caplog.text


def test_an_unreachable_server_reads_well() -> None:
    """What libpq says on several lines is sentences on one, of every host that was tried, and the
    location stands there once.
    """
    with pytest.raises(StorageError) as caught:
        open_database("postgresql+psycopg://me@127.0.0.1:1/x?durability=off")
    said = str(caught.value)
    assert said.startswith("postgresql+psycopg://me@127.0.0.1:1/x?durability=off: cannot connect: ")
    assert said.endswith(
        "Connection refused. Is the server running on that host and accepting TCP/IP connections?"
    )
    assert said.count("postgresql") == 1
    with pytest.raises(StorageError) as caught:
        open_database("postgresql+psycopg://me@/x?host=127.0.0.1,127.0.0.2&port=1,2")
    said = str(caught.value)
    assert said.count("Connection refused. Is the server") == 2
    assert "All failures were: host: '127.0.0.1'" in said
    assert "; host: '127.0.0.2', port: '2'" in said


def test_one_of_several_hosts(target: str) -> None:
    """The first host that answers is taken."""
    there = urlsplit(target)
    query = f"host=127.0.0.1,{there.hostname}&port=1,{there.port}&{there.query}"
    several = there._replace(netloc=f"{there.username}@", query=query).geturl()
    with open_database(several) as database:
        JobStore(database).create(Job())
    with open_database(target) as database:
        assert JobStore(database).count() == 1


# --- TLS ---


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server with a certificate for `localhost`, and that certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout key"
        " -out cert -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    for server in own_server(certificate=(folder / "cert", folder / "key")):
        yield server, folder / "cert"


def test_tls_with_verification(tls: tuple[Server, Path], tmp_path: Path) -> None:
    """libpq's own options verify the server: the right certificate and name are accepted, another
    certificate, another name or none is refused.
    """
    server, certificate = tls
    by_name = server.target().replace("127.0.0.1", "localhost")
    secure = f"{by_name}&sslmode=verify-full&sslrootcert={certificate}"
    with open_database(secure) as database:
        assert str(database.describe()["tls"]).startswith("TLSv1")
    by_address = secure.replace("localhost", "127.0.0.1")
    with pytest.raises(StorageError, match="does not match host name"):
        open_database(by_address)
    with pytest.raises(StorageError, match="certificate"):
        open_database(f"{by_name}&sslmode=verify-full&sslrootcert={tmp_path}/none")
    with open_database(f"{by_name}&sslmode=disable") as database:
        assert database.describe()["tls"] == "off"
