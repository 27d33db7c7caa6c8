"""Work on all documents of a file in steps, so that a thread that does it holds up no other.

The standard library's `json` and `marshal` hold the interpreter's lock from beginning to end. Here
they are called for some documents at a time, and now and then the thread rests, as long as another
one needs to notice that it may go on.
"""

from __future__ import annotations

import json
import marshal
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import msgspec

_PART = 50  # documents
_WORK, _REST = 0.000_5, 0.000_05
_split = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]]).decode

K = TypeVar("K")
V = TypeVar("V")
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
    named = type(data) is dict and all(type(name) is str for name in data)
    if not named or kwargs.get("indent") is not None or kwargs.get("cls") is not None:
        return json.dumps(data, **kwargs)  # no tables, or encoded in Python, which yields
    encoder = json.JSONEncoder(**kwargs)
    tables = sorted(data.items()) if encoder.sort_keys else data.items()
    return _object(
        encoder,
        (
            encoder.encode(name) + encoder.key_separator + _encode(table, encoder, pause)
            for name, table in tables
        ),
    )


def _encode(table: Any, encoder: json.JSONEncoder, pause: Pause) -> str:
    if type(table) is not dict:
        return encoder.encode(table)
    items = sorted(table.items()) if encoder.sort_keys else table.items()
    return _object(encoder, (encoder.encode(part)[1:-1] for part in _parts(items, pause)))


def _object(encoder: json.JSONEncoder, members: Iterable[str]) -> str:
    return "{" + encoder.item_separator.join(filter(None, members)) + "}"


def decode(text: str, pause: Pause = no_rest) -> Any:
    """What `json.loads(text)` gives."""
    try:
        tables = _split(text)
        return {name: _decode(documents, pause) for name, documents in tables.items()}
    except ValueError:  # not a file of tables, or not JSON: let the error be the usual one
        return json.loads(text)


def _decode(documents: dict[str, msgspec.Raw], pause: Pause) -> dict[str, Any]:
    decoded: dict[str, Any] = {}
    for part in _parts(documents.items(), pause):
        texts = b",".join(map(bytes, part.values()))
        decoded.update(zip(part, json.loads(b"[" + texts + b"]"), strict=True))
    return decoded


def pack(data: dict[str, Any], pause: Pause = no_rest) -> Packed:
    """Copy tables, at a tenth of the time that JSON takes. ValueError for what `marshal` refuses:
    all but the built-in types.
    """
    packed = []
    for name, table in data.items():
        if type(table) is dict and table:
            packed += [(name, marshal.dumps(part)) for part in _parts(table.items(), pause)]
        else:
            packed.append((name, marshal.dumps(table)))
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


def _parts(items: Iterable[tuple[K, V]], pause: Pause) -> Iterator[dict[K, V]]:
    iterator = iter(items)
    while part := dict(islice(iterator, _PART)):
        yield part
        pause()
