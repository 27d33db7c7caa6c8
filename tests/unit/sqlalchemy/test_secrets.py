"""Passwords: they open the door, and nobody reads them."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator

import pytest
from storebridge_sqlalchemy import commits, engine_of

from storebridge import Job, JobStore, StorebridgeError, open_database
from storebridge.location import parse_location
from tests.postgres_server import Server, own_server
from tests.unit.sqlalchemy.proxy import proxy_to

SECRET = "s3cr3t/@:?%41 x"
WRITTEN = "s3cr3t%2F%40%3A%3F%2541%20x"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that lets `guest` in by a password alone."""
    for server in own_server(durable=True):
        rules = server.folder / "data" / "pg_hba.conf"
        rules.write_text("host all guest 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        with server.connect() as connection:
            connection.execute(f"CREATE ROLE guest LOGIN SUPERUSER PASSWORD '{SECRET}'")
            connection.execute("SELECT pg_reload_conf()")
        yield server


def as_guest(target: str, password: str = WRITTEN) -> str:
    return re.sub(r"//[^@]*@", f"//guest:{password}@", target)


def everything_said(error: BaseException) -> str:
    """Whatever a program could print or log of an error, and of what it came from."""
    said, found = [], [error]
    while found:
        each = found.pop()
        said += [str(each), repr(each), repr(each.args), repr(getattr(each, "__notes__", ""))]
        said += traceback.format_exception(each)
        found += [cause for cause in (each.__cause__, each.__context__) if cause is not None]
    return "\n".join(said)


def require_secret(text: str) -> None:
    for shape in (SECRET, WRITTEN, "s3cr3t"):
        assert shape not in text


def test_a_password_opens_the_door(guarded: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Given in the URL or as an option, with whatever characters; and nothing that shows where a
    database is, or talks of it, has it.
    """
    caplog.set_level(logging.DEBUG)
    target = guarded.target()
    for location in (
        as_guest(target),
        as_guest(target).replace(f":{WRITTEN}", "") + f"&password={WRITTEN}",
    ):
        with open_database(location) as database:
            jobs = JobStore(database)
            jobs.create(Job())
            engine = engine_of(database)
            with engine.connect():
                shown = [database, database.location, database.location.options, database.driver]
                shown += [jobs, engine, engine.url, database.describe(), parse_location(location)]
            engine.dispose()
            require_secret(f"{shown} {[str(each) for each in shown]} {database.location.text}")
    require_secret(caplog.text)


def _wrong_password(server: Server) -> None:
    open_database(as_guest(server.target(), f"{WRITTEN}-no"))


def _no_database(server: Server) -> None:
    open_database(as_guest(server.target()).replace("/postgres?", "/nosuch?"))


def _wrong_option(server: Server) -> None:
    open_database(as_guest(server.target()) + "&sslmode=nonsense")


def _twice(server: Server) -> None:
    open_database(as_guest(server.target()) + f"&password={WRITTEN}&password={WRITTEN}")


def _no_host(server: Server) -> None:
    open_database(re.sub(r"127[^/]*/", "nowhere.invalid/", as_guest(server.target())))


def _no_port(server: Server) -> None:
    open_database(re.sub(r":\d+/", ":port/", as_guest(server.target())))


def _an_open_one(server: Server) -> None:
    location = as_guest(server.target())
    with open_database(location):
        open_database(location + "&durability=off")


def _not_there(server: Server) -> None:
    open_database(as_guest(server.target()), create=False)


def _server_away(server: Server) -> None:
    with open_database(as_guest(server.target())) as database:
        jobs = JobStore(database)
        server.stop()
        try:
            jobs.find()
        finally:
            server.start()


def _lost_inside(server: Server) -> None:
    with open_database(as_guest(server.target())) as database:
        jobs = JobStore(database)
        with database.transaction():
            jobs.create(Job())
            server.restart()
            jobs.create(Job())


def _nobody_knows(server: Server) -> None:
    target = as_guest(server.target())

    def stop(piece: bytes) -> bool:
        if b"COMMIT\0" in piece:
            server.stop(signal.SIGQUIT)
            return True
        return False

    with proxy_to(target) as proxy:
        location = target.replace(f":{server.port}/", f":{proxy.port}/")
        with open_database(location) as database:
            jobs = JobStore(database)
            proxy.cut_when = stop
            try:
                jobs.create(Job())
            finally:
                server.start()


WAYS: tuple[Callable[[Server], None], ...] = (
    *(_wrong_password, _no_database, _wrong_option, _twice, _no_host, _no_port, _an_open_one),
    *(_not_there, _server_away, _lost_inside, _nobody_knows),
)


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__.strip("_") for way in WAYS])
def test_no_error_tells(
    guarded: Server,
    way: Callable[[Server], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever goes wrong, wherever: neither the error nor what it came from, nor a traceback, nor
    a log has the password.
    """
    monkeypatch.setattr(commits, "_PATIENCE", 0.5)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StorebridgeError) as caught:
        way(guarded)
    said = everything_said(caught.value)
    assert "postgresql" in said
    require_secret(said)
    require_secret(caplog.text)


@pytest.mark.parametrize("arguments", [("info",), ("--traceback", "info"), ("doctor", "--json")])
@pytest.mark.parametrize("wrong", ["-no", "&nonsense=1", "&connect_timeout=x"])
def test_the_command_does_not_tell(guarded: Server, arguments: tuple[str, ...], wrong: str) -> None:
    """Nor does the command line, however much it is asked to say, also where the location comes
    from the environment.
    """
    target = as_guest(guarded.target())
    location = as_guest(target, WRITTEN + wrong) if wrong == "-no" else target + wrong
    for given, environment in (((location,), {}), ((), {"JOB_STORE_PATH": location})):
        done = subprocess.run(
            [sys.executable, "-m", "storebridge", *arguments, *given],
            env={"PATH": os.environ["PATH"]} | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (1, 2), done.stdout
        assert "guest" in done.stdout + done.stderr or "unknown option" in done.stderr
        require_secret(done.stdout + done.stderr)
