"""What a database says of itself, in one ordinary table: which stores it hosts, who has it open for
writing, named checkpoints, and up to where events were removed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from storebridge.canonical import encoder
from storebridge.driver import Field, Range, Rows, Table, Transaction
from storebridge.errors import CorruptStoreError
from storebridge.owner import Owner
from storebridge.spec import StoreLayout
from storebridge.times import rfc3339
from storebridge.transaction import Unit

LAYOUT = 1
"""The version of how storebridge lays out its tables. A change of it needs an upgrade."""

META = Table("storebridge-meta", key=(Field("name"),))
_STORE = "store "
_OPENER = "opener "
_CHECKPOINT = "checkpoint "
_HORIZON = "horizon "
_TRANSFER = "transfer"
INCOMPLETE = "storebridge incomplete"
"""A total that is not 0 while a database is being filled: damage to one mark must not hide both."""
_BACKUP = "backup"
_PAGE = 100


class Transfer(msgspec.Struct, frozen=True):
    """That a database is being filled from elsewhere and is no store before that is done."""

    what: str
    """The command that does it: `migrate`, `import` …"""
    source: str
    """From where, without a password."""
    owner: Owner
    """The process at work."""
    run: str = ""
    """Tells one process's attempts apart."""
    table: str = ""
    key: tuple[str | int, ...] = ()
    """How far it has come."""
    entries: int = 0
    verified: bool = False
    """Whether it holds everything, and only has to be put in its place."""
    unindexed: tuple[str, ...] = ()
    """The tables whose indexes are yet to be made, whatever is in them."""

    def __str__(self) -> str:
        at = " ".join([self.table, *map(repr, self.key)]) or "its beginning"
        return f"`storebridge {self.what}` from {self.source} is at {at} and not at its end"


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a named reader of events has come."""

    sequence: int
    at: str


class Backup(msgspec.Struct, frozen=True):
    """The last good backup."""

    sequence: int
    """The number of the last event in it."""
    at: str
    files: tuple[str, ...]


class Horizon(msgspec.Struct, frozen=True):
    """Up to where events of a store may have been removed: a reader behind it has missed some."""

    sequence: int
    at: str
    """When the youngest of the removed events happened."""


def read_layouts(transaction: Transaction) -> dict[str, StoreLayout]:
    """The stores that the database hosts. An entry that cannot be read hides its store, until the
    service that owns it declares it again; it must not keep the others from opening."""
    return {
        name: layout
        for name, body in _entries(transaction, _STORE)
        if (layout := _layout(name, body)) is not None
    }


def unreadable_layouts(transaction: Transaction) -> list[str]:
    """The names of entries about stores that cannot be read."""
    entries = _entries(transaction, _STORE)
    return [_STORE + name for name, body in entries if _layout(name, body) is None]


def _layout(name: str, body: bytes) -> StoreLayout | None:
    try:
        return msgspec.json.decode(body, type=StoreLayout)
    except (ValueError, RecursionError):
        return None


def stores_among(rows: Rows) -> dict[str, StoreLayout | None]:
    """The stores that these entries are about, by name; None for one that cannot be read."""
    names = {str(key[0]): body for key, body in rows}
    return {
        name.removeprefix(_STORE): _layout(name.removeprefix(_STORE), body)
        for name, body in names.items()
        if name.startswith(_STORE)
    }


def merge_layout(unit: Unit, layout: StoreLayout) -> StoreLayout:
    """Note a store, or the states that it has in addition. Returns what is noted."""
    body = unit.get(META.name, (_STORE + layout.name,))
    known = None if body is None else _layout(layout.name, body)
    if known is not None:
        layout = known.merged(layout)
    _put(unit, _STORE + layout.name, encoder.encode(layout))
    return layout


def read_openers(transaction: Transaction) -> dict[str, Owner]:
    """Processes that have written and not closed since, by the names of their marks."""
    return {_OPENER + name: _owner(body) for name, body in _entries(transaction, _OPENER)}


def _owner(body: bytes) -> Owner:
    try:
        return msgspec.json.decode(body, type=Owner)
    except (ValueError, RecursionError):
        return Owner(node_id=None, pid=0, boot_id="", started="")  # nobody who could be alive


def opener_name(owner: Owner) -> str:
    """The name of a process's mark: one each, so that the clean end of one never hides that another
    was killed."""
    return f"{_OPENER}{owner.pid} {owner.started} {owner.boot_id}"


def write_opener(unit: Unit, owner: Owner) -> None:
    """Mark the process as one that writes."""
    _put(unit, opener_name(owner), encoder.encode(owner))


def remove_entry(unit: Unit, name: str) -> None:
    """Take out an entry, if it is there."""
    body = unit.get(META.name, (name,))
    if body is not None:
        unit.remove(META.name, (name,), (), body)


def is_local(name: str) -> bool:
    """Whether an entry is about the database where it is alone, and not of what it holds."""
    return name in (_TRANSFER, _BACKUP) or name.startswith(_OPENER)


def read_transfer(transaction: Transaction) -> Transfer | None:
    """What the database is being filled by; None if it is whole."""
    body = transaction.get(META.name, (_TRANSFER,))
    if body is None and not transaction.totals(INCOMPLETE).get(INCOMPLETE):
        return None
    try:
        return msgspec.json.decode(body or b"", type=Transfer)
    except (ValueError, RecursionError):
        return Transfer(what="…", source="an unknown place", owner=_owner(b""))


def begin_transfer(unit: Unit, transfer: Transfer) -> None:
    """Mark a database as one that is being filled, before its first entry."""
    write_transfer(unit, transfer)
    _set_incomplete(unit, 1)


def write_transfer(unit: Unit, transfer: Transfer) -> None:
    """Note how far it has been filled."""
    _put(unit, _TRANSFER, encoder.encode(transfer))


def _set_incomplete(unit: Unit, value: int) -> None:
    stands = unit.engine.totals(INCOMPLETE).get(INCOMPLETE, 0)
    if stands != value:
        unit.engine.tally({INCOMPLETE: value - stands})


def remove_transfer(unit: Unit) -> None:
    """Declare it whole. What writers left that were killed on the way is known to be right."""
    remove_entry(unit, _TRANSFER)
    for name, owner in read_openers(unit.engine).items():
        if owner.is_alive() is False:
            remove_entry(unit, name)
    _set_incomplete(unit, 0)


def read_checkpoint(transaction: Transaction, name: str) -> Checkpoint | None:
    """A checkpoint by its name."""
    body = transaction.get(META.name, (_CHECKPOINT + name,))
    return None if body is None else _decode(name, body, Checkpoint)


def read_checkpoints(transaction: Transaction) -> dict[str, Checkpoint]:
    """All checkpoints by name."""
    return {
        name: _decode(name, body, Checkpoint) for name, body in _entries(transaction, _CHECKPOINT)
    }


def write_checkpoint(unit: Unit, name: str, sequence: int, at: datetime) -> None:
    """Set a checkpoint."""
    _put(unit, _CHECKPOINT + name, encoder.encode(Checkpoint(sequence, rfc3339(at))))


def remove_checkpoint(unit: Unit, name: str) -> None:
    """Forget a checkpoint, if it is there."""
    remove_entry(unit, _CHECKPOINT + name)


def read_horizon(transaction: Transaction, store: str) -> Horizon | None:
    """A store's horizon; None while all its events are there."""
    body = transaction.get(META.name, (_HORIZON + store,))
    return None if body is None else _decode(_HORIZON + store, body, Horizon)


