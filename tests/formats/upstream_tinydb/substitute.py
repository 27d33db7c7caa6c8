"""A pytest plugin for the tests of TinyDB and aiotinydb: in place of their storages they get ours.

Where STOREBRIDGE_SABOTAGE is set, ours lose every change. Prints how often ours were made.
"""

from __future__ import annotations

import os
from typing import Any

import aiotinydb
import aiotinydb.database
import aiotinydb.storage
import pytest
import tinydb
import tinydb.database
import tinydb.storages
from storebridge_tinydb.aiostorage import AtomicAIOJSONStorage
from storebridge_tinydb.storage import AtomicJSONStorage

SABOTAGE = bool(os.environ.get("STOREBRIDGE_SABOTAGE"))
made = {"JSONStorage": 0, "AIOJSONStorage": 0}


class JSONStorage(AtomicJSONStorage):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        made["JSONStorage"] += 1

    def write(self, data: Any) -> None:
        if not SABOTAGE:
            super().write(data)


class AIOJSONStorage(AtomicAIOJSONStorage):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        made["AIOJSONStorage"] += 1

    def write(self, data: Any) -> None:
        if not SABOTAGE:
            super().write(data)


# TinyDB's tests look at how a table prints its storage.
JSONStorage.__module__ = "tinydb.storages"
for module in (tinydb, tinydb.storages, tinydb.database):
    setattr(module, "JSONStorage", JSONStorage)  # noqa: B010
for module in (aiotinydb, aiotinydb.storage, aiotinydb.database):
    setattr(module, "AIOJSONStorage", AIOJSONStorage)  # noqa: B010
tinydb.TinyDB.default_storage_class = JSONStorage
aiotinydb.database.AIOTinyDB.default_storage_class = AIOJSONStorage


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"made: {made['JSONStorage']} {made['AIOJSONStorage']}")
