"""The export format: one line of JSON for each entry, between a header and a trailer.

    {"storebridge":"export","format":1,"layout":1,"tables":["storebridge-meta","job",…],"crc32":"…"}
    {"table":"job","key":["j-1"],"body":{"v":1,"id":"j-1",…},"crc32":"…"}
    {"table":"job","key":["j-2"],"base64":"eyJ2IjoxLCI…","crc32":"…"}
    {"end":{"entries":2,"tables":{"job":{"entries":…,"bytes":…,"sha256":"…"},…},"totals":{…},
     "sha256":"…"},"crc32":"…"}

(each on one line). Entries come table by table as the header lists them, in order of their keys. A
body stands there as it is, byte for byte, if it is one line of JSON in UTF-8, else in base64.

The last member of a line is the CRC-32 of the whole file up to it, the same members of the lines
before left out: so a line that was altered, moved or lost is found where it is. That all is there,
and right, is what the digests in the trailer say (see `digests`). The same content makes the same
file, whatever backend it came from.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NoReturn
from zlib import crc32

import msgspec
from msgspec import Raw

from storebridge import meta
from storebridge.canonical import encoder
from storebridge.driver import Field, Key, Rows, Table
from storebridge.errors import DamagedExportError, InvalidRecordError, StorageError
from storebridge.limits import MAX_INDEXED, check_integer, check_text
from storebridge.spec import StoreLayout
from storebridge.transfer.compressed import Format
from storebridge.transfer.content import Content, Pages, shown, tables_of
from storebridge.transfer.digests import Digest, Digester, TableDigest, Tell

_FORMAT = 1
_LONGEST = 2**30
_ENTRIES, _BYTES = 250, 2**21
_CRC = b',"crc32":"%08x"}\n'
_CRC_LENGTH = len(_CRC % 0)


class _Header(msgspec.Struct):
    storebridge: str
    format: int
    layout: int
    tables: tuple[str, ...]


class _Line(msgspec.Struct):
    table: str
    key: tuple[str | int, ...]
    body: Raw | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET


class _Table(msgspec.Struct):
    entries: int
    bytes: int
    sha256: str


class _End(msgspec.Struct):
    entries: int
    tables: dict[str, _Table]
    totals: dict[str, int]
    sha256: str


class _Trailer(msgspec.Struct):
    end: _End


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_body = msgspec.json.Decoder(Raw).decode


# --- writing ---


def write(content: Content, stream: BinaryIO, tell: Tell = lambda entries: None) -> Digest:
    """Write the export of a content to a stream."""
    crc = 0

    def put(lines: Sequence[bytes]) -> None:
        nonlocal crc
        whole = []
        for line in lines:
            crc = crc32(line, crc)
            whole += [line, _CRC % crc]
        stream.write(b"".join(whole))

    tables = tables_of(content.layouts)
    names = tuple(table.name for table in tables)
    put([encoder.encode(_Header("export", _FORMAT, meta.LAYOUT, names))[:-1]])
    digests = {}
    for table in tables:
        digester = Digester()
        for rows in content.pages(table):
            digester.add(rows)
            put([_line(table.name, key, body) for key, body in rows])
            tell(len(rows))
        digests[table.name] = digester.result()
    digest = Digest(digests, content.totals())
    put([encoder.encode(_trailer(digest))[:-1]])
    return digest


def _line(table: str, key: Key, body: bytes) -> bytes:
    """A line without its end. Names of tables need no escaping."""
    place = b'{"table":"%b","key":%b,' % (table.encode(), encoder.encode(key))
    if _is_a_line_of_json(body):
        return b'%b"body":%b' % (place, body)
    return b'%b"base64":"%b"' % (place, base64.b64encode(body))


def _is_a_line_of_json(body: bytes) -> bool:
    """Whether a body would come back as it is."""
    try:
        if not body.isascii():
            body.decode()
        one_line = b"\n" not in body and b"\r" not in body
        return one_line and bytes(_decode_body(body)) == body
    except ValueError:
        return False


def _trailer(digest: Digest) -> _Trailer:
    tables = {
        name: _Table(entries=t.entries, bytes=t.bytes, sha256=t.sha256)
        for name, t in digest.tables.items()
    }
    return _Trailer(_End(digest.entries, tables, digest.totals, digest.sha256))


# --- reading ---


class ExportContent:
    """The entries of an export, read once from a stream, each line checked before it is used.

    DamagedExportError, which names the line, for whatever is not as it was written.
    """

    def __init__(self, name: str, stream: BinaryIO, format: Format) -> None:
        """Read the header and what the export says of its stores."""
        self.name = name
        self._stream = stream
        self._format = format
        self._number = 0
        self._crc = 0
        self._digests: dict[str, TableDigest] = {}
        header = self._header()
        self._line: _Line | None = None
        self._advance()
        self._meta = [row for rows in self._read(meta.META) for row in rows]
        self.layouts = self._stores(self._meta)
        if list(header.tables) != [table.name for table in tables_of(self.layouts)]:
            self._refuse("its stores do not have the tables that the first line lists")

    def pages(self, table: Table) -> Pages:
        """See `Content.pages`."""
        if table is meta.META:
            return iter([self._meta] if self._meta else [])
        return self._read(table)

    def totals(self) -> dict[str, int]:
        """See `Content.totals`. All that was read is now known to be what was written."""
        return self.digest().totals

    def digest(self) -> Digest:
        """Of all that the export holds. To be asked for behind the last page."""
        if self._line is not None:
            self._refuse(f"an entry of table {self._line.table} is not where it belongs")
        end = self._end
        digest = Digest(self._digests, end.totals)
        if end != _trailer(digest).end or meta.INCOMPLETE in end.totals:
            self._refuse("the digests of its entries are not those of the last line: altered")
        return digest

    # --- lines ---

    def _header(self) -> _Header:
        text = self._next()
        try:
            header = msgspec.json.decode(text, type=_Header)
        except (ValueError, RecursionError) as error:
            self._refuse(f"not the first line of an export ({error})")
        if header.storebridge != "export":
            self._refuse("not an export of storebridge")
        if header.format > _FORMAT or header.layout > meta.LAYOUT:
            self._refuse("made by a newer storebridge: upgrade storebridge")
        return header

    def _next(self) -> bytes:
        """The text of the next line, without its checksum."""
        self._number += 1
        try:
            line = self._stream.readline(_LONGEST)
        except self._format.errors as error:
            self._refuse(f"cut off or altered ({error})")
        except OSError as error:
            raise StorageError(f"{self.name}: {error.strerror or error}") from error
        if not line:
            self._refuse("cut off: the last line of an export is missing")
        text, crc = line[:-_CRC_LENGTH], line[-_CRC_LENGTH:]
        self._crc = crc32(text, self._crc)
        if crc != _CRC % self._crc:
            cut = "" if line.endswith(b"\n") else "cut off, or "
            self._refuse(f"{cut}altered, or not the line that was written here")
        return text + b"}"

    def _advance(self) -> None:
        """Go on to the next entry, or to the end."""
        text = self._next()
        try:
            if text.startswith(b'{"end":'):
                self._line = None
                self._end = msgspec.json.decode(text, type=_Trailer).end
                self._require_nothing_behind()
            else:
                self._line = _decode_line(text)
        except (ValueError, RecursionError) as error:
            self._refuse(f"not a line of an export ({error})")

    def _require_nothing_behind(self) -> None:
        self._number += 1
        try:
            if self._stream.read(1):
                self._refuse("something follows the last line of the export")
        except self._format.errors as error:
            self._refuse(f"cut off or altered ({error})")

    def _read(self, table: Table) -> Pages:
        """The entries of a table, which come next if there are any."""
        digester = Digester()
        rows: Rows = []
        last: Key = ()
        size = 0
        while self._line is not None and self._line.table == table.name:
            key, body = self._key(table.key, self._line.key), self._body(self._line)
            if not last < key:
                self._refuse(f"a key that is not behind {shown(last)}")
            last = key
            rows.append((key, body))
            size += len(body)
            if len(rows) >= _ENTRIES or size >= _BYTES:
                digester.add(rows)
                yield rows
                rows, size = [], 0
            self._advance()
        digester.add(rows)
        self._digests[table.name] = digester.result()
        if rows:
            yield rows

    def _key(self, fields: Sequence[Field], key: Key) -> Key:
        try:
            if len(key) != len(fields):
                raise InvalidRecordError(f"{len(key)} fields instead of {len(fields)}")
            for field, value in zip(fields, key, strict=True):
                if field.type == "text":
                    check_text(field.name, value, MAX_INDEXED)
                else:
                    check_integer(field.name, value)
        except InvalidRecordError as error:
            self._refuse(f"a key that no table has: {error}")
        return key

    def _body(self, line: _Line) -> bytes:
        if isinstance(line.body, Raw):
            return bytes(line.body)
        try:
            return base64.b64decode(line.base64, validate=True)  # type: ignore[arg-type]
        except (TypeError, binascii.Error):
            self._refuse("an entry without a body")

    # --- stores ---

    def _stores(self, rows: Rows) -> tuple[StoreLayout, ...]:
        stores: Mapping[str, StoreLayout | None] = meta.stores_among(rows)
        layouts = tuple(layout for layout in stores.values() if layout is not None)
        names = [table.name for table in tables_of(layouts)]
        reserved = [name for name in names[1:] if name.startswith("storebridge")]
        local = any(meta.is_local(str(key[0])) for key, _ in rows)
        if len(layouts) < len(stores) or len(set(names)) < len(names) or reserved or local:
            self._refuse("its stores cannot be understood")
        return layouts

    def _refuse(self, why: str) -> NoReturn:
        raise DamagedExportError(f"{self.name}, line {self._number}: {why}")


def facts(digest: Digest) -> dict[str, Any]:
    """A digest as JSON has it."""
    facts: dict[str, Any] = msgspec.to_builtins(_trailer(digest).end)
    return facts
