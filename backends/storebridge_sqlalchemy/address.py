"""What a location on a server says: whom to connect to, and where there the tables are."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from psycopg.conninfo import make_conninfo

from storebridge.driver import DriverError, ErrorKind
from storebridge_sqlalchemy.metadata import DIALECT
from storebridge_sqlalchemy.options import LIBPQ_OPTIONS, OWN_OPTIONS

_DEFAULTS = {
    "connect_timeout": "10",
    # A machine or a network that is gone is noticed within a minute, not after hours.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
PATTERNS = {
    "schema": (re.compile(r"[a-z_][a-z0-9_]{0,62}"), "up to 63 of a-z, 0-9 and _"),
    "prefix": (re.compile(r"[a-z_][a-z0-9_]{0,19}"), "up to 20 of a-z, 0-9 and _"),
    "pool_size": (re.compile(r"[2-9]|[1-9][0-9]{1,2}"), "a whole number from 2 to 999"),
}


@dataclass(frozen=True)
class Address:
    """A parsed location."""

    connect: Mapping[str, Any] = field(repr=False)
    """Arguments of `psycopg.connect`; with the password."""
    schema: str | None
    """None: the first one of the connection's search path."""
    prefix: str
    pool_size: int

    @property
    def conninfo_to_look(self) -> str:
        """What `psql` is told, to look at the tables; without passwords, since any user of a
        machine can see what a program is told.
        """
        told = {k: v for k, v in self.connect.items() if k not in _DEFAULTS and "password" not in k}
        options = [told.get("options", ""), "-c default_transaction_read_only=on"]
        if self.schema is not None:
            options.append(f"-c search_path={self.schema}")
        told["options"] = " ".join(options).strip()
        told["application_name"] = "psql"
        return make_conninfo(**told)


def address_of(target: str, extra: Mapping[str, str]) -> Address:
    """Understand a URL and the options of its query. DriverError of kind CONFIGURATION names what
    is wrong, and never the password.
    """
    try:
        url = sa.make_url(target)
        given = {name: str(value) for name, value in url.query.items()} | dict(extra)
        _, connect = DIALECT.create_connect_args(url.set(query={}))  # type: ignore[no-untyped-call]
    except (sa.exc.ArgumentError, ValueError, TypeError):
        raise _wrong(
            "the location cannot be understood; write postgresql+psycopg://user@host:port/database,"
            " in a password @ as %40, : as %3A, / as %2F, and several hosts as ?host=a,b"
        ) from None
    # A password with an @ in it looks like one that ends there, and a host that has the rest.
    if "@" in str(connect.get("host", "")):
        raise _wrong("the host of the location has an @: write one in a password as %40")
    for name in given:
        if name not in OWN_OPTIONS + LIBPQ_OPTIONS:
            raise _wrong(f"unknown option {name!r}")
    own = {name: _checked(name, given.pop(name)) for name in OWN_OPTIONS if name in given}
    names = {"application_name": application_name(), "client_encoding": "utf8"}
    return Address(
        connect=_DEFAULTS | names | connect | given,
        schema=own.get("schema"),
        prefix=own.get("prefix", ""),
        pool_size=int(own.get("pool_size", 8)),
    )


def application_name() -> str:
    """Who we are to others who look at the server: by this a holder of locks is known."""
    return f"storebridge {os.getpid()} {socket.gethostname()}"[:63]


def owner_of(application: str) -> tuple[int, str] | None:
    """Process id and host out of an application name; None if it is not one of ours."""
    words = application.split(" ", 2)
    if len(words) != 3 or words[0] != "storebridge" or not words[1].isdecimal():
        return None
    return int(words[1]), words[2]


def _checked(name: str, text: str) -> str:
    pattern, accepted = PATTERNS[name]
    if not pattern.fullmatch(text):
        raise _wrong(f"option {name}={text!r}: accepted are {accepted}")
    return text


def _wrong(message: str) -> DriverError:
    return DriverError(ErrorKind.CONFIGURATION, message)
