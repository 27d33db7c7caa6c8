"""Why a peer that keeps the same promise is ahead of us, where it is: by workload, mode, contender.

A run lists whom it finds ahead; one that has no reason here gets one, or is caught up with.
"""

from __future__ import annotations

_LAYER = (
    "Validating, filling in and checking fields, the event and the undo list of the portable layer"
    " take about 10 µs a record, which code written for one record type does without."
)
_KEYS = (
    " The rest is the generic encoding of the keys of seven index entries, and the log that a full"
    " map is survived by."
)
_DURABLE = (
    "The disk takes most of the time of both. What is left is the portable layer's 10 µs, the fair"
    " lock that processes take turns by, and the counters that are read and written by name."
)
_STEPS = (
    "It is one look at the engine for both; ours is asked through a dozen small functions (checked"
    " id, range, transaction, page), 5 to 8 µs in all."
)
_DECODING = (
    "Reading a page costs ours the same look at the engine, and then a plan of the query and its"
    " cursor; a body is decoded by the same call."
)
_OPENING = (
    "Opening checks the layout, the lock file, marks of processes that were killed, and which"
    " stores and states there are, and compiles what is asked of each table: about 2 ms. Code by"
    " hand knows all of it before."
)
_GO = (
    "Go rewrites the pages of a dozen trees for each change, compiled; ours in plain Python, which"
    " takes three to six times as long while the disk does not hide it."
)
_PYTHON_READS = (
    "Both make one look; Go decodes in its own process without an interpreter between the steps."
)
_SQLITE, _LMDB, _BBOLT, _PSYCOPG = (
    *("sqlite3 by hand", "py-lmdb by hand", "bbolt by hand (Go)", "psycopg by hand"),
)
EACH, TOGETHER, MANY, READING = "one a transaction", "in a batch", "64 callers", "reading"

REASONS: dict[tuple[str, str, str], str] = {
    **{
        (workload, EACH, peer): _DURABLE
        for workload in ("create", "set_state")
        for peer in (_SQLITE, _LMDB, "aiosqlite by hand")
    },
    **{
        (workload, TOGETHER, peer): text
        for workload in ("create", "set_state")
        for peer, text in ((_SQLITE, _LAYER), (_LMDB, _LAYER + _KEYS))
    },
    ("create", TOGETHER, _PSYCOPG): (
        "By hand all inserts are sent without waiting for an answer; ours asks for each record,"
        " whose caller is told at once whether its id is taken: a round trip each."
    ),
    **{
        (workload, mode, _BBOLT): _GO
        for workload, mode in (
            *(("create", EACH), ("create", TOGETHER), ("set_state", EACH)),
            *(("set_state", TOGETHER), ("set_state", MANY)),
        )
    },
    **{
        (workload, READING, peer): _STEPS
        for workload in ("get", "history")
        for peer in (_SQLITE, _LMDB)
    },
    **{
        (workload, READING, peer): _DECODING
        for workload in ("find 100 by state", "scan")
        for peer in (_SQLITE, _LMDB)
    },
    **{
        (workload, READING, _BBOLT): _PYTHON_READS
        for workload in ("get", "history", "find 100 by state", "scan")
    },
    **{
        (workload, READING, _PSYCOPG): (
            "One round trip for both; ours goes through the pool, which looks whether the"
            " connection still lives, and through a pipeline that is brought into step."
        )
        for workload in ("get", "find 100 by state", "history", "scan")
    },
    **{
        (workload, EACH, _PSYCOPG): (
            "One more round trip, and the turn in which commits are numbered, so that a watcher"
            " anywhere sees events in the order of commits; by hand the counter's row is the turn."
        )
        for workload in ("create", "set_state")
    },
    **{("open", READING, peer): _OPENING for peer in (_SQLITE, _LMDB, _BBOLT)},
    ("recount", READING, _SQLITE): (
        "Counting by the index is the same statement; ours also reads the counters and compares."
    ),
    ("recount", READING, _PSYCOPG): (
        "Ours asks the index state by state, so that it can tell which counter is off, and reads"
        " the counters: ten round trips where by hand it is one."
    ),
    ("recount", READING, _BBOLT): (
        "Both walk the keys of the state index; Go steps from one to the next without an"
        " interpreter."
    ),
    ("compact", "a tenth removed", _LMDB): (
        "By hand it is the copy alone. Putting it in the place of the old file, which must wait for"
        " every other process to have left it, is left out there."
    ),
    ("compact", "a tenth removed", _BBOLT): (
        "Go copies into a new file and leaves the exchange out; ours moves pages within the file"
        " while others use it, in steps that let writers in."
    ),
    ("compact", "a tenth removed", _SQLITE): (
        "By hand it is VACUUM, for which writers wait; ours moves free pages in small steps."
    ),
}
