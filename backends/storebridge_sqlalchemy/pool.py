"""A bounded number of connections, made when they are needed and used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import psycopg
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from storebridge.driver import DriverError, ErrorKind
from storebridge_sqlalchemy import uses
from storebridge_sqlalchemy.address import Address
from storebridge_sqlalchemy.errors import in_one_line, kind
from storebridge_sqlalchemy.link import Link

_SURE = (
    "CASE current_setting('synchronous_commit') WHEN 'off'"
    " THEN set_config('synchronous_commit', 'on', false) END"
)
_WHO = (
    "SELECT pid, extract(epoch FROM backend_start)::text, mark.oid::int8, mark.name"
    " FROM pg_stat_activity LEFT JOIN (SELECT c.oid,"
    " quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = coalesce(%s::text, current_schema()::text) AND c.relname = %s::text"
    ") AS mark ON true WHERE pid = pg_backend_pid()"
)
_LAYOUT = "SELECT max(layout) FROM {}"
_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = %s AND extract(epoch FROM backend_start)::text = %s"
)


class Lease:
    """A connection in use."""

    __slots__ = ("_pool", "_proxied", "link")

    def __init__(self, pool: Pool, proxied: PoolProxiedConnection) -> None:
        self._pool = pool
        self._proxied: PoolProxiedConnection | None = proxied
        self.link = cast(Link, proxied.dbapi_connection)

    def give_back(self) -> None:
        """Let others use the connection. After `discard`: no-op."""
        if self._proxied is not None:
            self._proxied.close()

    def discard(self) -> None:
        """Close the connection, since nobody knows what state it is in."""
        proxied, self._proxied = self._proxied, None
        if proxied is not None:
            self._pool.ghosts.append(self.link.session)
            proxied.invalidate()


class Pool:
    """Connections to one address. What an idle one has missed, such as a restart of the server, is
    noticed when it is taken, without a round trip.
    """

    def __init__(self, address: Address, timeout: float, settings: Mapping[str, str]) -> None:
        self._address = address
        self._timeout = timeout
        self._settings = settings
        self.layout: int | None = None
        """The one that the driver works with, once it knows."""
        self._mark: int | None = None
        """The table of ours that says the layout, as the server numbers it."""
        self.ghosts: list[tuple[int, str]] = []
        """Sessions that were left: the server may not know, and keep their locks."""
        self._pool = QueuePool(
            self._connect,  # type: ignore[arg-type]
            pool_size=address.pool_size,
            max_overflow=0,
            timeout=timeout,
            use_lifo=True,
            reset_on_return=None,
        )
        event.listen(self._pool, "checkout", _check_fit)

    def take(self) -> Lease:
        """A connection, as soon as one is free.

        DriverError of kind LOCKED if none is for too long; of any other kind where the server
        cannot be reached or refuses.
        """
        try:
            lease = Lease(self, self._pool.connect())
        except PoolTimeoutError:
            raise DriverError(
                ErrorKind.LOCKED,
                f"all {self._address.pool_size} connections were in use for"
                f" {self._timeout:g} s; raise pool_size, or read in shorter transactions",
            ) from None
        except InvalidRequestError as error:  # also the new connection is unfit already
            text = "cannot connect: the server ends what it has begun"
            raise DriverError(ErrorKind.OTHER, text) from error
        if self.ghosts:
            self._end_ghosts(lease)
        return lease

    def ask(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement on its own."""
        lease = self.take()
        try:
            return lease.link.single(sql, parameters)
        except DriverError:
            if not lease.link.roll_back():
                lease.discard()
            raise
        finally:
            lease.give_back()

    def _end_ghosts(self, lease: Lease) -> None:
        try:
            while ghosts := self.ghosts[:1]:
                with suppress(DriverError):  # who may not do that waits for the ghost's own end
                    lease.link.single(_TERMINATE, ghosts[0])
                if lease.link.lost:
                    raise DriverError(ErrorKind.OTHER, "the connection to the server was lost")
                with suppress(ValueError):  # another thread has done the same
                    self.ghosts.remove(ghosts[0])
        except BaseException:
            lease.discard()
            lease.give_back()
            raise

    def connect_apart(self) -> psycopg.Connection[Any]:
        """A connection that is not of the pool, each statement a transaction of its own."""
        return connect(self._address)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._pool.dispose()

    def _connect(self) -> Link:
        link = Link(self.connect_apart())
        try:
            calls = ["set_config(%s, %s, false)"] * len(self._settings)
            if "synchronous_commit" not in self._settings:
                calls.append(_SURE)
            values: list[Any] = [text for pair in self._settings.items() for text in pair]
            schema, prefix = self._address.schema, self._address.prefix
            if not uses.is_alone(self._address):
                calls.append(uses.SHARE)
                values += [schema, prefix]
            link.single(f"SELECT {', '.join(calls)}", values)
            asked = [schema, f"{prefix}storebridge_layout"]
            ((process, started, mark, name),) = link.single(_WHO, asked)
            link.session = (process, started)
            if mark is not None and mark != self._mark:
                self._require_layout(link, name)
                self._mark = mark
        except BaseException as error:
            link.close()
            if isinstance(error, DriverError) and error.kind is ErrorKind.LOCKED:
                raise self._locked() from error
            raise
        return link

    def _require_layout(self, link: Link, mark: str) -> None:
        """What was put in the place of the database, while no connection kept it from that, must
        not be taken for the one that was opened."""
        if self.layout is None:
            return
        ((layout,),) = link.single(_LAYOUT.format(mark))
        if layout not in (None, self.layout):
            raise DriverError(
                ErrorKind.OTHER,
                f"another process has brought it from layout {self.layout} to {layout}: close it,"
                " and open it with the storebridge of that layout",
            )

    def _locked(self) -> DriverError:
        connection = self.connect_apart()
        try:
            who, pid = uses.holder(
                lambda *asked: connection.execute(*asked).fetchall(), self._address
            )
        finally:
            connection.close()
        text = f"waited {self._timeout:g} s for {who}, which upgrades it"
        return DriverError(ErrorKind.LOCKED, text, holder=pid)


def connect(address: Address) -> psycopg.Connection[Any]:
    """A connection, each statement a transaction of its own."""
    try:
        return psycopg.connect(**address.connect, autocommit=True)
    except psycopg.Error as error:
        found = kind(error) or ErrorKind.OTHER
        said = f"cannot connect: {in_one_line(error)}"
        raise DriverError(found, said) from error


def _check_fit(link: Link, record: object, proxied: object) -> None:
    if not link.is_fit():
        raise DisconnectionError
