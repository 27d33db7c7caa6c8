"""Several users: who they are, and how a process becomes one of them."""

from __future__ import annotations

import codecs
import os

import pytest

OWNER, OTHER, ROOT = 65534, 65533, 0
two_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def become(uid: int, gid: int | None = None) -> None:
    """Be another user from now on, of this group alone, by default the user's own.

    That user may not be able to read the interpreter's own files.
    """
    codecs.lookup("ascii")
    os.setgroups([])
    os.setgid(uid if gid is None else gid)
    os.setuid(uid)
