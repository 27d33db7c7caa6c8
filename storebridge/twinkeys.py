"""Things with two keys: the one that the hardware gives them, and the one that people do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from storebridge.database import Database
from storebridge.errors import KeyNotFoundError, RecordExistsError, RecordNotFoundError
from storebridge.keyspace import Key, id_of, key_of
from storebridge.limits import MAX_ID, check_text
from storebridge.record import Record
from storebridge.spec import RecordSpec
from storebridge.store import RecordStore

TwinKey = Key | list[str | int]
"""A hardware id; a list counts as the tuple."""


class Twin(Record, kw_only=True, tag=1):
    """A thing with its two keys, each of which no other has."""

    key: Key
    """Its hardware id."""
    alias: str | None = None
    """What it is called in programs."""
    display_name: str = ""
    """What it is called where people see it; need not be the only one."""


class TwinKeyStore:
    """Things found by either of two keys: hardware id, and alias.

    sensors = TwinKeyStore(database, "sensors")
    sensors.add((1, 5, 42), alias="environment_sensor_1", display_name="backyard shed sensor")
    sensors["environment_sensor_1"].key, sensors[1, 5, 42].display_name
    """

    def __init__(self, database: Database, name: str) -> None:
        """Make the store in the database if it is missing."""
        self.database = database
        self.name = name
        spec = RecordSpec(name=name, type=Twin, unique=("alias",), plural=f"{name}-twins")
        self._twins = RecordStore(database, spec)

    def add(self, key: TwinKey, alias: str, display_name: str = "") -> Twin:
        """Add a thing. RecordExistsError if either key is taken, be it as the other's kind."""
        record_id = _id(key)
        twin = Twin(
            id=record_id,
            key=key_of(record_id),
            alias=_checked(alias),
            display_name=display_name,
        )
        with self.database.transaction():
            self._check_key(twin)
            self._check_alias(alias, record_id)
            return self._twins.create(twin)

    def by_key(self, key: TwinKey) -> Twin:
        """The thing with a hardware id. KeyNotFoundError."""
        try:
            return self._twins.get(_id(key))
        except RecordNotFoundError:
            raise KeyNotFoundError(f"{self.name}: nothing has the hardware id {key!r}") from None

    def by_alias(self, alias: str) -> Twin:
        """The thing with an alias. KeyNotFoundError."""
        try:
            return self._twins.get_unique(alias=_checked(alias))
        except RecordNotFoundError:
            raise KeyNotFoundError(f"{self.name}: nothing has the alias {alias!r}") from None

    def __getitem__(self, either: TwinKey) -> Twin:
        """The thing with this hardware id or alias. KeyNotFoundError."""
        found = self.get(either)
        if found is None:
            raise KeyNotFoundError(f"{self.name}: nothing has the hardware id or alias {either!r}")
        return found

    def get(self, either: TwinKey) -> Twin | None:
        """The thing with this hardware id or alias, or None."""
        try:
            return self.by_key(either)
        except KeyNotFoundError:
            pass
        try:
            return self.by_alias(either) if isinstance(either, str) else None
        except KeyNotFoundError:
            return None

    def __contains__(self, either: TwinKey) -> bool:
        return self.get(either) is not None

    def __iter__(self) -> Iterator[Twin]:
        """All things in the order of their hardware ids."""
        return self._twins.each(sort="id")

    def __len__(self) -> int:
        return self._twins.count()

    def rename(self, alias: str, new: str) -> None:
        """Give a thing another alias. KeyNotFoundError, RecordExistsError."""
        self.rename_all({alias: new})

    def rename_all(self, aliases: Mapping[str, str]) -> None:
        """Give many things other aliases, at once: so `{"a": "b", "b": "a"}` swaps two."""
        with self.database.transaction():
            twins = {old: self.by_alias(old) for old in aliases}
            for old, twin in twins.items():
                if old in aliases.values():
                    self._twins.update(twin.id, alias=None)
            for old, new in aliases.items():
                self._check_alias(_checked(new), twins[old].id)
                self._twins.update(twins[old].id, alias=new)

    def set_display_name(self, either: TwinKey, display_name: str) -> None:
        """Call a thing something else where people see it. KeyNotFoundError."""
        with self.database.transaction():
            self._twins.update(self[either].id, display_name=display_name)

    def replace(self, either: TwinKey, key: TwinKey) -> Twin:
        """Let other hardware take a thing's place: alias and display name go over to it."""
        with self.database.transaction():
            old = self.remove(either)
            assert old.alias is not None
            return self.add(key, old.alias, old.display_name)

    def remove(self, either: TwinKey) -> Twin:
        """Remove a thing, and return it. KeyNotFoundError."""
        with self.database.transaction():
            found = self[either]
            self._twins.delete(found.id)
        return found

    # A text must not find one thing by its hardware id and another by its alias.

    def _check_key(self, twin: Twin) -> None:
        key = twin.key
        if self._has_id(twin.id):
            raise RecordExistsError(f"{self.name}: the hardware id {key!r} is taken")
        if isinstance(key, str) and key != twin.alias and self._has_alias(key):
            raise RecordExistsError(f"{self.name}: {key!r} is the alias of another")

    def _check_alias(self, alias: str, own_id: str) -> None:
        if id_of(alias) != own_id and self._has_id(id_of(alias)):
            raise RecordExistsError(f"{self.name}: {alias!r} is the hardware id of another")

    def _has_id(self, record_id: str) -> bool:
        return self.database.get(self.name, (record_id,)) is not None

    def _has_alias(self, alias: str) -> bool:
        try:
            self.by_alias(alias)
        except KeyNotFoundError:
            return False
        return True


def _id(key: Any) -> str:
    return id_of(tuple(key) if isinstance(key, list) else key)


def _checked(alias: Any) -> str:
    return check_text("alias", alias, MAX_ID)
