"""A server whose disk is full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from storebridge import Job, JobStore, StoreFullError, open_database, to_json
from storebridge.testing.stores.base import assert_sound
from tests.postgres_server import Server, own_server, within_small_disk


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a tablespace on a disk of 16 MB."""
    probe = within_small_disk("1m", tmp_path_factory.mktemp("probe"))
    if not all(map(shutil.which, ("unshare", "setpriv"))) or (
        subprocess.run([*probe, "true"], capture_output=True).returncode
    ):
        pytest.skip("the system permits no mounts")
    for server in own_server(small="16m"):
        with server.connect() as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{server.folder / 'small'}'")
        yield server


def fill(jobs: JobStore, prefix: str) -> list[str]:
    """Create jobs, of which nothing can be compressed, until there is no room."""
    made: list[str] = []
    while True:
        job = Job(id=f"{prefix}-{len(made)}", spec=to_json({"noise": os.urandom(3000).hex()}))
        try:
            jobs.create(job)
        except StoreFullError:
            return made
        made.append(job.id)


def test_a_full_disk(small: Server) -> None:
    """What has no room is refused as full and gone whole, everything acknowledged is there, and as
    soon as there is room the store goes on, in the same opening.
    """
    location = f"{small.target()}&durability=off&options=-c%20default_tablespace%3Dsmall"
    with open_database(location) as database, small.connect() as connection:
        jobs = JobStore(database)
        connection.execute("CREATE TABLE ballast (a text) TABLESPACE small")
        connection.execute("ALTER TABLE ballast ALTER a SET STORAGE EXTERNAL")
        connection.execute(
            "INSERT INTO ballast SELECT repeat(md5(i::text), 60) FROM generate_series(1, 1000) i"
        )
        made = fill(jobs, "a")
        assert len(made) > 100
        for prefix in "bc":
            made += fill(jobs, prefix)
            assert {job.id for job in jobs.each()} == set(made)
        with pytest.raises(StoreFullError, match="No space left"), database.transaction():  # noqa: PT012
            while True:
                jobs.create(Job(spec=to_json({"noise": os.urandom(3000).hex()})))
        assert jobs.count() == len(made)
        connection.execute("DROP TABLE ballast")
        connection.execute("CHECKPOINT")
        more = fill(jobs, "d")
        assert len(more) > 10
        assert {job.id for job in jobs.each()} == {*made, *more}
        assert_sound(database)
