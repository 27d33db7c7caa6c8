"""All that key-value stores promise, as one part of the suite."""

from __future__ import annotations

from storebridge.testing.stores.keyvalues import KeyValueTests
from storebridge.testing.stores.keyvalues_bad import BadKeyValueTests
from storebridge.testing.stores.keyvalues_changes import KeyValueChangeTests
from storebridge.testing.stores.keyvalues_locks import LockTests
from storebridge.testing.stores.keyvalues_machine import KeyValueMachineTests
from storebridge.testing.stores.keyvalues_time import KeyValueTimeTests
from storebridge.testing.stores.keyvalues_twins import TwinKeyTests
from storebridge.testing.stores.keyvalues_types import KeyValueTypeTests


class KeyValueSuite(
    KeyValueTests,
    KeyValueChangeTests,
    BadKeyValueTests,
    KeyValueTimeTests,
    KeyValueTypeTests,
    KeyValueMachineTests,
    LockTests,
    TwinKeyTests,
):
    """A dict that is stored."""
