"""A PostgreSQL server to test against: a throwaway cluster of our own, or the one that
`STOREBRIDGE_POSTGRESQL_URL` names.

The cluster is in a temporary folder, belongs to an unprivileged user, listens on loopback and on a
socket in its folder, and ends with the process that started it, even if that is killed.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest

URL_VARIABLE = "STOREBRIDGE_POSTGRESQL_URL"
_USER = "storebridge"
_READY_WITHIN = 30.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "log_min_messages": "fatal",
    "max_wal_size": "1GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
_NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "checkpoint_timeout": "1h",
    # Thousands of tables that each live for a moment.
    "autovacuum": "off",
}
_PARENT_DIES = 1  # PR_SET_PDEATHSIG of prctl(2)
_MOUNTING = (
    'mount -t tmpfs -o "size=$1,mode=700,uid=$2,gid=$3" tmpfs "$4" &&'
    " user=$2 group=$3 && shift 4 &&"
    ' exec setpriv --reuid="$user" --regid="$group" --clear-groups "$@"'
)


class Database:
    """A database on some server. Each `target` in it is a schema of its own, and is new."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count()

    def connect(self) -> psycopg.Connection:
        """A plain connection, each statement a transaction of its own."""
        return psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True)

    def target(self) -> str:
        """What a backend is given to open: nothing is there yet."""
        joint = "&" if "?" in self.url else "?"
        return f"{self.url}{joint}schema=t{self._run}_{next(self._numbers)}"

    def drop_targets(self) -> None:
        """Take every schema away that was made at a target."""
        with self.connect() as connection:
            query = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)"
            for (schema,) in connection.execute(query, [f"t{self._run}_"]).fetchall():
                connection.execute(f'DROP SCHEMA "{schema}" CASCADE')


class Server(Database):
    """A cluster of our own, which can be stopped, killed and started again.

    `small`: the size of a disk on which it has its tablespace `small`, such as `24m`; it is lost
    when the server stops.
    """

    def __init__(
        self, folder: Path, *, durable: bool = False, small: str | None = None, **settings: str
    ) -> None:
        self.folder = folder
        self._small = small
        self.port = _free_port()
        self._settings = _SETTINGS | ({} if durable else _NOT_DURABLE) | settings
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(f"postgresql+psycopg://{_USER}@127.0.0.1:{self.port}/postgres")

    def make(self) -> None:
        """Make the cluster."""
        os.chmod(self.folder, 0o755)
        for name in ("data", "socket", "small"):
            (self.folder / name).mkdir(mode=0o700)
            _give_away(self.folder / name)
        self._call(
            *("initdb", "-D", self._data, "-U", _USER, "--auth=trust", "--encoding=UTF8"),
            *("--locale=C.UTF-8", "--no-sync", "--no-instructions"),
        )

    def use_certificate(self, certificate: Path, key: Path) -> None:
        """Speak TLS, from the next start on."""
        for name, source in (("server.crt", certificate), ("server.key", key)):
            copy = Path(self._data) / name
            copy.write_bytes(source.read_bytes())
            copy.chmod(0o600)
            _give_away(copy)
        self._settings["ssl"] = "on"

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(binaries() / program), *arguments],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            **_unprivileged(),
        )
        assert done.returncode == 0, f"{program}: {done.stderr}{done.stdout}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(binaries() / "postgres"), "-D", self._data, "-p", str(self.port)]
        settings = self._settings | {"unix_socket_directories": str(self.folder / "socket")}
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        whom = _unprivileged()
        if self._small is not None:
            command = [*within_small_disk(self._small, self.folder / "small"), *command]
            whom = {}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                preexec_fn=_die_with_parent,
                **whom,
            )
        give_up = monotonic() + _READY_WITHIN
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert monotonic() < give_up, "the server does not answer"
                sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends its sessions in order, SIGQUIT as a crash would."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """End and start it: connections are gone, the content is not."""
        self.stop(how)
        self.start()


def binaries() -> Path:
    """Where the server's programs are, of the newest version; FileNotFoundError if nowhere."""
    on_path = shutil.which("initdb")
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4])
    )
    for program in (*([Path(on_path)] if on_path else []), *reversed(installed)):
        if program.resolve().with_name("postgres").exists():
            return program.resolve().parent
    raise FileNotFoundError("no PostgreSQL server is installed")


def _unprivileged() -> dict[str, Any]:
    """Whom a process is to run as: the server refuses to be root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise LookupError("there is no unprivileged user")


def within_small_disk(size: str, place: Path) -> list[str]:
    """What runs a command as the unprivileged user, with a small disk mounted at a place that
    nobody else sees. Only root can.
    """
    whom = _unprivileged() or {"user": os.getuid(), "group": os.getgid()}
    arguments = (size, str(whom["user"]), str(whom["group"]), str(place))
    return ["unshare", "--mount", "sh", "-c", _MOUNTING, "sh", *arguments]


def _give_away(path: Path) -> None:
    if whom := _unprivileged():
        os.chown(path, whom["user"], whom["group"])


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def own_server(
    *,
    durable: bool = False,
    small: str | None = None,
    certificate: tuple[Path, Path] | None = None,
    **settings: str,
) -> Iterator[Server]:
    """A cluster of our own for as long as a fixture lasts; the test is skipped without binaries.
    `certificate`: files of the certificate and its key, by which clients may know it.
    """
    try:
        binaries()
    except FileNotFoundError as error:
        pytest.skip(f"{error}: install it, or set {URL_VARIABLE}")
    # Not in pytest's folder, which others may not enter, and with a short path for the socket.
    folder = Path(tempfile.mkdtemp(prefix="storebridge-postgresql-"))
    server = Server(folder, durable=durable, small=small, **settings)
    try:
        server.make()
        if certificate is not None:
            server.use_certificate(*certificate)
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)  # nobody needs what it would write
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Database]:
    """A database of which nothing need survive a power cut, for as long as the tests run."""
    url = os.environ.get(URL_VARIABLE)
    if url is None:
        yield from own_server()
        return
    database = Database(url)
    yield database
    database.drop_targets()


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[Server]:
    """A server of the module's own, to be stopped, killed and started at will; durable."""
    yield from own_server(durable=True)
