"""Who works on something: a process, told apart from any other that has or had its number."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

HIDDEN = "hidden"
"""The start time of a process that the system does not show."""


class Owner(msgspec.Struct, frozen=True):
    """A process on a node. A number (pid) alone is soon given to another process, so the boot and
    the process's start time stand beside it.

    Processes of one node must be able to see each other: give two machines, and two containers,
    node ids of their own.
    """

    node_id: str | None
    pid: int
    boot_id: str
    """Changes at every start of the machine, and says which machine it is."""
    started: str
    """When the process started, as the system tells it; comparable within one boot only."""

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" of node {self.node_id}" if self.node_id else "")

    def is_alive(self, node_id: str | None = None) -> bool | None:
        """Whether the process still runs. None where that cannot be seen: it is another node's, or,
        where no node is named, another machine's, or the system hides it from this user."""
        if self.node_id != node_id:
            return None
        here = boot_id()
        if self.boot_id != here:
            elsewhere = node_id is None and _machine_of(self.boot_id) not in ("", _machine_of(here))
            return None if elsewhere else False
        started = start_time(self.pid)
        return None if started == HIDDEN else started == self.started


def this_process(node_id: str | None = None) -> Owner:
    """The owner that the running process is."""
    pid = os.getpid()
    return Owner(node_id=node_id, pid=pid, boot_id=boot_id(), started=start_time(pid) or "")


@lru_cache(maxsize=1)
def unnamed_node() -> str:
    """A node id for this machine where nobody has given it one: its name and, as machines made of
    one image have one name, a digest of its own identifier, where it has one."""
    name, machine = os.uname().nodename, machine_digest()
    return f"{name}@{machine}" if machine else name


@lru_cache(maxsize=1)
def boot_id() -> str:
    """The identifier of the running boot, and behind an `@` a digest of the machine's own, where it
    has one: two containers, or an image that was copied, may not."""
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = _content(Path("/etc/machine-id"))
    else:
        boot = _output("sysctl", "-n", "kern.bootsessionuuid")
        machine = _output("sysctl", "-n", "kern.uuid")
    # A machine's identifier is a secret to whoever is not on it: see machine-id(5).
    digest = _sha256(f"storebridge {machine}".encode()).hexdigest()[:12]
    return f"{boot}@{digest}" if machine else boot


def machine_digest() -> str:
    """Of the machine's own identifier; empty where it has none."""
    return boot_id().partition("@")[2]


def _sha256(data: bytes) -> Any:
    # `hashlib` brings OpenSSL along, 4 MB of memory: as `random` does, try the lean module first.
    for name in ("_sha2", "_sha256", "hashlib"):
        with suppress(ImportError, AttributeError):
            return import_module(name).sha256(data)
    raise AssertionError("a Python without SHA-256")


def _machine_of(boot: str) -> str:
    return boot.partition("@")[2]


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def start_time(pid: int) -> str | None:
    """When a process started; None if there is none of this number, HIDDEN if it is not shown.

    On Linux clock ticks since boot (field 22 of /proc/PID/stat, see proc(5)), which no change of
    the clock touches; elsewhere what `ps` says. A zombie, dead but not yet waited for, is gone.
    """
    if sys.platform != "linux":
        return _output("ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        stat = _stat(pid)
    except PermissionError:
        return HIDDEN
    except (FileNotFoundError, ProcessLookupError):
        # Whatever else keeps it from being read, such as too many open files, must not pass for
        # the death of a process.
        return HIDDEN if _is_hidden(pid) else None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZX" else fields[19].decode()


def _stat(pid: int) -> bytes:
    """The content of /proc/PID/stat, by the folder's descriptor: where a program for another
    processor is run by qemu, a process that asks for its own by name is told what qemu makes up,
    another start time in each thread.
    """
    folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open("stat", "rb", opener=partial(os.open, dir_fd=folder)) as file:
            return file.read()
    finally:
        os.close(folder)


def _is_hidden(pid: int) -> bool:
    """Whether there is a process that /proc does not list: mounted with `hidepid`, it keeps other
    users' processes to itself."""
    if pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        pass
    return False


def _output(*command: str) -> str:
    import subprocess  # only where there is no /proc

    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
