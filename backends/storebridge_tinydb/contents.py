"""What a TinyDB file holds, in memory: the documents of tables that were declared, and as they are
in the file those that nobody has asked for yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec
from msgspec import Raw

from storebridge.driver import DriverError, ErrorKind, Key, Table, Values
from storebridge.driver.keys import key_encoder
from storebridge.driver.mapengine import Maps, space_of
from storebridge.driver.ordered import OWN, SpaceName
from storebridge.driver.orderedtable import compile_table
from storebridge.driver.sortedmap import SortedMap
from storebridge_tinydb.documents import Document, Row, Stranger, format_of

Documents = dict[str, Raw]
"""By id, as they are in the text."""
REMOVED = b"null"
"""What stands in a patch for a document that is no more."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,300}")
_EMPTY = SortedMap()
_tables = msgspec.json.Decoder(dict[str, Raw]).decode
_documents = msgspec.json.Decoder(Documents).decode
_encode = msgspec.json.Encoder().encode
_MARK_ID = "0"
"""In our own table; TinyDB counts from 1."""


class Mark(msgspec.Struct):
    """Which database a file is, and how far it has come."""

    database: str
    """Drawn at random when it was made."""
    commit: int
    """The number of the last commit that is in the file."""


class _MarkDocument(msgspec.Struct):
    name: Literal["journal"]
    body: Mark


class Change(NamedTuple):
    """What an entry is from now on."""

    values: Values
    body: bytes


Changes = dict[str, dict[Key, Change | None]]
"""By table and key; None: the entry is taken out."""


class Plan(NamedTuple):
    """What changes of a table come to."""

    documents: TableDocuments
    rows: dict[bytes, Row | None]
    texts: dict[str, bytes]
    """By id: documents as they will be, or REMOVED."""


