"""Files of other programs, offered as locations: named right, refused, and left as they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from storebridge import (
    BackendUnavailableError,
    ConfigurationError,
    ForeignFileError,
    open_database,
    open_job_store,
)
from storebridge.backends import name_of_existing
from tests.real.data import real_data

BOLT = (
    "bacalhau_v2_executions.db",
    "bacalhau_v3_jobs.db",
    "boltbrowser_test.db",
    "fanal.db",
    "nomad_client_state_1.2.6.db",
)
NO_DATABASE = (
    "brewblox/brewblox-ui-store.redis.json",
    "brewblox/brewblox-ui-store.datastore.json",
    "chia/chia.proto",
    "de1/20211019T100744.shot",
    "jobs/NASA-iPSC-1993-3.1-cln.swf.gz",
    "jobs/bacalhau-docker-s3.yaml",
    "jobs/oar_out_jobs.csv",
    "pioreactor/create_tables.sql",
    "pioreactor/od_readings.csv",
)
LIKE_TINYDB = (
    "brewblox/spock.spark.json",
    "de1/20211019T100744.json",
    "jobs/bacalhau-docker-output.json",
)
REFUSED = (ForeignFileError, BackendUnavailableError)


class Copy:
    """A copy of a file, alone in a folder, and the proof that nothing has touched it."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.path = folder / source.name
        shutil.copyfile(source, self.path)
        self._before = source.read_bytes()

    def check(self) -> None:
        assert self.path.read_bytes() == self._before
        assert list(self.path.parent.iterdir()) == [self.path]


def refuse(copy: Copy, location: str, *kinds: type[ConfigurationError]) -> str:
    """Open a location in each way. All refuse with one of these errors, in one line, and harm
    nothing; returns what they said last.
    """
    said = ""
    for create, read_only in ((True, False), (False, False), (False, True)):
        with pytest.raises(kinds) as caught:
            open_database(location, create=create, read_only=read_only)
        copy.check()
        said = str(caught.value)
        assert "\n" not in said
    return said


@pytest.mark.parametrize("name", BOLT)
def test_bolt_files(name: str, tmp_path: Path) -> None:
    """A bolt file of another program is known by its magic number, whatever its ending, page size
    and age; without our mark in it, it is refused.
    """
    copy = Copy(real_data("bolt", name), tmp_path)
    assert name_of_existing(copy.path) == "bolt"
    for location in (str(copy.path), f"bolt://{copy.path}"):
        assert "bolt" in refuse(copy, location, *REFUSED)


@pytest.mark.parametrize("name", BOLT)
def test_bolt_file_configured_as_another(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that calls it something else is told what it is."""
    copy = Copy(real_data("bolt", name), tmp_path)
    monkeypatch.setenv("JOB_STORE_PATH", str(copy.path))
    monkeypatch.setenv("JOB_STORE_TYPE", "sqlite")
    with pytest.raises(ConfigurationError, match=r"JOB_STORE_TYPE is 'sqlite'.* is 'bolt'"):
        open_job_store()
    copy.check()


@pytest.mark.parametrize("scheme", ["sqlite", "lmdb"])
@pytest.mark.parametrize("name", [f"bolt/{name}" for name in BOLT] + list(NO_DATABASE))
def test_by_a_scheme_that_it_is_not(scheme: str, name: str, tmp_path: Path) -> None:
    """A file that is of another format than the scheme says is refused by the engine itself."""
    copy = Copy(real_data(name), tmp_path)
    refuse(copy, f"{scheme}://{copy.path}", ForeignFileError, ConfigurationError)


@pytest.mark.parametrize("name", NO_DATABASE)
def test_what_is_no_database(name: str, tmp_path: Path) -> None:
    copy = Copy(real_data(name), tmp_path)
    said = refuse(copy, str(copy.path), ForeignFileError)
    assert str(copy.path) in said


@pytest.mark.parametrize("name", LIKE_TINYDB)
def test_what_looks_like_tinydb(name: str, tmp_path: Path) -> None:
    """A JSON object may be a TinyDB file: it is named so, and without our mark in it refused."""
    copy = Copy(real_data(name), tmp_path)
    assert name_of_existing(copy.path) == "tinydb"
    for location in (str(copy.path), f"tinydb://{copy.path}"):
        assert "TinyDB" in refuse(copy, location, ForeignFileError)
