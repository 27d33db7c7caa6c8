"""Moving what a database holds: to another of any backend, into a file and back, and the proof that
nothing was lost on the way.

    content         what a database holds, as a stream of entries
    digests         one number for all of it, the same on every backend
    filling         making a database hold it, wherever the last attempt was stopped
    places          where that is done, so that nothing is lost that was there before
    migration       `Database.migrate_to`
    verification    comparing two databases
    exports         files of JSON lines (jsonlines), compressed
    backups         exports in folders, and back
    upgrading       from an older layout to this one
"""

from storebridge.transfer.exports import (
    ExportReport,
    ImportReport,
    export_database,
    import_database,
)
from storebridge.transfer.migration import MigrationReport, migrate
from storebridge.transfer.progress import Progress
from storebridge.transfer.verification import Difference, Verification, verify

__all__ = [
    "Difference",
    "ExportReport",
    "ImportReport",
    "MigrationReport",
    "Progress",
    "Verification",
    "export_database",
    "import_database",
    "migrate",
    "verify",
]
