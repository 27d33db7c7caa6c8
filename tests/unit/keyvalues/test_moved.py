"""Key-value stores, locks and twin keys are moved, checked and kept as any other store."""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge import KeyValueStore, TwinKeyStore, open_database
from storebridge.check import check


@pytest.mark.parametrize("backend", ["lmdb", "bolt", "tinydb"])
def test_moved_to_another_backend(backend: str, tmp_path: Path) -> None:
    """Values, when they expire, tokens of locks, aliases: all of it is there as it was."""
    given = {"a": {"z": 1, "y": (1, b"\0")}, 17: None, ("led", 1): float("inf"), "#": "é"}
    with open_database(f"sqlite://{tmp_path}/from.db?durability=off") as source:
        KeyValueStore(source, "settings").update(given)
        store = KeyValueStore(source, "settings")
        store.set("session", 1, expires_in=3600)
        expires_at = store.entry("session").expires_at
        KeyValueStore(source, "leds", lifetime="boot")["red"] = 0.5
        with store.lock("pin") as lock:
            token = lock.token or 0
        TwinKeyStore(source, "sensors").add((1, 5, 42), "shed")
    destination = f"{backend}://{tmp_path}/to"
    with open_database(f"sqlite://{tmp_path}/from.db", read_only=True) as source:
        source.migrate_to(destination)
    with open_database(destination) as moved:
        store = KeyValueStore(moved, "settings")
        assert store == given | {"session": 1}
        assert list(store["a"]) == ["z", "y"]
        assert store.entry("session").expires_at == expires_at
        assert KeyValueStore(moved, "leds", lifetime="boot")["red"] == 0.5
        assert store.lock("pin", timeout=0).acquire() > token
        assert TwinKeyStore(moved, "sensors")["shed"].key == (1, 5, 42)
        assert [fault for fault in check(moved) if "opener" not in fault.problem] == []
