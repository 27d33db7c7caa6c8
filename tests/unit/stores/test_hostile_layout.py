"""What tables a database has is read from its file, which somebody else may have written: no name
in it may become code.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from storebridge import JOB
from storebridge.backends import backend_named
from storebridge.driver import Options, Range, Table, Transaction, UniqueClash
from storebridge.spec import StoreLayout, layout_of

CODE = (
    "x'; ATTACH DATABASE 'pwned' AS e; CREATE TABLE e.t(a); --",
    "x\" (a); ATTACH DATABASE 'pwned' AS e; CREATE TABLE e.t(a); --",
    "__import__('os').mkdir('pwned')",
    "' or __import__('os').mkdir('pwned') or '",
    "x\nimport os; os.mkdir('pwned')\n",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every text in a value."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from places(item, (*path, name))


def planted(path: tuple[Any, ...], code: str) -> StoreLayout | None:
    """The layout of jobs with this text in this place; None where it is no layout any more."""
    value: Any = json.loads(msgspec.json.encode(layout_of(JOB)))
    inside = value
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = code
    with contextlib.suppress(ValueError):
        return msgspec.json.decode(json.dumps(value), type=StoreLayout)
    return None


PLACES = list(places(json.loads(msgspec.json.encode(layout_of(JOB)))))


@pytest.mark.parametrize("backend", ["memory", "sqlite", "lmdb"])
@pytest.mark.parametrize("code", CODE)
def test_names_never_become_code(
    backend: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layouts = [layout for place in PLACES if (layout := planted(place, code)) is not None]
    assert len(layouts) > len(PLACES) // 4
    for number, layout in enumerate(layouts):
        _use(backend, str(tmp_path / f"d{number}"), layout)
    assert "pwned" not in os.listdir(tmp_path)


def _use(backend: str, target: str, layout: StoreLayout) -> None:
    driver = backend_named(backend).open(target, Options(durability="off"))
    # That the engine refuses a name is as good as that it takes it for a name.
    with contextlib.suppress(Exception):
        driver.create_tables(layout.tables, 1)
        transaction = driver.begin(True)
        for table in layout.tables:
            _write_and_read(transaction, table)
        transaction.rollback()
    driver.close()


def _write_and_read(transaction: Transaction, table: Table) -> None:
    """Touch every index, twice with the same values: unique ones refuse by name."""
    values = tuple("v" if field.type == "text" else 1 for field in table.columns)
    for text, number in (("k", 1), ("l", 2)):
        key = tuple(text if field.type == "text" else number for field in table.key)
        with contextlib.suppress(UniqueClash):
            transaction.insert(table.name, key, values, b"{}")
    for by in (None, *(index.name for index in table.indexes)):
        transaction.scan(table.name, Range(by=by))
