"""Elements of HTML and SVG as strings. `Markup` has been escaped, `str` has not: the type checker
keeps them apart."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import NewType

Markup = NewType("Markup", str)
NOTHING = Markup("")
_VOID = frozenset({"meta", "br", "hr", "col"})
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(value: str) -> Markup:
    """As it is to be read. What XML has no character for becomes U+FFFD."""
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", value), quote=True))


def join(parts: Iterable[Markup]) -> Markup:
    """One after the other."""
    return Markup("".join(parts))


def element(name: str, /, *content: Markup, **attributes: str | float | None) -> Markup:
    """`element("text", text("a"), class_="b", text_anchor="end")`; an attribute of None is left
    out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(content)}</{name}>")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}"
