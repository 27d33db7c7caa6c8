"""Bodies and documents: what goes in comes out, whoever has written the file meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from msgspec import Raw
from storebridge_tinydb.documents import Stranger, format_of, is_compact

from storebridge.canonical import canonical_bytes
from storebridge.driver import Range
from storebridge.testing.harness import reading, writing
from storebridge.testing.randomly import check_randomly
from storebridge.testing.samples import ENTRY, LABEL, entry
from tests.unit.tinydb.conftest import open_at

texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
)
AWKWARD = (
    b"",
    b" ",
    b"1",
    b"null",
    b'"text"',
    b" {}",
    b"{}\n",
    b'{"a": 1}',
    b'{"a":1,"a":2}',
    b'{"$text":"mine"}',
    b'{"$base64":"bWluZQ=="}',
    b'{"$text":1}',
    b'{"$other":1}',
    b'{"$text":"a","$base64":"b"}',
    b'{"a":1e400}',
    b'{"a":NaN}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\u00e9"}',
    '{"a":"é😀\u2028"}'.encode(),
    b"\xff\xfe\x00",
    b"\0",
    b"not JSON",
    b'{"a":1.0}',
    b'{"a":1E5}',
    b'{"a":-0}',
    b'{"a":-0.0}',
    b'{"a":0.1e-400}',
    b"18446744073709551616",
    b"9" * 5000,
    b"[" * 101 + b"]" * 101,
    b"[" * 100 + b"]" * 100,
    b"[" * 20_000 + b"]" * 20_000,
    b'"' + b"[" * 5000 + b'"',
    b"[" + b",".join([b"{}"] * 5000) + b"]",
)


def rewritten(path: Path, **style: Any) -> None:
    """What TinyDB does to a file of which it changes anything."""
    path.write_text(json.dumps(json.loads(path.read_bytes()), **style))


@pytest.mark.parametrize("style", [{}, {"indent": 4}, {"ensure_ascii": False}])
def test_every_body_comes_back(path: Path, style: dict[str, Any]) -> None:
    """Byte for byte: out of the journal, out of the file, and out of the file that TinyDB has
    written since, in any style; and that is a file which Python's
    own reader takes.
    """
    driver = open_at(path)
    with writing(driver) as transaction:
        for number, body in enumerate(AWKWARD):
            assert transaction.insert(LABEL.name, ("n", "v", str(number)), (), body)
    driver.leave()  # killed
    for _ in range(3):
        driver = open_at(path)
        with reading(driver) as transaction:
            for number, body in enumerate(AWKWARD):
                assert transaction.get(LABEL.name, ("n", "v", str(number))) == body
        assert list(driver.check()) == []
        driver.close()
        rewritten(path, **style)


def test_any_record_comes_back_from_tinydb(path: Path) -> None:
    """Whatever JSON a record holds: its body stands in the file as it is, and is there again, byte
    for byte, after Python has read and written the file.
    """

    def check(value: Any) -> None:
        body = canonical_bytes(value)
        path.unlink(missing_ok=True)
        driver = open_at(path, durability="off")
        with writing(driver) as transaction:
            transaction.insert(ENTRY.name, ("a",), entry(), body)
        driver.close()
        assert is_compact(body) is (not body.startswith(b'{"$'))
        assert not is_compact(body) or body in path.read_bytes()
        rewritten(path)
        driver = open_at(path, read_only=True)
        with reading(driver) as transaction:
            assert transaction.get(ENTRY.name, ("a",)) == body
        driver.close()

    check_randomly(check, values, 100)


def test_document_as_it_reads() -> None:
    """Key, columns that are not None, body; in this order."""
    row = format_of(ENTRY.key, ENTRY.columns).row(7, ("é 1",), entry(node="n"), b'{"v":1}')
    assert json.loads(row.text(b'{"v":1}')) == {
        "id": "é 1",
        "state": "new",
        "created_at": 0,
        "node": "n",
        "namespace": "default",
        "body": {"v": 1},
    }
    assert row.text(b'{"v":1}').endswith(b'"body":{"v":1}}')
    assert row.size == len('"7":' + row.text(b'{"v":1}').decode() + ",\n") + 1  # é is two bytes


@pytest.mark.parametrize(
    ("text", "values_found"),
    [
        (b'{"id":"a","body":{}}', (None,) * 6),
        (b'{"body":{},"id":"a","state":"s","x":[1, 2]}', ("s", *(None,) * 5)),
        (b'{"id":"a","body":{},"state":5,"created_at":"then"}', (None,) * 6),
        (b'{"id":"a","body":{},"created_at":9223372036854775808}', (None,) * 6),
        (b'{"id":"a","body":{},"created_at":true,"size":1}', (None, None, None, 1, None, None)),
    ],
)
def test_what_others_left_of_an_entry(text: bytes, values_found: tuple[Any, ...]) -> None:
    """With key and body it is an entry; columns that are missing or wrong are for `check`."""
    found = format_of(ENTRY.key, ENTRY.columns).parse(1, Raw(text))
    assert (found.key, found.values, found.body) == (("a",), values_found, b"{}")


def test_members_that_others_added_stay() -> None:
    """Also when the entry changes; and they never break a line."""
    text = Raw(b'{"id":"a","mine":{\n "b" : [1,\r\n2]\n},"body":{ "v" : 1 }, "too":"x"}')
    entries = format_of(ENTRY.key, ENTRY.columns)
    found = entries.parse(1, text)
    assert found.body == b'{"v":1}'
    changed = entries.row(1, ("a",), entry(), b"{}", found.row.extras)
    for line in (found.row.text(found.body), changed.text(b"{}")):
        assert b"\n" not in line
        members = msgspec.json.decode(line)
        assert (members["mine"], members["too"]) == ({"b": [1, 2]}, "x")


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b"1",
        b"null",
        b'"id"',
        b'{"id":"a"}',
        b'{"body":{}}',
        b'{"id":1,"body":{}}',
        b'{"id":null,"body":{}}',
        b'{"id":"","body":{}}',
        b'{"id":"a\\u0000","body":{}}',
        b'{"id":["a"],"body":{}}',
        b'{"id":"a","body":NaN}',
    ],
)
def test_strangers(text: bytes) -> None:
    """What has no key and body as our documents have is told from them, in one line."""
    with pytest.raises(Stranger) as caught:
        format_of(ENTRY.key, ENTRY.columns).parse(1, Raw(text))
    assert "\n" not in str(caught.value)


def test_document_ids_stay(path: Path) -> None:
    """An entry keeps its number while it lives, over changes and openings; a new one has one that
    none has had since the file was opened.
    """
    driver = open_at(path)
    with writing(driver) as transaction:
        for name in "abc":
            transaction.insert(ENTRY.name, (name,), entry(name=name), b"{}")
    with writing(driver) as transaction:
        transaction.replace(ENTRY.name, ("b",), entry(name="b"), entry("s", name="b"), b'{"new":1}')
        transaction.remove(ENTRY.name, ("c",), entry(name="c"))
    with writing(driver) as transaction:
        transaction.insert(ENTRY.name, ("d",), entry(name="d"), b"{}")
        transaction.remove(ENTRY.name, ("a",), entry(name="a"))
        transaction.insert(ENTRY.name, ("a",), entry(name="a"), b"[]")
    driver.close()
    for _ in range(2):
        found = json.loads(path.read_bytes())[ENTRY.name]
        assert {number: document["id"] for number, document in found.items()} == {
            "1": "a",
            "2": "b",
            "4": "d",
        }
        driver = open_at(path)
        with writing(driver) as transaction:
            transaction.tally({"n": 1})
        driver.close()


def test_scan_of_what_others_wrote(path: Path) -> None:
    """An entry without the columns of an index is found by its key, and by all its indexes once
    they were made anew."""
    open_at(path).close()
    content = json.loads(path.read_bytes())
    body = {"id": "x", "key": ["x"], "values": list(entry("s", 5, name="x"))}
    content[ENTRY.name]["17"] = {"id": "x", "body": body}
    path.write_text(json.dumps(content))
    driver = open_at(path)

    def values_of(key: object, body: bytes) -> tuple[Any, ...]:
        return tuple(json.loads(body)["values"])

    with reading(driver) as transaction:
        assert transaction.get(ENTRY.name, ("x",)) == msgspec.json.encode(body)
        assert transaction.scan(ENTRY.name, Range("state"))[0] == []
        assert [fault.key for fault in transaction.faults(ENTRY.name, values_of)] == [("x",)] * 3
    with writing(driver) as transaction:
        transaction.rebuild(ENTRY.name, values_of)
    driver.close()
    assert json.loads(path.read_bytes())[ENTRY.name]["17"]["created_at"] == 5
    driver = open_at(path)
    with reading(driver) as transaction:
        for by in ("state", "created", "name"):
            assert [key for key, _ in transaction.scan(ENTRY.name, Range(by))[0]] == [("x",)]
        assert list(transaction.faults(ENTRY.name, values_of)) == []
    driver.close()
