"""Owners: a process told apart from any other that has or had its number."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from storebridge import Owner, this_process
from storebridge.owner import boot_id, start_time


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its input ends, with a name that is hard to parse."""
    script = "import sys; sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def owner_of(pid: int) -> Owner:
    return Owner(node_id="n", pid=pid, boot_id=boot_id(), started=start_time(pid) or "")


def test_this_process() -> None:
    """The running process is alive, on its own node; of another node nobody can tell."""
    me = this_process("n")
    assert me.pid == os.getpid()
    assert (me.is_alive("n"), me.is_alive("m"), me.is_alive()) == (True, None, None)
    assert this_process().is_alive() is True
    assert msgspec.json.decode(msgspec.json.encode(me), type=Owner) == me


def test_killed(child: subprocess.Popen[bytes]) -> None:
    """A process that was killed is gone, at once: also while it is a zombie nobody waited for."""
    owner = owner_of(child.pid)
    assert owner.is_alive("n") is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner.is_alive("n") is False
    child.wait()
    assert owner.is_alive("n") is False
    assert start_time(child.pid) is None


def test_a_number_used_again(child: subprocess.Popen[bytes]) -> None:
    """Another process with the same number started at another time, or at another boot."""
    owner = owner_of(child.pid)
    assert msgspec.structs.replace(owner, started="1").is_alive("n") is False
    assert msgspec.structs.replace(owner, boot_id="another").is_alive("n") is False
    assert owner.is_alive("n") is True


def test_another_machine(child: subprocess.Popen[bytes]) -> None:
    """Where several machines share a database and no node is named, nobody can tell of another
    machine's process; of this machine's earlier boot one can. A node that is named is one machine.
    """
    here = msgspec.structs.replace(owner_of(child.pid), node_id=None)
    boot, at, machine = here.boot_id.partition("@")
    for other, alive in (
        (f"another boot@{machine}" if at else "another boot", False),
        ("another boot@another", None if at else False),
        (f"{boot}@another", None if at else False),
        ("another boot", False),
    ):
        assert msgspec.structs.replace(here, boot_id=other).is_alive() is alive, other
        named = msgspec.structs.replace(here, boot_id=other, node_id="n")
        assert named.is_alive("n") is False
    assert here.is_alive() is True


@pytest.mark.skipif(sys.platform != "linux", reason="names are parsed on Linux only")
def test_names_with_spaces_and_brackets() -> None:
    """A process's name cannot be mistaken for the fields behind it."""
    script = "import sys; open('/proc/self/comm', 'w').write(') Z 1 ('); print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = start_time(process.pid)
        assert started is not None
        assert started.isdigit()
        process.communicate()


def test_each_thread_and_another_process_see_the_same() -> None:
    """A process's start time is one, whoever looks: under qemu, too."""
    seen: list[str | None] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: seen.append(start_time(os.getpid())))
        time.sleep(0.05)
        thread.start()
        thread.join()
    script = f"from storebridge.owner import start_time; print(start_time({os.getpid()}))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert [*seen, other.stdout.strip()] == [start_time(os.getpid())] * 3
