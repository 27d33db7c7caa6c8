"""The store level of the conformance suite: what every store promises, on every backend.

Subclass, supply the fixture `harness`, and all of it runs: see `storebridge.testing`.
"""

from __future__ import annotations

from storebridge.testing.harness import BackendHarness
from storebridge.testing.stores.badinput import BadInputTests
from storebridge.testing.stores.callers import CallersTests
from storebridge.testing.stores.claiming import ClaimTests
from storebridge.testing.stores.compacting import CompactionTests
from storebridge.testing.stores.eventing import EventTests
from storebridge.testing.stores.expiring import ExpiryTests
from storebridge.testing.stores.finding import FindTests
from storebridge.testing.stores.holding import OwnerTests, UnreadableTests
from storebridge.testing.stores.hooking import HookTests
from storebridge.testing.stores.keyvalues_suite import KeyValueSuite
from storebridge.testing.stores.machine import StoreMachineTests
from storebridge.testing.stores.mending import MendingStoreTests, RecordVersionTests
from storebridge.testing.stores.opening import OpeningStoreTests
from storebridge.testing.stores.reading import ReadingTests
from storebridge.testing.stores.records import RecordTests
from storebridge.testing.stores.recounting import RecountTests
from storebridge.testing.stores.recounts import KilledRecountTests
from storebridge.testing.stores.recoveries import RecoveredJobTests, RecoveriesTests
from storebridge.testing.stores.recovery import RecoveryPolicyTests
from storebridge.testing.stores.retaining import DefaultRetentionTests, RetentionTests
from storebridge.testing.stores.sharing import SharingTests
from storebridge.testing.stores.together import TogetherTests
from storebridge.testing.stores.transactions import StoreTransactionTests
from storebridge.testing.stores.transferring import TransferTests
from storebridge.testing.stores.watching import ManyTests, WatchTests

__all__ = ["BackendHarness", "StoreConformance"]


class StoreConformance(
    RecordTests,
    StoreTransactionTests,
    EventTests,
    FindTests,
    ReadingTests,
    BadInputTests,
    MendingStoreTests,
    RecordVersionTests,
    RecountTests,
    KilledRecountTests,
    RetentionTests,
    ExpiryTests,
    HookTests,
    DefaultRetentionTests,
    CompactionTests,
    OpeningStoreTests,
    RecoveryPolicyTests,
    RecoveredJobTests,
    OwnerTests,
    UnreadableTests,
    RecoveriesTests,
    ClaimTests,
    SharingTests,
    CallersTests,
    WatchTests,
    ManyTests,
    TogetherTests,
    TransferTests,
    StoreMachineTests,
    KeyValueSuite,
):
    """Every promise of stores and of the database that hosts them, tested."""
