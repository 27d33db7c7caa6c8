"""Whether a commit whose answer was lost took effect.

Each write transaction writes its token, an even number that grows, in the row of the process that
writes. Whoever did not hear of a commit asks for that row over another connection. If the token is
there, the transaction was committed. If it is not, the odd number behind it is put there: then the
transaction whose last words are still on their way somewhere in the network fails when they arrive,
and who has to ask again, as that answer may be lost, too, is told the same.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable

from storebridge.driver import DriverError, ErrorKind
from storebridge_sqlalchemy.link import Link
from storebridge_sqlalchemy.pool import Pool

_PATIENCE = 30.0
"""Seconds in which a server that was lost can come back and answer."""
_PAUSE = 0.1


class Tokens:
    """The tokens of one driver, in a table."""

    def __init__(self, table: str) -> None:
        self._numbers = itertools.count(2, 2)
        self.opener = uuid.uuid4().hex
        self.write = (
            f"INSERT INTO {table} AS c (opener, number) VALUES (%s, %s) ON CONFLICT (opener)"
            " DO UPDATE SET at = now(),"
            # Not null: fails, and the transaction with it, if the token was taken back.
            " number = CASE WHEN c.number < excluded.number THEN excluded.number END"
        )
        self._claim = f"INSERT INTO {table} VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING 1"
        self._look = f"SELECT number FROM {table} WHERE opener = %s FOR UPDATE"
        self._take_back = f"UPDATE {table} SET number = %s WHERE opener = %s"
        self._forget = f"DELETE FROM {table} WHERE opener = %s OR at < now() - interval '30 days'"

    def next(self) -> int:
        """A token for one more transaction."""
        return next(self._numbers)

    def was_committed(self, pool: Pool, token: int, lost: DriverError) -> bool:
        """Whether the transaction with the token took effect; if not, it never will.

        A transaction that is still going on is waited for. DriverError if that cannot be found
        out: the server does not come back.
        """
        return _patiently(lambda: self._ask(pool, token), lost)

    def forget(self, pool: Pool) -> None:
        """Take out the row of this driver, and those that the killed have left."""
        pool.ask(self._forget + " RETURNING 1", [self.opener])

    def _ask(self, pool: Pool, token: int) -> bool:
        lease = pool.take()
        try:
            found = self._ask_over(lease.link, token)
            lease.link.commit()
        except BaseException:
            if not lease.link.roll_back():
                lease.discard()
            raise
        finally:
            lease.give_back()
        return found

    def _ask_over(self, link: Link, token: int) -> bool:
        link.send("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE")
        # Waits for the transaction's end, if the server still has it.
        if link.ask(self._claim, [self.opener, token + 1]):
            return False
        ((found,),) = link.ask(self._look, [self.opener])
        if found < token:
            link.send(self._take_back, [token + 1, self.opener])
        return bool(found == token)


def _patiently(ask: Callable[[], bool], lost: DriverError) -> bool:
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            return ask()
        except DriverError as error:
            if time.monotonic() > give_up:
                raise DriverError(
                    ErrorKind.OTHER,
                    f"{lost}; whether the last transaction was kept is not known, look before you"
                    f" repeat it: {error}",
                    of_all=True,
                ) from lost
        time.sleep(_PAUSE)
