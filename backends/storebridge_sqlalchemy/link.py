"""A connection to the server, and the few ways of talking over it.

Statements of a transaction go through libpq's pipeline mode: what needs no answer is sent with the
next one that does, so that a transaction costs as many round trips as it has questions.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
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

    Used by one thread at a time. Every error is a DriverError.
    """

    __slots__ = ("_ask", "_busy", "_connection", "_pipeline", "_send", "session")

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self.session = (0, "")
        """By what the server knows it: process id and start."""
        # An integer's size would else be part of what makes a prepared statement another one.
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.prepared_max = _PREPARED
        self._send = connection.cursor()
        self._ask = connection.cursor()
        self._pipeline: AbstractContextManager[object] | None = None
        self._busy = False
        """Set while an answer is awaited: an exception from elsewhere may have struck in between,
        and the rest of the answer would be taken for that to the next question."""

    @property
    def lost(self) -> bool:
        """Whether the server is no longer at the other end."""
        return bool(self._connection.broken or self._connection.closed)

    @property
    def info(self) -> psycopg.ConnectionInfo:
        """What psycopg knows of the connection."""
        return self._connection.info

    def is_fit(self) -> bool:
        """Whether it can serve a new transaction: nothing is left over from the last one, and the
        server has not ended it. Costs no round trip.
        """
        connection = self._connection
        if self._busy or self._pipeline is not None or connection.closed:
            return False
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            return False
        # A server says nothing unasked, but that it ends the connection.
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        return not poll.poll(0)

    def single(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """The rows of a statement that is a transaction of its own."""
        self._busy = True
        try:
            self._ask.execute(sql, parameters)
            rows = self._ask.fetchall() if self._ask.description else []
        except psycopg.Error as error:
            self._busy = False
            raise self._classified(error) from error
        self._busy = False
        return rows

    def script(self, sql: str) -> None:
        """Execute statements that need neither parameters nor an answer: one round trip."""
        self._busy = True
        try:
            self._ask.execute(sql)
        except psycopg.Error as error:
            self._busy = False
            raise self._classified(error) from error
        self._busy = False

    def begin(self, *statements: str) -> None:
        """Go over to pipeline mode, and send the statements that begin a transaction."""
        self._pipeline = self._connection.pipeline()
        self._pipeline.__enter__()
        for statement in statements:
            self.send(statement)

    def send(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Have a statement executed. That it failed is told by the next `ask`, or by `finish`."""
        self._busy = True
        try:
            self._send.execute(sql, parameters)
        except psycopg.Error as error:
            self._busy = False
            raise self._classified(error) from error
        self._busy = False

    def ask(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """The rows of a statement: one round trip, with all that was sent before."""
        self._busy = True
        try:
            self._ask.execute(sql, parameters)
            rows = self._ask.fetchall()
        except psycopg.Error as error:
            self._busy = False
            raise self._classified(error) from error
        self._busy = False
        return rows

    def commit(self) -> None:
        """Commit, and leave pipeline mode: one round trip."""
        self.send("COMMIT")
        self._leave()
        if self._connection.pgconn.transaction_status != TransactionStatus.IDLE:
            raise DriverError(ErrorKind.OTHER, "the server did not commit")

    def roll_back(self) -> bool:
        """End the transaction without a trace. False: not even that could be done, so the
        connection must be closed, whereupon the server does it.
        """
        if self._busy or self.lost:
            return False
        try:
            if self._pipeline is not None:
                self._leave_after_rollback()
            if self._connection.pgconn.transaction_status != TransactionStatus.IDLE:
                self.single("ROLLBACK")
        except (psycopg.Error, DriverError):
            return False
        return True

    def close(self) -> None:
        """Close the connection, in the midst of whatever it is doing."""
        self._connection.close()
        if self._pipeline is not None:
            # Else it would complain when it is collected.
            with suppress(DriverError):
                self._leave()

    def _leave_after_rollback(self) -> None:
        # After an error the pipeline executes nothing: then it is rolled back outside of it.
        try:
            self.send("ROLLBACK")
            self._leave()
        except DriverError:
            if self._pipeline is not None:
                self._leave()

    def _leave(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        assert pipeline is not None
        self._busy = True
        try:
            pipeline.__exit__(None, None, None)
        except psycopg.Error as error:
            self._busy = False
            raise self._classified(error) from error
        self._busy = False

    def _classified(self, error: psycopg.Error) -> DriverError:
        found = kind(error) or ErrorKind.OTHER
        if self.lost:
            return DriverError(found, f"the connection to the server was lost: {one_line(error)}")
        return DriverError(found, one_line(error))
