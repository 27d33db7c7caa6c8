"""How long names, ids and indexed values may be, and which characters they may have: the same on
every engine, so that data can move between any two.

Text counts as on the engines with ordered bytes: its UTF-8 plus two for each character up to `!`,
which is written `!hh` there. An integer counts 16. An id may count 128, the fields of an index
that come before the id 300; together with separators that stays within LMDB's 511 bytes a key.
"""

from __future__ import annotations

import re
from typing import Any

from storebridge.canonical import MAX_INTEGER, MIN_INTEGER
from storebridge.errors import InvalidRecordError

MAX_ID = 128
MAX_INDEXED = 300
_escaped = re.compile("[\x01-!]")


def key_size(text: str) -> int:
    """What a text counts."""
    return len(text.encode()) + 2 * len(_escaped.findall(text))


def check_text(what: str, value: Any, limit: int) -> str:
    """Return the text if it can stand in a key or an index, else InvalidRecordError."""
    if not isinstance(value, str):
        raise InvalidRecordError(f"{what}: expected text, got {type(value).__name__}")
    text = value if type(value) is str else str.__str__(value)  # of a StrEnum, its value
    if not text:
        raise InvalidRecordError(f"{what}: must not be empty")
    if "\0" in text:
        raise InvalidRecordError(f"{what}: must not contain NUL")
    if len(text) * 3 <= limit and text.isascii():
        return text
    try:
        size = key_size(text)
    except UnicodeEncodeError:
        raise InvalidRecordError(f"{what}: text with a lone surrogate") from None
    if size > limit:
        raise InvalidRecordError(f"{what}: counts {size} of at most {limit} bytes: {text[:40]!r}…")
    return text


def check_id(text: Any) -> str:
    """Return the id if it can be one, else InvalidRecordError."""
    return check_text("id", text, MAX_ID)


def check_integer(what: str, value: Any) -> int:
    """Return the integer if it fits 64 bits, else InvalidRecordError."""
    if type(value) is not int:
        raise InvalidRecordError(f"{what}: expected an integer, got {type(value).__name__}")
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise InvalidRecordError(f"{what}: integer {value} is beyond 64 bits")
    return value
