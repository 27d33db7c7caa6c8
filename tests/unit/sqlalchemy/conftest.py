"""Databases on a server: drivers that know nothing of each other, as on two machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from storebridge_sqlalchemy import backend

from storebridge.driver import Driver, Options
from storebridge.testing.samples import LAYOUT, TABLES
from tests.postgres_server import Database

Open = Callable[..., Driver]


@pytest.fixture
def target(postgresql: Database) -> str:
    """A new, empty database."""
    return postgresql.target()


@pytest.fixture
def opened(target: str) -> Iterator[Open]:
    """Opens the database anew with every call: `opened(lock_timeout=1)`."""
    with ExitStack() as stack:

        def opened(at: str = target, **options: object) -> Driver:
            chosen = Options(**{"durability": "off", "lock_timeout": 20.0, **options})  # type: ignore[arg-type]
            driver = backend.open(at, chosen)
            stack.callback(driver.close)
            if not chosen.read_only:
                driver.create_tables(TABLES, LAYOUT)
            return driver

        yield opened


@pytest.fixture
def schema(target: str) -> str:
    """The schema that the target is."""
    return target.rpartition("=")[2]


@pytest.fixture
def sql(postgresql: Database) -> Iterator[psycopg.Connection]:
    """A plain connection to the server, as its administrator."""
    with postgresql.connect() as connection:
        yield connection


@pytest.fixture
def role(sql: psycopg.Connection, schema: str) -> Iterator[str]:
    """A user without any right."""
    name = f"role_{schema}"
    sql.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    sql.execute(f"DROP OWNED BY {name}")
    sql.execute(f"DROP ROLE {name}")
