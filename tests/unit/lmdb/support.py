"""What the tests of the LMDB backend share."""

from __future__ import annotations

from collections.abc import Callable

from storebridge_lmdb.driver import LmdbDriver

from storebridge.driver import Field, Index, Range, Table

THING = Table(
    "thing",
    (Field("id"),),
    (Field("state"),),
    (Index("state", ("state", "id")),),
)
EVENT = Table("thing-history", (Field("sequence", "integer"),))

Open = Callable[..., LmdbDriver]


def put(driver: LmdbDriver, name: str, body: bytes = b"{}", state: str = "new") -> None:
    """Insert one thing in a transaction of its own."""
    transaction = driver.begin(True)
    try:
        assert transaction.insert("thing", (name,), (state,), body)
        transaction.commit()
    except BaseException:
        transaction.rollback()
        raise


def names(driver: LmdbDriver) -> list[str]:
    """The ids of all things, by their index."""
    transaction = driver.begin(False)
    try:
        rows, _ = transaction.scan("thing", Range("state", limit=1_000_000))
        return sorted(str(key[0]) for key, _ in rows)
    finally:
        transaction.rollback()