class TableDocuments:
    """The documents of a declared table: what an entry has besides its body, by encoded key."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows: dict[bytes, Row] = {}
        self.strangers: dict[str, tuple[bytes, str]] = {}
        """Documents that are no entries: as they are in the file, and why."""
        self.size = 0
        """Bytes that all of them take in the file."""
        self._format = format_of(table.key, table.columns)
        self._encode_key = key_encoder(table.key)
        self._last = 0

    def __len__(self) -> int:
        return len(self.rows) + len(self.strangers)

    def load(self, documents: Mapping[str, Raw]) -> Iterator[tuple[bytes, Document]]:
        """Take over documents; yield those that are entries."""
        for name, text in documents.items():
            try:
                key, document = self._parse(name, text)
            except Stranger as error:
                self.strangers[name] = (bytes(text), str(error))
                self.size += len(name) + len(bytes(text))
            else:
                self.rows[key] = document.row
                self.size += document.row.size
                yield key, document

    def _parse(self, name: str, text: Raw) -> tuple[bytes, Document]:
        if not _NUMBER.fullmatch(name):
            raise Stranger("its id is not an integer, as TinyDB wants it")
        number = int(name)
        self._last = max(self._last, number)
        document = self._format.parse(number, text)
        key = self._encode_key(document.key)
        if key in self.rows:
            raise Stranger(f"it has the key of document {self.rows[key].number}")
        return key, document

    def plan(self, changes: Mapping[Key, Change | None], bodies: SortedMap) -> Plan:
        """What changes come to. `bodies`: those that are there now."""
        plan, last = Plan(self, {}, {}), self._last
        for key, change in changes.items():
            encoded = self._encode_key(key)
            old = self.rows.get(encoded)
            if change is None:
                if old is not None:
                    plan.rows[encoded] = None
                    plan.texts[str(old.number)] = REMOVED
                continue
            last += old is None
            number, extras = (last, b"") if old is None else (old.number, old.extras)
            row = self._format.row(number, key, change.values, change.body, extras)
            if row != old or bodies.get(encoded) != change.body:
                plan.rows[encoded] = row
                plan.texts[str(number)] = row.text(change.body)
        return plan

    def apply(self, plan: Plan) -> None:
        """Do what was planned. Doing it again changes nothing."""
        for key, row in plan.rows.items():
            old = self.rows.get(key)
            self.size += (row.size if row else 0) - (old.size if old else 0)
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
                self._last = max(self._last, row.number)

    def texts(self, bodies: SortedMap) -> Iterator[tuple[str, bytes]]:
        """Every document, by its id."""
        for key, body in bodies.items(b"", None, False, len(bodies)):
            row = self.rows[key]
            yield str(row.number), row.text(body)
        for name, (text, _) in self.strangers.items():
            yield name, text


class Contents:
    """All that a TinyDB file holds, in its order. ValueError if it is not a JSON object."""

    def __init__(self, data: bytes) -> None:
        self._parts: dict[str, TableDocuments | Documents | Raw] = {**_parse(data)}
        self.is_empty = not self._parts
        own = self._parts.setdefault(OWN.table, {})
        mark = own.pop(_MARK_ID, None) if isinstance(own, dict) else None
        self.mark = None if mark is None else _mark(mark)
        """Which database it is; None where that is not said."""

    def __len__(self) -> int:
        return len(self._parts)

    def patch(self, patch: Mapping[str, Mapping[str, Raw]]) -> None:
        """Change documents of tables that have not been declared yet."""
        for name, texts in patch.items():
            part = self._parts.setdefault(name, {})
            if not isinstance(part, dict):
                raise _no_table(name)
            for number, text in texts.items():
                if bytes(text) == REMOVED:
                    part.pop(number, None)
                else:
                    part[number] = text

    def declare(self, table: Table, maps: Maps) -> Maps:
        """The maps of a table and its indexes; none if it is not in the file or loaded already."""
        part = self._parts.get(table.name)
        if isinstance(part, TableDocuments):
            if _shape(part.table) == _shape(table):
                return {}
            texts = part.texts(maps.get(table.name, _EMPTY))
            part = {number: Raw(text) for number, text in texts}
        if part is None:
            return {}
        if isinstance(part, Raw):
            raise _no_table(table.name)
        documents = TableDocuments(table)
        maps = _load(documents, part)
        self._parts = {**self._parts, table.name: documents}
        return maps

    def plan(self, changes: Changes, maps: Maps, declared: Mapping[str, Table]) -> dict[str, Plan]:
        """What changes come to, by table. `declared`: what a table is that is not there yet."""
        plans = {}
        for name, entries in changes.items():
            part = self._parts.get(name)
            known = part if isinstance(part, TableDocuments) else TableDocuments(declared[name])
            plan = known.plan(entries, maps.get(name, _EMPTY))
            if plan.rows or part is None:
                plans[name] = plan
        return plans

    def apply(self, plans: Mapping[str, Plan]) -> None:
        """Do what was planned. Doing it again changes nothing."""
        for name, plan in plans.items():
            plan.documents.apply(plan)
            if name not in self._parts:  # others may be going through them
                self._parts = {**self._parts, name: plan.documents}

    def strangers(self) -> Iterator[str]:
        """What is in the file and is no entry: one line each."""
        for name, part in self._parts.items():
            if isinstance(part, Raw):
                yield f"{name}: not a table of documents"
            elif isinstance(part, TableDocuments):
                for number, (_, problem) in part.strangers.items():
                    yield f"table {name}: document {number} is no entry: {problem}"

    def count(self) -> int:
        """How many documents there are."""
        return sum(0 if isinstance(part, Raw) else len(part) for part in self._parts.values())

    def size(self) -> int:
        """About how many bytes `render` gives."""
        return sum(
            part.size if isinstance(part, TableDocuments) else _size(part)
            for part in self._parts.values()
        )

    def render(self, maps: Maps, mark: Mark) -> bytes:
        """The file: a document a line, the mark first."""
        head = b'"%s":%s' % (_MARK_ID.encode(), _encode(_MarkDocument("journal", mark)))
        parts = (
            _encode(name)
            + b":"
            + _render(part, maps.get(name, _EMPTY), [head] if name == OWN.table else [])
            for name, part in self._parts.items()
        )
        return b"{" + b",\n".join(parts) + b"}\n"


def _mark(text: Raw) -> Mark | None:
    try:
        return msgspec.json.decode(text, type=_MarkDocument).body
    except ValueError:
        return None


def _size(part: Documents | Raw) -> int:
    texts = part.values() if isinstance(part, dict) else [part]
    return sum(memoryview(text).nbytes for text in texts)


def _render(part: TableDocuments | Documents | Raw, bodies: SortedMap, lines: list[bytes]) -> bytes:
    if isinstance(part, Raw):
        return bytes(part)
    if isinstance(part, TableDocuments):
        texts = part.texts(bodies)
    else:
        texts = ((name, bytes(text)) for name, text in part.items())
    lines += [b"%s:%s" % (_encode(name), text) for name, text in texts]
    return b"{\n" + b",\n".join(lines) + b"\n}" if lines else b"{}"


def _parse(data: bytes) -> dict[str, Documents | Raw]:
    try:
        return {name: _part(text) for name, text in _tables(data).items()}
    except (ValueError, RecursionError):
        pass
    # TinyDB writes what Python's json does, which is more than JSON: NaN, halves of characters.
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return {
        name: {number: _raw(document) for number, document in part.items()}
        if isinstance(part, dict)
        else _raw(part)
        for name, part in found.items()
    }


def _part(text: Raw) -> Documents | Raw:
    try:
        return _documents(text)
    except ValueError:
        return text


def _raw(value: object) -> Raw:
    return Raw(json.dumps(value).encode())


def _load(documents: TableDocuments, found: Documents) -> Maps:
    table = documents.table
    spaces = {index.name: space_of(SpaceName(table.name, index.name)) for index in table.indexes}
    bodies: dict[bytes, bytes] = {}
    entries: dict[str, dict[bytes, bytes]] = {space: {} for space in spaces.values()}

    def put(space: str, entry: bytes, key: bytes) -> None:
        # Of two that claim one entry of a unique index the first has it: `check` reports the other.
        entries[space].setdefault(entry, key)

    add = compile_table(table, table.name, spaces).add
    required = [number for number, field in enumerate(table.columns) if not field.optional]
    for key, document in documents.load(found):
        bodies[key] = document.body
        # Whoever has inserted it without these: it is there, and `repair` puts it in the indexes.
        if all(document.values[number] is not None for number in required):
            add(put, key, document.key, document.values)
    return {table.name: SortedMap.of(bodies)} | {
        space: SortedMap.of(pairs) for space, pairs in entries.items()
    }


def _shape(table: Table) -> object:
    return table.key, table.columns, table.indexes


def _no_table(name: str) -> DriverError:
    return DriverError(
        ErrorKind.CORRUPT, f"{name!r} in the file is not a table of documents: restore a backup"
    )
