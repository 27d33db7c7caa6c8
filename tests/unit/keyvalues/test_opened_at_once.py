"""Threads that are the first to want a store, at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storebridge import Database, KeyValueStore, open_database


def test_two_threads_make_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that another thread makes between looking and making is the one that was wanted."""
    with open_database(f"sqlite://{tmp_path}/kv.db?durability=off") as database:
        look = Database.refuse_incomplete

        def overtaken(self: Database) -> None:
            monkeypatch.setattr(Database, "refuse_incomplete", look)
            in_thread(lambda: KeyValueStore(database, "settings").update({"theirs": 1}))
            look(self)

        monkeypatch.setattr(Database, "refuse_incomplete", overtaken)
        store = KeyValueStore(database, "settings")
        store["ours"] = 2
        assert store == {"ours": 2, "theirs": 1}


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
