"""Every variable of the configuration, with and without a prefix."""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge import ConfigurationError, open_execution_store, open_job_store
from storebridge.configuration import location_from_environment, node_id_from_environment


@pytest.mark.parametrize("prefix", ["", "BACALHAU_"])
@pytest.mark.parametrize(
    ("role", "variable"),
    [("JOB", "JOB_STORE"), ("EXECUTION", "EXECUTION_STORE"), ("EXECUTION", "COMPUTE_STORE")],
)
def test_paths(prefix: str, role: str, variable: str) -> None:
    """Each store is where its variable says; other prefixes' variables do not count."""
    environ = {f"{prefix}{variable}_PATH": "/data/a.db", "OTHER_JOB_STORE_PATH": "/no.db"}
    location = location_from_environment(role, prefix=prefix, environ=environ)
    assert (location.target, location.backend.name) == ("/data/a.db", "sqlite")


@pytest.mark.parametrize("prefix", ["", "P_"])
def test_defaults(prefix: str) -> None:
    """Unset paths are in the folder of the node, by its name."""
    directory = f"{prefix}DIR" if prefix else "STOREBRIDGE_DIR"
    environ = {directory: "/data", f"{prefix}NODE_ID": "n1"}
    places = [
        location_from_environment(role, prefix=prefix, environ=environ).target
        for role in ("JOB", "EXECUTION")
    ]
    assert places == ["/data/n1-requester.db", "/data/n1-compute.db"]
    assert node_id_from_environment(prefix=prefix, environ=environ) == "n1"
    assert node_id_from_environment(prefix=prefix, environ={}) is None


def test_types() -> None:
    """The type chooses the backend of a new path, each store's its own."""
    environ = {
        "JOB_STORE_PATH": "/no/such/a",
        "JOB_STORE_TYPE": "lmdb",
        "EXECUTION_STORE_PATH": "/no/such/b.lmdb",
        "EXECUTION_STORE_TYPE": "sqlite",
    }
    names = [
        location_from_environment(role, environ=environ).backend.name
        for role in ("JOB", "EXECUTION")
    ]
    assert names == ["lmdb", "sqlite"]


def test_options() -> None:
    """The narrower variable wins, the URL above all."""
    environ = {
        "JOB_STORE_PATH": "/a.db",
        "EXECUTION_STORE_PATH": "/b.db?durability=full",
        "STORE_DURABILITY": "relaxed",
        "STORE_LOCK_TIMEOUT": "9",
        "JOB_STORE_DURABILITY": "off",
        "EXECUTION_STORE_LOCK_TIMEOUT": "1.5",
    }
    jobs = location_from_environment("JOB", environ=environ).options
    executions = location_from_environment("EXECUTION", environ=environ).options
    assert (jobs.durability, jobs.lock_timeout) == ("off", 9.0)
    assert (executions.durability, executions.lock_timeout) == ("full", 1.5)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "set JOB_STORE_PATH.*STOREBRIDGE_DIR and NODE_ID"),
        ({"NODE_ID": "n"}, "set JOB_STORE_PATH"),
        ({"STOREBRIDGE_DIR": "/d"}, "set JOB_STORE_PATH"),
        ({"STOREBRIDGE_DIR": "/d", "NODE_ID": "a/b"}, "NODE_ID='a/b'.*without '/'"),
        ({"JOB_STORE_PATH": "/a.db", "STORE_DURABILITY": "x"}, "STORE_DURABILITY='x'.*full"),
        (
            {"JOB_STORE_PATH": "/a.db", "JOB_STORE_LOCK_TIMEOUT": "-3"},
            "JOB_STORE_LOCK_TIMEOUT='-3'.*seconds",
        ),
        (
            {"JOB_STORE_PATH": "/a.db", "JOB_STORE_TYPE": "sqlight"},
            "JOB_STORE_TYPE='sqlight'.*sqlite, lmdb",
        ),
        (
            {"JOB_STORE_PATH": "sqlite:///a.db", "JOB_STORE_TYPE": "lmdb"},
            "JOB_STORE_TYPE is 'lmdb'.*'sqlite'",
        ),
        ({"JOB_STORE_PATH": "/a.db?mode=x"}, "JOB_STORE_PATH.*mode='x'.*octal"),
        ({"JOB_STORE_PATH": "nosuch:///a"}, "JOB_STORE_PATH.*'nosuch'"),
    ],
)
def test_bad_values(environ: dict[str, str], words: str) -> None:
    """The error names the variable, its value, and what is accepted."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        location_from_environment("JOB", environ=environ)
    assert "\n" not in str(caught.value)


def test_an_alias_that_differs() -> None:
    """Two names of one variable that say different things are an error that shows no password."""
    environ = {
        "EXECUTION_STORE_PATH": "postgresql://u:secret@h/a",
        "COMPUTE_STORE_PATH": "/b.db",
    }
    with pytest.raises(
        ConfigurationError, match=r"EXECUTION_STORE_PATH.*COMPUTE_STORE_PATH.*differ"
    ) as caught:
        location_from_environment("EXECUTION", environ=environ)
    assert "secret" not in str(caught.value)
    environ = {"EXECUTION_STORE_PATH": "/b.db", "COMPUTE_STORE_PATH": "/b.db"}
    assert location_from_environment("EXECUTION", environ=environ).target == "/b.db"


def test_stores_open_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`open_job_store()` and `open_execution_store()` obey the environment."""
    monkeypatch.setenv("X_DIR", str(tmp_path))
    monkeypatch.setenv("X_NODE_ID", "n")
    with open_job_store(env_prefix="X_"), open_execution_store(env_prefix="X_"):
        assert (tmp_path / "n-requester.db").exists()
        assert (tmp_path / "n-compute.db").exists()
