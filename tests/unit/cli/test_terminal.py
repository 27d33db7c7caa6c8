"""On a terminal: tables, progress, and questions before what cannot be undone."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import Any

from storebridge import Job, JobStore, open_database

_codes = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(*args: str, typed: str = "") -> tuple[int, str]:
    """Exit code and what is shown."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "storebridge", *args]
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(ours)
        code = process.wait(timeout=30)
    return code, _codes.sub("", shown.decode()).replace("\r", "")


def test_tables(sqlite: Any) -> None:
    with open_database(sqlite.location) as database:
        job = JobStore(database).create(Job(name="bad \x1b]0;title\x07 [bold]"))
    code, shown = on_terminal("jobs", "list", "-l", sqlite.location)
    assert code == 0
    assert re.search(r"id +name +type +state +created +message", shown)
    assert job.id not in shown
    short = job.id[:12]
    assert re.search(rf"{short} +bad \\x1b]0;title\\x07 \[bold\]", shown)
    # What is shown can be typed.
    code, shown = on_terminal("jobs", "show", short, "-l", sqlite.location)
    assert code == 0
    assert job.id in shown
    code, shown = on_terminal("get", "job", short, "-l", sqlite.location)
    assert code == 0
    assert f'  "id": "{job.id}"' in shown


def test_a_question_before_repairing(sqlite: Any) -> None:
    code, shown = on_terminal("repair", sqlite.location, typed="n\n")
    assert code == 1
    assert f"Repair {sqlite.location}? [y/N]" in shown
    assert "left as it is" in shown
    code, shown = on_terminal("repair", sqlite.location, typed="y\n")
    assert (code, "faults found" in shown) == (0, True)
    code, shown = on_terminal("repair", sqlite.location, "--yes")
    assert (code, "[y/N]" in shown) == (0, False)


def test_a_question_before_deleting(sqlite: Any) -> None:
    code, shown = on_terminal("jobs", "delete", "j-2", "-l", sqlite.location, typed="\n")
    assert code == 1
    assert "Delete j-22? [y/N]" in shown
    assert "nothing was deleted" in shown
    code, shown = on_terminal("jobs", "delete", "j-2", "-l", sqlite.location, typed="y\n")
    assert code == 0
    assert re.search(r"j-22\s+deleted", shown)
