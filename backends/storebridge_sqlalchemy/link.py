"""A connection to the server, and the few ways of talking over it.

All of it goes through libpq's pipeline mode: what needs no answer is sent with the next statement
that does, so that a transaction costs as many round trips as it has questions.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from storebridge.driver import DriverError, ErrorKind
from storebridge_sqlalchemy.errors import kind, one_line

Rows = list[tuple[Any, ...]]
_PREPARED = 500
"""Statements that are kept prepared on a connection: those of several stores."""


class Link:
    """A connection with two cursors: one for what needs no answer, so that a result that is not
    fetched never stands in for the one that is.

    Used by one thread at a time. Every error is a DriverError. An exception from elsewhere, as out
    of a signal handler, leaves it unfit: the rest of the answer that was awaited would be taken for
    the answer to the next question.
    """

    __slots__ = (
        *("_ask", "_busy", "_connection", "_context", "_early", "_failed", "_failures"),
        *("_pipeline", "_send", "session"),
    )

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self.session = (0, "")
        """By what the server knows it: process id and start."""
        # An integer's size would else be part of what makes a prepared statement another one.
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.prepared_max = _PREPARED
        self._send = connection.cursor()
        self._ask = connection.cursor()
        self._context = connection.pipeline()
        self._pipeline = self._context.__enter__()
        self._busy = False
        """Whether an answer is awaited."""
        self._failed = False
        """Whether something went wrong since all was in step: see `_forget_prepared`."""
        self._failures = 0
        self._early: DriverError | None = None
        """What went wrong with something sent, and is not told yet."""

    @property
    def lost(self) -> bool:
        """Whether the server is no longer at the other end."""
        return bool(self._connection.broken or self._connection.closed)

    def is_fit(self) -> bool:
        """Whether it can serve a new transaction: nothing is left over from the last one, and the
        server has not ended it. Costs no round trip.
        """
        connection = self._connection
        if self._busy or self._failed or connection.closed or not self._is_idle():
            return False
        # A server says nothing unasked, but that it ends the connection.
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        return not poll.poll(0)

    def single(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """The rows of a statement that is a transaction of its own, or ends one."""
        self._busy = True
        try:
            self._ask.execute(sql, parameters)
            self._pipeline.sync()
            rows = self._ask.fetchall() if self._ask.description else []
        except psycopg.Error as error:
            raise self._classified(error) from error
        self._busy = False
        return rows

    def send(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Have a statement executed. That it failed is told by the next `ask`, or by `commit`, also
        where the server's answer has come before: else whose statement is blamed would be a matter
        of chance.
        """
        if self._early is not None:
            return  # the server would not look at it
        try:
            self._send_now(sql, parameters)
        except DriverError as error:
            if self.lost:
                raise
            self._early = error

    def _send_now(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        self._busy = True
        try:
            self._send.execute(sql, parameters)
        except psycopg.Error as error:
            raise self._classified(error) from error
        self._busy = False

    def _tell_early(self) -> None:
        early, self._early = self._early, None
        if early is not None:
            raise early

    def send_all(self, statements: Iterable[str]) -> None:
        """Have several executed."""
        for statement in statements:
            self.send(statement)

    def ask(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """The rows of a statement: one round trip, with all that was sent before."""
        self._tell_early()
        self._busy = True
        try:
            self._ask.execute(sql, parameters)
            rows = self._ask.fetchall()
        except psycopg.Error as error:
            raise self._classified(error) from error
        self._busy = False
        return rows

    def commit(self, then: str | None = None) -> None:
        """Commit: one round trip, with all that was sent before. `then`: a statement behind it, of
        which nobody minds if it fails.
        """
        self.send("COMMIT")
        self._tell_early()
        self._busy = True
        try:
            if then is not None:
                self._ask.execute(then)
            self._pipeline.sync()
        except psycopg.Error as error:
            self._failed = True
            if self._send.statusmessage != "COMMIT":
                raise self._classified(error) from error
        self._busy = False
        if self._send.statusmessage != "COMMIT":
            self._failed = True
            raise DriverError(ErrorKind.OTHER, "the server did not commit")

    def roll_back(self) -> bool:
        """End the transaction without a trace. False: not even that could be done, so the
        connection must be closed, whereupon the server does it.
        """
        if self._busy or self.lost:
            return False
        self._early = None
        # After an error nothing is executed until all is in step again: then, once more.
        with suppress(DriverError):
            self._send_now("ROLLBACK")
        with suppress(DriverError):
            self._sync()
        if not self.lost and self._failed:
            self._forget_prepared()
        return not self.lost and not self._failed and self._is_idle()

    def close(self) -> None:
        """Close the connection, in the midst of whatever it is doing."""
        self._connection.close()
        # Else it would complain when it is collected.
        with suppress(psycopg.Error):
            self._context.__exit__(None, None, None)

    def _forget_prepared(self) -> None:
        """Roll back, and have psycopg forget which statements it has prepared: of those that came
        behind one that failed it believes so, and the server has never looked at them. Psycopg
        forgets them with a ROLLBACK whose text it has not met before.
        """
        self._failures += 1
        with suppress(DriverError):
            self.single(f"ROLLBACK /* after failure {self._failures} */")
            self._failed = False

    def _is_idle(self) -> bool:
        return self._connection.pgconn.transaction_status == TransactionStatus.IDLE

    def _sync(self) -> None:
        self._busy = True
        try:
            self._pipeline.sync()
        except psycopg.Error as error:
            raise self._classified(error) from error
        self._busy = False

    def _classified(self, error: psycopg.Error) -> DriverError:
        self._busy = False  # all of the answer has come
        self._failed = True
        found = kind(error) or ErrorKind.OTHER
        if self.lost:
            lost = f"the connection to the server was lost: {one_line(error)}"
            return DriverError(found, lost, of_all=True)
        return DriverError(found, one_line(error))