def raise_horizon(unit: Unit, store: str, sequence: int, at: datetime) -> None:
    """Note that events up to this number were removed; a horizon never sinks."""
    known = read_horizon(unit.engine, store)
    horizon = Horizon(sequence, rfc3339(at))
    if known is not None:
        horizon = Horizon(max(sequence, known.sequence), max(horizon.at, known.at))
    _put(unit, _HORIZON + store, encoder.encode(horizon))


def read_backup(transaction: Transaction) -> Backup | None:
    """The last good backup; None if there never was one."""
    body = transaction.get(META.name, (_BACKUP,))
    return None if body is None else _decode(_BACKUP, body, Backup)


def write_backup(unit: Unit, sequence: int, files: tuple[str, ...], at: datetime) -> None:
    """Note a backup that was read again and is good."""
    _put(unit, _BACKUP, encoder.encode(Backup(sequence, rfc3339(at), files)))


def _put(unit: Unit, name: str, body: bytes) -> None:
    old = unit.get(META.name, (name,))
    if old is None:
        unit.insert(META.name, (name,), (), body)
    elif old != body:
        unit.replace(META.name, (name,), (), old, (), body)


def _entries(transaction: Transaction, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    after = None
    while True:
        rows, after = transaction.scan(
            META.name,
            Range(lower=prefix, upper=prefix[:-1] + "!", after=after, limit=_PAGE),
        )
        found += [(str(key[0])[len(prefix) :], body) for key, body in rows]
        if after is None:
            return found


def _decode(name: str, body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:
        raise CorruptStoreError(
            f"the database's own entry {name!r} cannot be read: {error}"
        ) from None
