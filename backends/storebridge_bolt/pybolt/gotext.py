"""Showing bytes as Go does: as text, quoted, in hexadecimal, in JSON."""

from __future__ import annotations

import hashlib
from binascii import hexlify

FORMATS = ("auto", "ascii-encoded", "hex", "bytes", "redacted")

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
            "\v": "\\v", "\\": "\\\\", '"': '\\"'}  # fmt: skip
_JSON_ESCAPES = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
                 "\\": "\\\\", '"': '\\"'}  # fmt: skip
_JSON_AS_NUMBERS = "<>&\u2028\u2029"


def is_printable(data: bytes) -> bool:
    """Whether the bytes are UTF-8 of printable characters only."""
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False


def printable(data: bytes) -> str:
    """The text, where it is printable, else hexadecimal."""
    return data.decode() if is_printable(data) else data.hex()


def format_bytes(data: bytes, form: str) -> bytes:
    """The bytes in one of FORMATS; ValueError for another."""
    match form:
        case "auto":
            return data if is_printable(data) else hexlify(data)
        case "hex":
            return hexlify(data)
        case "bytes":
            return data
        case "ascii-encoded":
            return quote(data).encode()
        case "redacted":
            digest = hashlib.sha256(data).hexdigest()
            return f"<redacted len:{len(data)} sha256:{digest}>".encode()
    raise ValueError(f"formatBytes: unsupported format: {form}")


def quote(data: bytes) -> str:
    """The bytes as a quoted string of Go source."""
    parts = ['"']
    for char in data.decode(errors="surrogateescape"):
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif char in _ESCAPES:
            parts.append(_ESCAPES[char])
        elif char.isprintable():
            parts.append(char)
        elif code < 0x80:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join((*parts, '"'))


def json_string(data: bytes) -> str:
    """The bytes as Go writes a string in JSON: what is not UTF-8 becomes U+FFFD, byte by byte."""
    parts = ['"']
    for char in data.decode(errors="surrogateescape"):
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            parts.append("\\ufffd")
        elif char in _JSON_ESCAPES:
            parts.append(_JSON_ESCAPES[char])
        elif code < 0x20 or char in _JSON_AS_NUMBERS:
            parts.append(f"\\u{code:04x}")
        else:
            parts.append(char)
    return "".join((*parts, '"'))
