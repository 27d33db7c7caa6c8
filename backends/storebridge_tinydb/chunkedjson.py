"""JSON in short steps, so that a thread that works on a large file lets the other threads run.

The standard library's encoder and decoder hold the interpreter's lock from beginning to end. Here
they are called once for each document.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

_LEVELS = 2  # tables, and documents in them
_split = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]]).decode


def encode(data: Any, **kwargs: Any) -> str:
    """What `json.dumps(data, **kwargs)` gives."""
    if kwargs.get("indent") is not None or kwargs.get("cls") is not None:
        return json.dumps(data, **kwargs)  # in Python, and so interruptible, or somebody else's
    return _encode(data, json.JSONEncoder(**kwargs), _LEVELS)


def _encode(data: Any, encoder: json.JSONEncoder, levels: int) -> str:
    if not levels or type(data) is not dict or not all(type(key) is str for key in data):
        return encoder.encode(data)
    items = sorted(data.items()) if encoder.sort_keys else data.items()
    return (
        "{"
        + encoder.item_separator.join(
            f"{encoder.encode(key)}{encoder.key_separator}{_encode(value, encoder, levels - 1)}"
            for key, value in items
        )
        + "}"
    )


def decode(text: str) -> Any:
    """What `json.loads(text)` gives."""
    try:
        tables = _split(text)
        return {
            name: {key: json.loads(bytes(document)) for key, document in table.items()}
            for name, table in tables.items()
        }
    except ValueError:  # not a file of tables, or not JSON: let the error be the usual one
        return json.loads(text)
