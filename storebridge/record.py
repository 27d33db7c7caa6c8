"""Records: typed objects, each encoded once as one line of canonical JSON, the body."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, inspect

from storebridge.canonical import canonical_raw, check_integers, encoder, reason
from storebridge.errors import (
    ConfigurationError,
    CorruptStoreError,
    InvalidRecordError,
    NewerRecordError,
)
from storebridge.times import EPOCH, rfc3339

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the members of a body of version n into those of version n + 1."""


class Record(msgspec.Struct, kw_only=True, tag_field="v", tag=1):
    """Base of everything that a store keeps. A class says its version by `tag=n`.

    The store sets the fields below; an `id` may be given, else the store makes one. Times are UTC.
    """

    id: str = ""
    revision: int = 0
    """Counts the changes of this record, from 1."""
    created_at: datetime = EPOCH
    modified_at: datetime = EPOCH


R = TypeVar("R", bound=Record)
_encode = encoder.encode
_EMPTY, _NULL = Raw(b"{}"), Raw(b"null")


class Codec(Generic[R]):
    """Bodies of one record type, and its versions.

    A body of an older version is upgraded when read and written in the new version. One of a newer
    version is read as far as this process understands it, and never written.
    """

    def __init__(self, record_type: type[R], upgrades: Mapping[int, Upgrade]) -> None:
        tag = record_type.__struct_config__.tag
        if type(tag) is not int or record_type.__struct_config__.tag_field != "v":
            raise ConfigurationError(f"{record_type.__name__}: give its version as tag=1")
        missing = [version for version in range(1, tag) if version not in upgrades]
        if missing:
            raise ConfigurationError(f"{record_type.__name__}: no upgrade from version {missing}")
        self.type = record_type
        self.version = tag
        self._upgrades = dict(upgrades)
        self.decode_current = msgspec.json.Decoder(record_type).decode
        """Decode a body of this very version; msgspec's errors for any other."""
        kinds = {field.name: field.type for field in _fields(record_type)}
        _check_members(record_type, kinds)
        self._raw_fields = tuple(n for n, kind in kinds.items() if type(kind) is inspect.RawType)
        self._times = tuple(n for n, kind in kinds.items() if _is_time(kind))
        self._more_times = tuple(n for n in self._times if n not in ("created_at", "modified_at"))
        within = {
            name
            for name, kind in kinds.items()
            if name not in self._times and inspect.DateTimeType in map(type, _parts(kind))
        }
        # Not for nothing: msgspec evaluates every annotation each time that it is asked for them.
        fields = msgspec.structs.fields(record_type) if within else ()
        self._times_within = {each.name: each.type for each in fields if each.name in within}

    def encode(self, record: R) -> bytes:
        """The body. The record's values are taken to be valid (see `validated`)."""
        if not record.created_at.microsecond or not record.modified_at.microsecond:
            return self._encode_whole_seconds(record)
        for name in self._more_times:
            time = getattr(record, name)
            if time is not None and not time.microsecond:
                return self._encode_whole_seconds(record)
        return _encode(record)

    def _encode_whole_seconds(self, record: R) -> bytes:
        # msgspec leaves out fractions that are zero, and then text no longer sorts as time does.
        members = [b'{"v":%d' % self.version]
        for name in record.__struct_fields__:
            value = getattr(record, name)
            if value is not None and name in self._times:
                value = rfc3339(value)
            members.append(b'"%s":%s' % (name.encode(), encoder.encode(value)))
        return b",".join(members) + b"}"

    def validated(self, record: R) -> tuple[R, bytes]:
        """A copy of the record that is sure to come back as it goes in, and its body.

        InvalidRecordError names the field that is of a wrong type or that JSON cannot hold.
        """
        self._normalise(record)
        try:
            body = self.encode(record)
            copy = self.decode_current(body)
            check_integers(body)
        except InvalidRecordError:
            raise
        except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise InvalidRecordError(self._blamed(record, error)) from None
        if copy != record:
            raise InvalidRecordError(self._difference(record, copy))
        return copy, body

    def _normalise(self, record: R) -> None:
        """Make JSON given as text canonical, and times UTC."""
        if type(record) is not self.type:
            raise InvalidRecordError(f"expected {self.type.__name__}, got {type(record).__name__}")
        for name in self._raw_fields:
            raw = getattr(record, name)
            if raw in (_EMPTY, _NULL):
                continue
            if not isinstance(raw, Raw | bytes):
                raise InvalidRecordError(f"{name}: expected JSON made by to_json()")
            try:
                setattr(record, name, Raw(canonical_raw(raw, integers=False)))
            except InvalidRecordError as error:
                raise InvalidRecordError(f"{name}: {error}") from None
        for name in self._more_times:
            time = getattr(record, name)
            if time is not None:
                setattr(record, name, _in_utc(name, time))
        for name, annotation in self._times_within.items():
            setattr(record, name, _within_in_utc(name, getattr(record, name), annotation))

    def _blamed(self, record: R, error: Exception) -> str:
        """What msgspec says, with the field that it is about where it does not name it."""
        for name in record.__struct_fields__:
            try:
                encoder.encode(getattr(record, name))
            except (TypeError, ValueError, ArithmeticError, RecursionError) as cause:
                return f"{name}: {reason(cause)}"
        for field in _fields(self.type):
            if isinstance(field.type, inspect.LiteralType):
                value, choices = getattr(record, field.name), field.type.values
                if value not in choices:
                    return f"{field.name}: {value!r} is none of {', '.join(map(str, choices))}"
        return f"{self.type.__name__}: {reason(error)}"

    def _difference(self, record: R, copy: R) -> str:
        for name in record.__struct_fields__:
            given, kept = getattr(record, name), getattr(copy, name)
            if given != kept:
                return f"{name}: {given!r} would come back as {kept!r}"
        return f"{self.type.__name__}: would not come back as it is"

    def decode(self, body: bytes) -> R:
        """The record, upgraded if need be. CorruptStoreError if the body cannot be read."""
        try:
            return self.decode_current(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._decode_other(body, writing=False)

    def decode_for_writing(self, body: bytes) -> R:
        """As `decode`, but NewerRecordError for a newer version."""
        try:
            return self.decode_current(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._decode_other(body, writing=True)

    def _decode_other(self, body: bytes, *, writing: bool) -> R:
        members, version = _members(body)
        if version > self.version and writing:
            raise NewerRecordError(
                f"record {members.get('id')!r} is of version {version}, this process writes version"
                f" {self.version}: upgrade the service"
            )
        try:
            for step in range(version, self.version):
                members = self._upgrades[step](members)
            members["v"] = self.version
            return (
                msgspec.convert(members, self.type)
                if not self._raw_fields
                else (self.decode_current(encoder.encode(members)))
            )
        except Exception as error:
            # An upgrade is the user's code: whatever it raises, this one record cannot be read.
            raise CorruptStoreError(f"the body cannot be read: {error}") from error


def _members(body: bytes) -> tuple[dict[str, Any], int]:
    try:
        members = msgspec.json.decode(body, type=dict[str, Any])
        version = members.get("v", 1)
        if type(version) is not int or version < 1:
            raise ValueError(f"version {version!r}")
    except (ValueError, RecursionError) as error:
        raise CorruptStoreError(f"the body cannot be read: {error}") from None
    return members, version


def _fields(record_type: type[Record]) -> tuple[inspect.Field, ...]:
    kind = inspect.type_info(record_type)
    assert isinstance(kind, inspect.StructType)
    return kind.fields


def _parts(kind: inspect.Type) -> list[inspect.Type]:
    """A type and the types of all that is in it, each once: a type may be in itself."""
    found: dict[int, inspect.Type] = {}
    waiting = [kind]
    while waiting:
        kind = waiting.pop()
        if id(kind) not in found:
            found[id(kind)] = kind
            waiting += _inner(kind)
    return list(found.values())


def _inner(kind: inspect.Type) -> Iterator[inspect.Type]:
    for name in kind.__struct_fields__:
        member = getattr(kind, name)
        for part in member if isinstance(member, tuple) else (member,):
            inner = part.type if isinstance(part, inspect.Field) else part
            if isinstance(inner, inspect.Type):
                yield inner


def _check_members(record_type: type[Record], kinds: Mapping[str, inspect.Type]) -> None:
    """ConfigurationError for what could never be stored: members of JSON are named by text."""
    for name, kind in kinds.items():
        for part in _parts(kind):
            if isinstance(part, inspect.DictType) and not _is_text(part.key_type):
                raise ConfigurationError(
                    f"{record_type.__name__}.{name}: keys are text in JSON: use dict[str, …]"
                )


def _is_text(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _is_text(kind.type)
    if isinstance(kind, inspect.LiteralType):
        return all(isinstance(value, str) for value in kind.values)
    if isinstance(kind, inspect.EnumType):
        return issubclass(kind.cls, str)
    return isinstance(kind, inspect.StrType | inspect.AnyType)


def _is_time(kind: inspect.Type) -> bool:
    """Whether it is a time, or a time or None."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    found = {type(one) for one in kinds}
    return inspect.DateTimeType in found and found <= {inspect.DateTimeType, inspect.NoneType}


def _in_utc(name: str, time: datetime) -> datetime:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise InvalidRecordError(f"{name}: expected a time with a zone, got {time!r}")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise InvalidRecordError(f"{name}: {time} is beyond the calendar in UTC") from None


def _within_in_utc(name: str, value: Any, annotation: Any) -> Any:
    """The value, all times in it in UTC."""
    try:
        plain = msgspec.to_builtins(value, builtin_types=(datetime,))
        return msgspec.convert(_walked(name, plain), annotation, builtin_types=(datetime,))
    except InvalidRecordError:
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InvalidRecordError(f"{name}: {reason(error)}") from None


def _walked(name: str, plain: Any) -> Any:
    if isinstance(plain, datetime):
        return _in_utc(name, plain)
    if isinstance(plain, dict):
        return {key: _walked(name, member) for key, member in plain.items()}
    if isinstance(plain, list | tuple | set | frozenset):
        return [_walked(name, item) for item in plain]
    return plain
