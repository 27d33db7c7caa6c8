"""Who works on something: a process, told apart from any other that has or had its number."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import msgspec


class Owner(msgspec.Struct, frozen=True):
    """A process on a node. A number (pid) alone is soon given to another process, so the boot and
    the process's start time stand beside it."""

    node_id: str | None
    pid: int
    boot_id: str
    """Changes at every start of the machine."""
    started: str
    """When the process started, as the system tells it; comparable within one boot only."""

    def is_alive(self, node_id: str | None = None) -> bool | None:
        """Whether the process still runs; None if it is another node's, which cannot be seen."""
        if self.node_id != node_id:
            return None
        if self.boot_id != boot_id():
            return False
        return start_time(self.pid) == self.started


def this_process(node_id: str | None = None) -> Owner:
    """The owner that the running process is."""
    pid = os.getpid()
    return Owner(node_id=node_id, pid=pid, boot_id=boot_id(), started=start_time(pid) or "")


@lru_cache(maxsize=1)
def boot_id() -> str:
    """The identifier of the running boot."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _output("sysctl", "-n", "kern.bootsessionuuid")


def start_time(pid: int) -> str | None:
    """When a process started; None if there is none of this number.

    On Linux clock ticks since boot (field 22 of /proc/PID/stat, see proc(5)), which no change of
    the clock touches; elsewhere what `ps` says. A zombie, dead but not yet waited for, is gone.
    """
    if sys.platform != "linux":
        return _output("ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZX" else fields[19].decode()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
