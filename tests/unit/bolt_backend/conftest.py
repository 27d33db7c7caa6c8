"""Databases of the bolt backend."""

from __future__ import annotations

import pytest


@pytest.fixture
def engine() -> str:
    return "bolt"
