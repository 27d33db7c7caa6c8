"""Work on all documents of a file in steps, so that a thread that does it holds up no other.

The standard library's `json` and `marshal` hold the interpreter's lock from beginning to end. Here
they are called for one document, or some, at a time, and now and then the thread rests, as long as
another one needs to notice that it may go on.
"""

from __future__ import annotations

import json
import marshal
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

_LEVELS = 2  # tables, and documents in them
_CHUNK = 500
_WORK, _REST = 0.000_5, 0.000_05
_split = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]]).decode

Pause = Callable[[], None]
Packed = list[tuple[str, bytes]]
"""A copy of the tables, each in parts."""


class Rest:
    """Rests when called, if the last time is long enough ago."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._last > _WORK:
            time.sleep(_REST)
            self._last = time.perf_counter()


def no_rest() -> None:
    """For who may not."""


def encode(data: Any, pause: Pause = no_rest, **kwargs: Any) -> str:
    """What `json.dumps(data, **kwargs)` gives."""
    if kwargs.get("indent") is not None or kwargs.get("cls") is not None:
        return json.dumps(data, **kwargs)  # in Python, and so interruptible, or somebody else's
    return _encode(data, json.JSONEncoder(**kwargs), pause, _LEVELS)


def _encode(data: Any, encoder: json.JSONEncoder, pause: Pause, levels: int) -> str:
    pause()
    if not levels or type(data) is not dict or not all(type(key) is str for key in data):
        return encoder.encode(data)
    items = sorted(data.items()) if encoder.sort_keys else data.items()
    members = [
        encoder.encode(key) + encoder.key_separator + _encode(value, encoder, pause, levels - 1)
        for key, value in items
    ]
    return "{" + encoder.item_separator.join(members) + "}"


def decode(text: str, pause: Pause = no_rest) -> Any:
    """What `json.loads(text)` gives."""
    try:
        tables = _split(text)
        return {name: _decode(documents, pause) for name, documents in tables.items()}
    except ValueError:  # not a file of tables, or not JSON: let the error be the usual one
        return json.loads(text)


def _decode(documents: dict[str, msgspec.Raw], pause: Pause) -> dict[str, Any]:
    decoded = {}
    for key, document in documents.items():
        decoded[key] = json.loads(bytes(document))
        pause()
    return decoded


def pack(data: dict[str, Any], pause: Pause = no_rest) -> Packed:
    """Copy tables, at a tenth of the time that JSON takes. ValueError for what `marshal` refuses:
    all but the built-in types.
    """
    packed = []
    for name, table in data.items():
        if type(table) is not dict or len(table) <= _CHUNK:
            packed.append((name, marshal.dumps(table)))
            continue
        documents = iter(table.items())
        while part := dict(islice(documents, _CHUNK)):
            packed.append((name, marshal.dumps(part)))
            pause()
    return packed


def unpack(packed: Packed, pause: Pause = no_rest) -> dict[str, Any]:
    """The tables, anew each time."""
    data: dict[str, Any] = {}
    for name, part in packed:
        if name in data:
            data[name].update(marshal.loads(part))
        else:
            data[name] = marshal.loads(part)
        pause()
    return data
