"""Keys of a key-value store as ids of records: text, integers and tuples of them, all distinct.

A text is itself. What begins with `#` is something else:

    "gpio-17"     gpio-17
    "#1"          ##1             a text that begins with `#`
    17, -17       #b17, #Y82      a letter that says how many digits there are, and the digits
    ("led", 17)   #('led#b17#     each element with a mark behind it, a text with one before it

So ids are in the order of their keys: texts by code point, integers by value, tuples element by
element; and those of all texts, or tuples, that begin in some way are next to each other. Within a
tuple every character of a text up to `$` is written `$hh`: behind an element comes `#`, which must
be before whatever goes on. Of a negative integer the digits are subtracted from 9.
"""

from __future__ import annotations

import re
from typing import Any

from storebridge.canonical import MAX_INTEGER, MIN_INTEGER
from storebridge.errors import InvalidQueryError, InvalidRecordError
from storebridge.limits import MAX_ID, check_integer, check_text
from storebridge.query import prefix_bounds

Key = str | int | tuple[str | int, ...]
Bounds = tuple[str | None, str | None]

_MARK, _TUPLE, _TEXT = "#", "#(", "'"
_SHORT = MAX_ID // 3
_escaped = re.compile("[\x01-$]").sub
_escape = re.compile(r"\$([0-9a-f]{2})").sub
_COMPLEMENT = str.maketrans("0123456789", "9876543210")


def id_of(key: Any) -> str:
    """The id of a key. InvalidRecordError for what can be none: of another type (bool, too), empty,
    with NUL or a lone surrogate, an integer beyond 64 bits, or longer than an id may be."""
    # Nearly all keys are short and plain text; others are looked at more closely.
    if key.__class__ is str and 0 < len(key) <= _SHORT and key.isascii() and key.isprintable():
        return key if key[0] != "#" else _MARK + key
    if isinstance(key, str):
        text = check_text("key", key, MAX_ID)
        return text if text[0] != _MARK else _checked(_MARK + text)
    if type(key) is int:
        return _MARK + _of_integer(key)
    if type(key) is tuple and key:
        return _checked(_of_tuple(key))
    raise InvalidRecordError(
        f"key: expected text, a whole number or a tuple of them, not empty; got {key!r:.60}"
    )


def key_of(record_id: str) -> Key:
    """The key of an id. ValueError if it is none of a key's."""
    if record_id[0] != _MARK:
        return record_id
    if record_id.startswith("##"):
        return record_id[1:]
    if not record_id.startswith(_TUPLE):
        return _to_integer(record_id[1:])
    if not record_id.endswith(_MARK):
        raise ValueError(f"no key has the id {record_id!r}")
    elements = record_id[len(_TUPLE) : -1].split(_MARK)
    return tuple(_to_text(e[1:]) if e[:1] == _TEXT else _to_integer(e) for e in elements)


def bounds_of(prefix: Any) -> Bounds:
    """From where (inclusive) to where (exclusive) the ids of all keys are that begin with a text,
    or with the elements of a tuple; without a prefix, or an empty text, those of all keys.
    InvalidQueryError for what can be no prefix."""
    try:
        if isinstance(prefix, str) and prefix:
            check_text("prefix", prefix, MAX_ID)
            return prefix_bounds(_MARK + prefix if prefix[0] == _MARK else prefix)
        if type(prefix) is tuple:
            return prefix_bounds(_of_tuple(prefix))
    except InvalidRecordError as error:
        raise InvalidQueryError(str(error)) from None
    if prefix is None or prefix == "":
        return None, None
    raise InvalidQueryError(f"prefix: expected text or a tuple, got {prefix!r:.60}")


def _checked(record_id: str) -> str:
    return check_text("key", record_id, MAX_ID)


def _of_tuple(key: tuple[Any, ...]) -> str:
    return _TUPLE + "".join(f"{_of_element(element)}{_MARK}" for element in key)


def _of_element(element: Any) -> str:
    if type(element) is int:
        return _of_integer(element)
    if not isinstance(element, str):
        raise InvalidRecordError(
            f"key: expected text and whole numbers in a tuple, got {element!r:.60}"
        )
    if "\0" in element:
        raise InvalidRecordError("key: must not contain NUL")
    return _TEXT + _escaped(lambda match: f"${ord(match[0]):02x}", str.__str__(element))


def _to_text(escaped: str) -> str:
    return _escape(lambda match: chr(int(match[1], 16)), escaped)


def _of_integer(number: int) -> str:
    digits = str(abs(check_integer("key", number)))
    if number < 0:
        return chr(ord("Z") + 1 - len(digits)) + digits.translate(_COMPLEMENT)
    return chr(ord("a") - 1 + len(digits)) + digits


def _to_integer(text: str) -> int:
    letter, digits = text[:1], text[1:]
    positive = letter.islower()
    number = int(digits if positive else "-" + digits.translate(_COMPLEMENT))
    if not MIN_INTEGER <= number <= MAX_INTEGER or _of_integer(number) != text:
        raise ValueError(f"no key has an element {text!r} in its id")
    return number


class Keyspace:
    """The keys of a store; with a header, those below it: `key` stands for `(header, key)`."""

    def __init__(self, header: Key | None) -> None:
        self._header: tuple[str | int, ...] = ()
        if header is not None:
            self._header = header if isinstance(header, tuple) else (header,)
        self.id_of = id_of
        if self._header:
            _checked(_of_tuple(self._header))
            self.id_of = self._id_below

    @property
    def header(self) -> tuple[str | int, ...]:
        """The elements that every key begins with; none without a header."""
        return self._header

    def _id_below(self, key: Any) -> str:
        if type(key) is not tuple:
            return id_of((*self._header, key))
        if len(key) == 1:
            raise InvalidRecordError(f"key: below a header, give {key[0]!r:.60} without a tuple")
        return id_of((*self._header, *key))

    def key_of(self, record_id: str) -> Key:
        """The key of an id. ValueError if it is none of a key's."""
        key = key_of(record_id)
        return below(self._header, key) if self._header and type(key) is tuple else key

    def holds(self, record_id: str) -> bool:
        """Whether an id is that of one of these keys."""
        try:
            key = key_of(record_id)
        except ValueError:
            return False
        above = self._header
        return not above or (
            isinstance(key, tuple) and len(key) > len(above) and begins(key, above)
        )

    def bounds_of(self, prefix: Any) -> Bounds:
        """As the function, within these keys."""
        if not self._header:
            return bounds_of(prefix)
        if prefix is None or prefix == "":
            return bounds_of(self._header)
        if type(prefix) is tuple:
            return bounds_of(self._header + prefix)
        try:
            return prefix_bounds(_of_tuple(self._header) + _of_element(prefix))
        except InvalidRecordError as error:
            raise InvalidQueryError(str(error)) from None


def begins(key: Key, prefix: Key | None) -> bool:
    """Whether a key begins with a text, or with the elements of a tuple. All do with None."""
    if isinstance(prefix, tuple):
        return isinstance(key, tuple) and key[: len(prefix)] == prefix
    return not prefix or (isinstance(key, str) and key.startswith(str(prefix)))


def below(header: tuple[str | int, ...], key: tuple[str | int, ...]) -> Key:
    """What of a key is below its header."""
    rest = key[len(header) :]
    return rest[0] if len(rest) == 1 else rest
