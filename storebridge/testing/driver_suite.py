"""The contract level of the conformance suite: what every driver must do.

Subclass, supply the fixture `harness`, and all of it runs: see `storebridge.testing`.
"""

from __future__ import annotations

from storebridge.testing.contract.entries import EntryTests
from storebridge.testing.contract.foreign import ForeignTests
from storebridge.testing.contract.loading import LoadingTests
from storebridge.testing.contract.machine import MachineTests
from storebridge.testing.contract.mending import MendingTests
from storebridge.testing.contract.numbers import NumberTests
from storebridge.testing.contract.opening import OpeningTests
from storebridge.testing.contract.processes import ProcessTests
from storebridge.testing.contract.reclaiming import ReclaimingTests
from storebridge.testing.contract.scans import ScanTests
from storebridge.testing.contract.transactions import TransactionTests
from storebridge.testing.contract.versions import VersionTests
from storebridge.testing.harness import BackendHarness

__all__ = ["BackendHarness", "DriverConformance"]


class DriverConformance(
    EntryTests,
    ScanTests,
    NumberTests,
    MendingTests,
    TransactionTests,
    OpeningTests,
    ForeignTests,
    ProcessTests,
    ReclaimingTests,
    LoadingTests,
    VersionTests,
    MachineTests,
):
    """Every promise of `storebridge.driver.contract`, tested."""
