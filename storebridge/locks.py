"""Locks in a database: of all the threads, processes and machines that use it, one holds each."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from threading import RLock, get_ident
from types import TracebackType
from typing import Any, Self

from storebridge.database import Database
from storebridge.errors import (
    ConflictError,
    InvalidRecordError,
    RecordExistsError,
    RecordNotFoundError,
    StorebridgeError,
    StoreLockedError,
    TransactionError,
)
from storebridge.expect import Expect
from storebridge.keyspace import Key, key_of
from storebridge.leases import LeasedStore, lease_end, standing_of
from storebridge.machine import StateMachine
from storebridge.owner import Owner, this_process, unnamed_node
from storebridge.record import Record
from storebridge.spec import RecordSpec
from storebridge.times import Seconds, duration

logger = logging.getLogger("storebridge")
FREE, HELD = "Free", "Held"
LOCK_STATES = StateMachine({FREE: (HELD,), HELD: (HELD, FREE)})
_SHORTEST_SLEEP, _LONGEST_SLEEP = 0.002, 0.02

Place = tuple[int, str, str]
"""Where a lock is: database, store, id."""


class _Claim:
    """That a thread, or a task, of this process has taken a lock, or is about to."""

    __slots__ = ("left", "token", "who")

    def __init__(self, token: int, who: object) -> None:
        self.who = who
        self.token = token
        self.left = False
        """Whether it could not be given back: then it is for who wants it next in this process."""


_claims: dict[Place, _Claim] = {}
_mutex = RLock()
"""For the claims: those that are given up are told from those that were made since."""


def _forget_all() -> None:
    global _mutex
    _mutex = RLock()
    _claims.clear()


os.register_at_fork(after_in_child=_forget_all)


class LockRecord(Record, kw_only=True, tag=1):
    """A lock as it is stored. It stays when it is free: so its revision counts on."""

    key: Key
    state: str = ""
    owner: Owner | None = None
    lease_until: datetime | None = None
    token: int = 0
    """The revision at which it was taken."""


class LockStore(LeasedStore[LockRecord]):
    """The locks of a key-value store."""

    def __init__(self, database: Database, name: str) -> None:
        super().__init__(
            database,
            RecordSpec(
                name=f"{name}-lock",
                type=LockRecord,
                machine=LOCK_STATES,
                filters=("state",),
                plural=f"{name}-locks",
            ),
        )

    def look(self, lock_id: str) -> LockRecord | None:
        """The lock; None if it was never taken."""
        try:
            return self.get(lock_id)
        except RecordNotFoundError:
            return None

    def held(self) -> Iterator[LockRecord]:
        """The locks that somebody has taken and not given back, be he gone since or not."""
        return self.each(state=HELD)

    def free(self, lock_id: str, expect: Expect | None = None) -> None:
        """Give a lock back, whoever holds it."""
        self.set_state(lock_id, FREE, owner=None, lease_until=None, expect=expect)


class Lock:
    """A lock, made by `KeyValueStore.lock`; for one thread.

    It is free again as soon as its holder gives it back, or ends in whatever way. A holder on
    another machine cannot be seen: there it is free when its lease has run out. Waiting is asking
    again and again at short, random intervals, in no order.
    """

    _loose = False
    """Whether it is to be given back when the object goes: from `with` on, until its end."""
    _asks: Callable[[], object] = staticmethod(get_ident)
    """Says who wants it: none waits for itself."""

    def __init__(
        self,
        locks: LockStore,
        key: Key,
        lock_id: str,
        owner: Owner | None,
        lease: Seconds | None,
        timeout: float | None,
    ) -> None:
        self.key = key
        self.owner = this_process(unnamed_node()) if owner is None else owner
        self.lease = None if lease is None else duration("lease", lease)
        self._timeout = _checked(timeout, locks.database.location.options.lock_timeout)
        self._locks = locks
        self._id = lock_id
        self._claim: _Claim | None = None
        self._place: Place = (id(locks.database), locks.spec.name, lock_id)

    @property
    def token(self) -> int | None:
        """Greater than those of all who held the lock before: let a device refuse lesser ones than
        it has seen, and one who lost the lock without noticing cannot disturb. None: not taken."""
        return None if self._claim is None else self._claim.token

    @property
    def held(self) -> bool:
        """Whether this still holds it, asked of the database; in a transaction true until its end.

        One whose lease has run out holds it until somebody else has taken it.
        """
        return self._claim is not None and self._is_mine(self._locks.look(self._id))

    def acquire(self, timeout: float | None = None) -> int:
        """Wait for the lock and take it; returns the token. `timeout` in seconds, 0 to ask once.

        StoreLockedError, which names the holder, if it cannot be had in that time, or at once if
        this thread has it already.
        """
        self._prepare()
        deadline = time.monotonic() + self._patience(timeout)
        try:
            while (refusal := self._try()) is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise refusal
                time.sleep(min(left, random.uniform(_SHORTEST_SLEEP, _LONGEST_SLEEP)))
        except BaseException:
            self._give_up()
            raise
        assert self._claim is not None
        return self._claim.token

    def _patience(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else _checked(timeout, 0)

    def _prepare(self) -> None:
        """Before it is taken: refuse where it cannot be, or this has it."""
        if self._locks.database.in_transaction:
            raise TransactionError(
                f"{self._name}: cannot be taken in a transaction, at whose end others would see it"
            )
        if self._claim is not None and self._claim.left:
            self._claim = None  # but still among those of the process, which may have it again
        elif self.held:
            raise self._taken_twice()
        self._forget()

    def _try_once(self) -> StoreLockedError | None:
        """Take it if it can be had, else say why not: for who waits in another way."""
        try:
            return self._try()
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Give it back after an exception out of a signal handler, which can strike when it is
        taken and nobody knows yet; in the middle of a transaction, as soon as that is undone."""
        self._loose = self._locks.database.in_transaction
        if self._claim is None or self._loose:
            return
        try:
            self.release()
        except ConflictError:
            pass  # it was not taken after all, or is lost
        except StorebridgeError as error:
            self._leave()
            logger.warning("%s: could not be given back: %s", self._name, error)

    def _leave(self) -> None:
        """Nobody knows any more that it is held: let the next one of this process have it."""
        self._loose = False
        if self._claim is not None:
            self._claim.left = True

    def _try(self) -> StoreLockedError | None:
        """Take it if it can be had; else say why not."""
        refusal = self._refusal(self._locks.look(self._id))
        if refusal is not None:
            return refusal
        try:
            with self._locks.database.transaction():
                found = self._locks.look(self._id)
                refusal = self._refusal(found)
                if refusal is not None:
                    return refusal
                self._take(found)
        except (ConflictError, RecordExistsError):
            self._forget()
            return StoreLockedError(f"{self._name}: others take it all the time: try again")
        return None

    def _refusal(self, found: LockRecord | None) -> StoreLockedError | None:
        if found is None or found.owner is None:
            return None
        claim = _claims.get(self._place)
        if claim is not None and (found.owner, found.token) == (self.owner, claim.token):
            if claim.left:
                return None
            if claim.who == self._asks():
                raise StoreLockedError(
                    f"{self._name}: this thread holds it already, and would wait for itself",
                    os.getpid(),
                )
        standing = standing_of(found, self.owner.node_id, self._locks.database.clock())
        if standing.kind in ("free", "gone"):
            return None
        return StoreLockedError(f"{self._name}: is held: {standing.reason}", found.owner.pid)

    def _taken_twice(self) -> StoreLockedError:
        return StoreLockedError(f"{self._name}: would wait for itself: it has it", os.getpid())

    def _take(self, found: LockRecord | None) -> None:
        token = 1 if found is None else found.revision + 1
        with _mutex:
            self._claim = _claims[self._place] = _Claim(token, self._asks())
        clock = self._locks.database.clock
        holder: dict[str, Any] = {
            "owner": self.owner,
            "lease_until": None if self.lease is None else lease_end(clock, self.lease),
            "token": token,
        }
        if found is None:
            self._locks.create(LockRecord(id=self._id, key=key_of(self._id), state=HELD, **holder))
        else:
            expect = Expect(revision=found.revision)
            self._locks.set_state(self._id, HELD, expect=expect, **holder)

    def renew(self, lease: Seconds | None = None) -> None:
        """Extend the lease from now, by as much as it was taken for, or by `lease` seconds.

        ConflictError if this does not hold the lock any more.
        """
        given = self.lease if lease is None else duration("lease", lease)
        if given is None:
            raise InvalidRecordError(f"{self._name}: was taken without a lease: give one")
        with self._locks.database.transaction():
            self._check_mine()
            self._locks.heartbeat(self._id, self.owner, given)

    def release(self) -> None:
        """Give it back. ConflictError if this does not hold it, or not any more.

        If it cannot be stored, such as on a full disk, that is the error, and the lock is still
        held: repeat it. After a `with` block whoever wants it next in this process has it.
        """
        with self._locks.database.transaction():
            found = self._check_mine()
            self._locks.free(self._id, Expect(revision=found.revision))
        self._forget()

    def _check_mine(self) -> LockRecord:
        found = self._locks.look(self._id)
        if found is not None and self._is_mine(found):
            return found
        if self._claim is None:
            raise ConflictError(f"{self._name}: is not held by this", found)
        by = found.owner if found is not None and found.owner is not None else "nobody"
        self._forget()
        raise ConflictError(f"{self._name}: was lost, and is held by {by} now", found)

    def _is_mine(self, found: LockRecord | None) -> bool:
        # Of two threads of a process one may have failed to take it, and the other has its token.
        claim = self._claim
        if found is None or claim is None or _claims.get(self._place) is not claim:
            return False
        return (found.owner, found.token) == (self.owner, claim.token)

    def _forget(self) -> None:
        with _mutex:
            if self._claim is not None and _claims.get(self._place) is self._claim:
                del _claims[self._place]
        self._claim = None

    @property
    def _name(self) -> str:
        return f"{self._locks.spec.name} {self.key!r}"

    def __enter__(self) -> Self:
        before = self._claim
        self._loose = True
        try:
            self.acquire()
        except BaseException:
            if self._claim is not before:
                self._give_up()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.release()
        except ConflictError as lost:
            if error is None:
                raise
            logger.warning("%s", lost)
        except StorebridgeError:
            self._leave()
            raise
        except BaseException:
            self._give_up()
            raise
        self._loose = False

    def __del__(self) -> None:
        # An exception out of a signal handler can strike before the first step of `__exit__`.
        if self._loose:
            self._give_up()


def _checked(timeout: float | None, default: float) -> float:
    if timeout is None:
        return default
    if type(timeout) not in (int, float) or not timeout >= 0:
        raise InvalidRecordError(f"timeout: expected seconds, 0 or more, got {timeout!r:.60}")
    return timeout
