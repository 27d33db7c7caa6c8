"""The one form in which JSON is stored.

Canonical JSON is UTF-8 without white space, with the members of free-form objects sorted by name,
integers within 64 bits with sign, finite numbers, no lone surrogates and no member twice. Parsing
and encoding it again gives the same bytes. msgspec writes this form but does not insist on it (NaN
becomes null, 2**64 passes, members named twice lose one), so what goes in is checked here.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Raw

from storebridge.errors import InvalidRecordError

MAX_INTEGER = 2**63 - 1
MIN_INTEGER = -(2**63)
MAX_DEPTH = 100

encoder = msgspec.json.Encoder(order="deterministic")
_decode = msgspec.json.Decoder().decode
_encode = encoder.encode
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_NINETEEN_DIGITS = b"0" * 19
_BEFORE_NUMBER = frozenset((b"", b":", b"[", b",", b" ", b"\n", b"\t", b"\r"))
_strings = re.compile(rb'"(?:[^"\\]|\\.)*"')
_brackets = re.compile(rb"[\[\]{}]").findall
_not_a_digit = re.compile(b"[^0]").search


def to_json(value: Any) -> Raw:
    """Canonical JSON of any value of str, int, float, bool, None, list, tuple and dict.

    InvalidRecordError for anything that JSON cannot hold exactly: it would come back as something
    else.
    """
    return Raw(canonical_bytes(value))


def from_json(raw: Raw | bytes) -> Any:
    """The value of JSON text, such as a record's `spec`. InvalidRecordError if it is not JSON."""
    try:
        return _decode(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidRecordError(f"not JSON: {reason(error)}") from None


def canonical_bytes(value: Any) -> bytes:
    """As `to_json`, in bytes."""
    try:
        encoded = _encode(value)
        check_depth(encoded)
        decoded = _decode(encoded)
    except InvalidRecordError:
        raise
    except TypeError as error:
        with suppress(RecursionError):
            _check(value, "$")  # says where, in our words
        raise InvalidRecordError(f"not JSON: {reason(error)}") from None
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise InvalidRecordError(f"not JSON: {reason(error)}") from None
    # One comparison in C finds what does not come back as it went in; the slow walk says what.
    if decoded != value or _maybe_too_long(encoded):
        _check(value, "$")
    return encoded


def canonical_raw(raw: Raw | bytes | str, *, integers: bool = True) -> bytes:
    """Canonical bytes of JSON text that somebody else wrote. InvalidRecordError if it is not JSON,
    names a member twice, or holds a number out of range; `integers` False: the caller looks for
    integers beyond 64 bits."""
    text = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else bytes(raw)
    check_depth(text)
    try:
        encoded = _encode(_decode(text))
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidRecordError(f"not JSON: {reason(error)}") from None
    # Canonical text comes back as it is, which a member named twice cannot.
    if encoded == text and not (integers and _maybe_too_long(text)):
        return text
    value = _parse_strictly(text)
    _check(value, "$")
    return _encode(value)


def _maybe_too_long(text: bytes) -> bool:
    """Whether text may hold an integer beyond 64 bits: nineteen digits in a row, where a number
    can stand. No regular expression, which would cost more than all else that a body goes through.
    """
    digits = text.translate(_DIGITS_TO_ZERO)
    at = digits.find(_NINETEEN_DIGITS)
    while at >= 0:
        sign = 1 if text[at - 1 : at] == b"-" else 0
        if text[at - sign - 1 : at - sign] in _BEFORE_NUMBER:
            return True
        run = _not_a_digit(digits, at)
        at = digits.find(_NINETEEN_DIGITS, run.start()) if run else -1
    return False


def check_depth(text: bytes, most: int = MAX_DEPTH) -> None:
    """InvalidRecordError if JSON has more levels than this. Reading takes stack for each: what is
    nested more deeply might be read here and not there."""
    if text.count(b"[") + text.count(b"{") <= most:
        return
    depth = 0
    for bracket in _brackets(_strings.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        if depth > most:
            raise InvalidRecordError(f"not JSON: nested too deeply, over {most} levels")


def check_integers(body: bytes) -> None:
    """InvalidRecordError if a body holds an integer beyond 64 bits."""
    if _maybe_too_long(body):
        _check(_decode(body), "$")


def _parse_strictly(text: bytes) -> Any:
    try:
        return json.loads(text.decode(), object_pairs_hook=_object_without_repetition)
    except RecursionError:
        raise InvalidRecordError("not JSON: nested too deeply") from None
    except ValueError as error:
        raise InvalidRecordError(f"not JSON: {reason(error)}") from None


def _object_without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRecordError(f"not canonical JSON: member {twice!r} is named twice")
    return members


def _check(value: Any, path: str) -> None:
    """Walk a value and say where it is something that JSON cannot hold."""
    kind = type(value)
    if value is None or kind is bool:
        return
    if isinstance(value, int):
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise InvalidRecordError(f"{path}: integer {value} is beyond 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidRecordError(f"{path}: {value} is not a JSON number")
    elif isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str):
                raise InvalidRecordError(f"{path}: member name {name!r} is not text")
            _check(member, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _check(item, f"{path}[{position}]")
    else:
        raise InvalidRecordError(f"{path}: {kind.__name__} is not a JSON type")


def _check_text(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRecordError(f"{path}: text with a lone surrogate") from None


def reason(error: BaseException) -> str:
    """What is wrong, in one line."""
    if isinstance(error, UnicodeEncodeError):
        return "text with a lone surrogate"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error).split("\n", 1)[0]
