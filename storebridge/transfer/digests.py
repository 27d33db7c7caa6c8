"""Digests of what a database holds: the same on every backend, and for anyone to compute.

Of a table: SHA-256 over its entries in order of their keys, each as two netstrings, key and body.
The key is written as a JSON array without white space. So an entry `{"n":1}` under the key (`j-1`,)
goes in as `7:["j-1"],7:{"n":1},`.

Of a database: SHA-256 over the JSON text without white space, members sorted by name, of

    {"tables": {name: [entries, digest in hex], …}, "totals": {name: integer, …}}

with the totals (the sequence and the counters) that are not 0. Both kinds of JSON are UTF-8 with
nothing escaped that need not be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from storebridge.canonical import encoder
from storebridge.driver import Key, Rows
from storebridge.transfer.content import Content, tables_of

_encode_key: Callable[[Key], bytes] = encoder.encode
Tell = Callable[[int], None]
"""Told how many entries have been gone through since it was told last."""


@dataclass(frozen=True)
class TableDigest:
    """What a table holds. `bytes`: the bodies' together."""

    entries: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Digest:
    """What a database holds."""

    tables: dict[str, TableDigest]
    totals: dict[str, int]

    @property
    def entries(self) -> int:
        """Of all tables."""
        return sum(table.entries for table in self.tables.values())

    @property
    def sha256(self) -> str:
        """One for everything."""
        tables = {name: (t.entries, t.sha256) for name, t in self.tables.items()}
        text = encoder.encode({"tables": tables, "totals": self.totals})
        return hashlib.sha256(text).hexdigest()


class _Prefixes(dict[int, bytes]):
    """By length: how a netstring of that length begins. Most lengths come often."""

    _MOST = 4096

    def __missing__(self, length: int) -> bytes:
        if len(self) >= self._MOST:
            self.clear()
        prefix = self[length] = b"%d:" % length
        return prefix


_prefix = _Prefixes()


class Digester:
    """Computes the digest of one table from its pages."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._entries = 0
        self._bytes = 0

    def add(self, rows: Rows) -> None:
        """Go on with these entries."""
        if not rows:
            return
        self._entries += len(rows)
        keys = [_encode_key(row[0]) for row in rows]
        bodies = [row[1] for row in rows]
        lengths = list(map(len, bodies))
        self._bytes += sum(lengths)
        parts = [b","] * (6 * len(rows))
        parts[0::6] = [_prefix[length] for length in map(len, keys)]
        parts[1::6] = keys
        parts[3::6] = [_prefix[length] for length in lengths]
        parts[4::6] = bodies
        self._hash.update(b"".join(parts))

    def result(self) -> TableDigest:
        """The digest of what was added so far."""
        return TableDigest(self._entries, self._bytes, self._hash.hexdigest())


def digest_of(
    content: Content,
    *,
    without: Mapping[tuple[str, Key], int] | None = None,
    tell: Tell = lambda entries: None,
) -> Digest:
    """The digest of a content, all of which is read. `without`: entries to pass over, by table and
    key, where the body has this hash."""
    tables = {}
    for table in tables_of(content.layouts):
        digester = Digester()
        for rows in content.pages(table):
            kept = rows
            if without:
                kept = [row for row in rows if without.get((table.name, row[0])) != hash(row[1])]
            digester.add(kept)
            tell(len(rows))
        tables[table.name] = digester.result()
    return Digest(tables, content.totals())
