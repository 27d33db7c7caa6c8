"""The commands, in the order of the help, and what happens around each of them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import storebridge
from storebridge.cli import contents, database, mending, overview
from storebridge.cli.backups import backup, restore
from storebridge.cli.bolt import bolt
from storebridge.cli.compaction import compact
from storebridge.cli.demo.command import demo
from storebridge.cli.doctor import doctor
from storebridge.cli.failures import report, say
from storebridge.cli.kv import kv
from storebridge.cli.recordcommands import executions, jobs
from storebridge.cli.transfer import export, import_, migrate, verify
from storebridge.cli.watching import watch

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "See it work": (demo, overview.backends),
    "Databases": (
        database.info,
        database.stats,
        doctor,
        contents.counts,
        mending.check,
        mending.repair,
        mending.recount,
        compact,
    ),
    "Keep a copy": (backup, restore),
    "Move and compare": (migrate, verify, export, import_),
    "What is in them": (database.tables, contents.keys, contents.get, database.shell),
    "Records": (jobs, executions, kv, watch),
    "Bolt files": (bolt,),
}


class Warnings(logging.Handler):
    """What the library warns of, as a line on stderr: that opening recounted after a kill …"""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


class Root(click.Group):
    """All commands by section, and errors as one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                lines = [(c.name or "", c.get_short_help_str(limit=100)) for c in commands]
                formatter.write_dl(lines)

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Run a command and leave with its exit code: 1, quietly, if nobody reads on in a pipe."""
        arguments = sys.argv[1:] if args is None else list(args)
        logging.getLogger("storebridge").addHandler(WARNINGS)
        try:
            code = super().main(arguments, prog_name="storebridge", standalone_mode=False)
        except Exception as error:
            code = report(error, show_traceback="--traceback" in arguments)
        except KeyboardInterrupt as error:
            code = report(error, show_traceback=False)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=Root)
@click.version_option(storebridge.__version__, prog_name="storebridge")
@click.option("--traceback", is_flag=True, help="When something fails, show where.")
def cli(traceback: bool) -> None:
    """Look after the databases of jobs and executions.

    LOCATION is a database: a bare path, or a URL such as lmdb:///var/lib/node/jobs. Without one a
    command takes those of JOB_STORE_PATH and EXECUTION_STORE_PATH, or of STOREBRIDGE_DIR and
    NODE_ID. Commands that only read never change or make a file.

    On a terminal there are tables, in a pipe tab-separated lines, with --json JSON. The exit code
    is 0, 1 if the answer is no or it failed, and 2 if it was asked wrongly.

    \b
    Example:
      storebridge demo
      storebridge counts /var/lib/node/jobs.db
      storebridge jobs list --state Running --json
    """


WARNINGS = Warnings(logging.WARNING)
for _commands in SECTIONS.values():
    for _command in _commands:
        cli.add_command(_command)


def run() -> int:
    """Run the command line of this process."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        # Text that the terminal has no characters for must not end in an error.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        cli.main()
    finally:
        _drop_what_cannot_be_written()
    return 0


def _open_what_is_closed() -> None:
    # Started with `>&-`: the next file that is opened, a database, must not get that number.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
        if number == 1:
            sys.stdout = os.fdopen(1, "w", closefd=False)
        elif number == 2:
            sys.stderr = os.fdopen(2, "w", closefd=False)
    os.close(number)


def _drop_what_cannot_be_written() -> None:
    # It was reported; the interpreter would try it again when it ends.
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
