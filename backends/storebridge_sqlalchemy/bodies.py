"""Bodies as the text that PostgreSQL keeps.

A body is UTF-8 and stored as the text it is, for people and views to read. Text in PostgreSQL
holds neither NUL nor bytes that are no UTF-8, but bodies that somebody damaged must stay as they
are: they are written in hexadecimal behind `\\x`, as PostgreSQL writes bytes, and so is the rare
text that begins with these two characters itself. No body is stored as the empty text, which
stands for an entry that is not there: see `Statements.hold`.
"""

from __future__ import annotations

from storebridge.driver import Key

_MARK = "\\x"


def encoded(body: bytes) -> str:
    """The text to store."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return _MARK + body.hex()
    if not text or text.startswith(_MARK) or "\0" in text:
        return _MARK + body.hex()
    return text


def decoded(text: str) -> bytes:
    """The body that was stored."""
    if text.startswith(_MARK):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:  # somebody's own text, edited in by hand
            pass
    return text.encode()


def has_nul(key: Key) -> bool:
    """Whether a key has a NUL in it: then no entry has it, and PostgreSQL refuses to look."""
    return any(type(field) is str and "\0" in field for field in key)
