"""Why a peer that keeps the same promise is ahead of us, where it is: by workload, mode, contender.

A run lists whom it finds ahead; one that has no reason here gets one, or is caught up with.
"""

from __future__ import annotations

_LAYER = (
    "Validating, filling in and checking fields, the event and the undo list of the portable layer"
    " take about 10 µs a record, which code written for one record type does without."
)

REASONS: dict[tuple[str, str, str], str] = {
    ("create", "in a batch", "sqlite3 by hand"): _LAYER,
    ("create", "in a batch", "py-lmdb by hand"): (
        f"{_LAYER} The rest is the generic encoding of the keys of seven index entries, and the log"
        " that a full map is survived by."
    ),
}
