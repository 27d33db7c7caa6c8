"""Processes that the system does not show: they must not pass for dead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from storebridge.testing.stores.holders import NODE, process
from tests.unit.users import OTHER, two_users

ROOT = Path(__file__).parents[3]
LOOK = """
import msgspec, os, sys
from storebridge import Owner
from tests.unit.users import become
owner = msgspec.json.decode(sys.argv[1], type=Owner)
become(int(sys.argv[2]))
assert os.path.exists("/proc/self/stat")
print(os.path.exists(f"/proc/{owner.pid}/stat"), owner.is_alive("here"))
"""
NO_FILES_LEFT = """
import errno, os, resource, sys
from storebridge import this_process
me = this_process("here")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = []
try:
    while True:
        kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    print(me.is_alive("here"))
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@two_users
@pytest.mark.skipif(sys.platform != "linux", reason="hidepid is an option of Linux")
def test_hidden_by_the_system() -> None:
    """Where /proc keeps other users' processes to itself, whether an owner of another user lives
    cannot be seen: it is neither alive nor gone.
    """
    with process(NODE) as (owner, _):
        arguments = [sys.executable, "-c", LOOK, msgspec.json.encode(owner).decode(), str(OTHER)]
        script = 'mount -t proc -o hidepid=2 proc /proc || exit 77; exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *arguments],
            capture_output=True, text=True, cwd=ROOT, env=_environment(), timeout=60,
        )  # fmt: skip
        if done.returncode == 77 or done.stderr.startswith("unshare"):
            pytest.skip("the system permits no mounts")
        assert (done.stdout, done.stderr) == ("False None\n", "")


def test_too_many_open_files() -> None:
    """A process that can open no file says so, rather than that everybody is dead."""
    done = subprocess.run(
        [sys.executable, "-c", NO_FILES_LEFT], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("EMFILE\n", "")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
