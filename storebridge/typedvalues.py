"""Values that come back as what they went in: JSON, and tags for what JSON does not have.

Ordinary JSON stands as it is, members in their order. Everything else is an object of one member
whose name begins with `$`:

    {"$int": "0x1f…"}      an integer beyond 64 bits, in hexadecimal
    {"$float": "nan"}      nan, inf, -inf
    {"$bytes": "…"}        in base64
    {"$tuple": […]}
    {"$dict": [[k, v], …]} a dict with keys other than text, or with one that begins with `$`
    {"$datetime": "…"}     ISO 8601 with the offset, or none; in brackets the zone's name
    {"$date": "…"}  {"$time": "…"}  {"$timedelta": [days, seconds, microseconds]}

What is of no such type, down to subclasses of them, is refused: it would come back as another.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

import msgspec

from storebridge.canonical import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER, check_depth, reason
from storebridge.errors import InvalidRecordError

Path = tuple[object, ...]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_PLAIN = frozenset((str, bool, type(None)))
_DEEPEST = MAX_DEPTH - 1  # the body around a value is a level, too
_FOLD = "[fold]"


def dumps(value: Any) -> bytes:
    """The JSON of a value. InvalidRecordError, which says where, for what would not come back."""
    try:
        text = _encode(value if _is_plain(value) else _tagged(value, ()))
    except UnicodeEncodeError:
        raise InvalidRecordError("value: text with a lone surrogate") from None
    check_depth(text, _DEEPEST)
    return text


def loads(text: bytes) -> Any:
    """The value of such JSON. ValueError if it is none."""
    return from_plain(_decode(text), text)


def from_plain(plain: Any, text: bytes) -> Any:
    """The value of JSON that was decoded already, from a text that holds it. ValueError for a tag
    that there is not, or with something else in it than belongs there."""
    # Nearly no value has a tag, and only a text that starts with `$` looks like one in JSON.
    return _untagged(plain) if b'"$' in text else plain


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, types included: 1 is not True and not 1.0, 0.0 is not -0.0,
    but nan is nan. The order of a dict's members does not count."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is dict:
        if len(one) != len(other):
            return False
        keys = {key: key for key in other}
        return all(k in keys and same(k, keys[k]) and same(v, other[k]) for k, v in one.items())
    if kind is list or kind is tuple:
        return len(one) == len(other) and all(map(same, one, other))
    if kind is float or kind is datetime or kind is time:
        return dumps(one) == dumps(other)
    return bool(one == other)


# --- writing ---


def _is_plain(value: Any) -> bool:
    """Whether a value is ordinary JSON as it is, as nearly all are: quicker told than made."""
    kind = value.__class__
    if kind in _PLAIN:
        return True
    if kind is int:
        return bool(MIN_INTEGER <= value <= MAX_INTEGER)
    if kind is float:
        return math.isfinite(value)
    try:
        if kind is dict:
            for key, member in value.items():
                if key.__class__ is not str or key[:1] == "$":
                    return False
                if member.__class__ not in _PLAIN and not _is_plain(member):
                    return False
            return True
        return kind is list and all(map(_is_plain, value))
    except RecursionError:
        return False


def _tagged(value: Any, path: Path) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    tagged = _TAGGED.get(kind)
    if tagged is None:
        raise _refusal(path, f"{kind.__name__} is none of the types that come back as they are")
    if len(path) > MAX_DEPTH:
        raise InvalidRecordError(f"value: nested too deeply, over {_DEEPEST} levels")
    return tagged(value, path)


def _int(value: int, path: Path) -> Any:
    # In hexadecimal, because Python limits the digits of decimals.
    return value if MIN_INTEGER <= value <= MAX_INTEGER else {"$int": hex(value)}


def _float(value: float, path: Path) -> Any:
    return value if math.isfinite(value) else {"$float": repr(value)}


def _bytes(value: bytes, path: Path) -> Any:
    return {"$bytes": base64.b64encode(value).decode()}


def _list(value: list[Any], path: Path) -> Any:
    return [_tagged(item, (*path, place)) for place, item in enumerate(value)]


def _tuple(value: tuple[Any, ...], path: Path) -> Any:
    return {"$tuple": [_tagged(item, (*path, place)) for place, item in enumerate(value)]}


def _dict(value: dict[Any, Any], path: Path) -> Any:
    if all(type(key) is str and key[:1] != "$" for key in value):
        return {key: _tagged(member, (*path, key)) for key, member in value.items()}
    return {
        "$dict": [
            [_tagged(key, (*path, key)), _tagged(member, (*path, key))]
            for key, member in value.items()
        ]
    }


def _datetime(value: datetime, path: Path) -> Any:
    return {"$datetime": value.isoformat() + _zone(value, path)}


def _time(value: time, path: Path) -> Any:
    return {"$time": value.isoformat() + _zone(value, path)}


def _zone(value: datetime | time, path: Path) -> str:
    """What the ISO format leaves out, each in brackets: a zone's name, and the second time round of
    an hour that comes twice."""
    fold = _FOLD if value.fold else ""
    zone = value.tzinfo
    if zone is None or type(zone) is timezone:
        return fold
    name = getattr(zone, "key", None)
    if type(zone).__module__.partition(".")[0] != "zoneinfo" or not name or type(value) is time:
        raise _refusal(path, f"a {type(value).__name__} in {zone!r}: give it an offset")
    return f"[{name}]{fold}"


def _date(value: date, path: Path) -> Any:
    return {"$date": value.isoformat()}


def _timedelta(value: timedelta, path: Path) -> Any:
    return {"$timedelta": [value.days, value.seconds, value.microseconds]}


def _refusal(path: Path, what: str) -> InvalidRecordError:
    where = "".join(f"[{step!r:.40}]" for step in path[:8])
    return InvalidRecordError(f"value{where}: {what}")


_TAGGED: dict[type, Callable[[Any, Path], Any]] = {
    int: _int,
    float: _float,
    bytes: _bytes,
    list: _list,
    tuple: _tuple,
    dict: _dict,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
}


# --- reading ---


def _untagged(plain: Any) -> Any:
    kind = type(plain)
    if kind is list:
        return [_untagged(item) for item in plain]
    if kind is not dict:
        return plain
    if not any(name[:1] == "$" for name in plain):
        return {name: _untagged(member) for name, member in plain.items()}
    name, content = next(iter(plain.items()))
    untag = _UNTAGGED.get(name)
    if untag is None or len(plain) > 1:
        raise ValueError(f"no tag: {', '.join(plain)}")
    try:
        return untag(content)
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"{name}: {reason(error)}") from None


def _int_of(text: str) -> int:
    return int(text, 16)


def _float_of(text: str) -> float:
    return float({"nan": "nan", "inf": "inf", "-inf": "-inf"}.get(text, "no such float"))


def _bytes_of(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _tuple_of(items: list[Any]) -> tuple[Any, ...]:
    return tuple(_untagged(item) for item in _as_list(items))


def _dict_of(pairs: list[list[Any]]) -> dict[Any, Any]:
    found = {_untagged(key): _untagged(member) for key, member in _as_list(pairs)}
    if len(found) != len(pairs):
        raise ValueError("a key is named twice")
    return found


def _datetime_of(text: str) -> datetime:
    text, zone, fold = _parts(text)
    found = datetime.fromisoformat(text).replace(fold=fold)
    return _in_zone(found, zone) if zone else found


def _parts(text: str) -> tuple[str, str, int]:
    """The ISO format, the zone's name, and the fold."""
    fold = text.endswith(_FOLD)
    text, _, zone = text.removesuffix(_FOLD).partition("[")
    return text, zone.removesuffix("]"), int(fold)


def _in_zone(found: datetime, name: str) -> datetime:
    """In the zone of this name, if its rules are here and still say the same of that time; else
    with the offset alone, which is the same moment."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        local = found.replace(tzinfo=ZoneInfo(name))
    except (ZoneInfoNotFoundError, OSError):
        return found
    return local if local.utcoffset() == found.utcoffset() else found


def _time_of(text: str) -> time:
    text, zone, fold = _parts(text)
    return time.fromisoformat(text + zone).replace(fold=fold)


def _timedelta_of(parts: list[int]) -> timedelta:
    days, seconds, microseconds = _as_list(parts)
    return timedelta(days=days, seconds=seconds, microseconds=microseconds)


def _as_list(content: Any) -> list[Any]:
    if type(content) is not list:
        raise ValueError("expected an array")
    return content


_UNTAGGED: dict[str, Callable[[Any], Any]] = {
    "$int": _int_of,
    "$float": _float_of,
    "$bytes": _bytes_of,
    "$tuple": _tuple_of,
    "$dict": _dict_of,
    "$datetime": _datetime_of,
    "$date": date.fromisoformat,
    "$time": _time_of,
    "$timedelta": _timedelta_of,
}
