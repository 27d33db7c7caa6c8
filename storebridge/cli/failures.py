"""How commands fail: one line on stderr that says what to do, and an exit code."""

from __future__ import annotations

import traceback

import click

from storebridge.errors import (
    ConfigurationError,
    InvalidQueryError,
    InvalidRecordError,
    StorebridgeError,
)
from storebridge.location import hide_password

NO, USAGE, INTERRUPTED = 1, 2, 130
_USAGE = (ConfigurationError, InvalidQueryError, InvalidRecordError)


class Failure(click.ClickException):
    """A command that failed for a reason of its own."""

    def __init__(self, message: str, exit_code: int = NO) -> None:
        super().__init__(message)
        self.code = exit_code


def report(error: BaseException, *, show_traceback: bool) -> int:
    """Say on stderr what went wrong, in one line; the exit code."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return USAGE
    if show_traceback:
        traceback.print_exception(error)
    say(_words(error))
    return _code(error)


def say(message: str) -> None:
    """One line on stderr, in the name of the program. No password of a location is in it."""
    click.echo(f"storebridge: {hide_password(' '.join(message.split()))}", err=True)


def _words(error: BaseException) -> str:
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "storebridge"
        return f"{error.format_message()} (see: {command} --help)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, StorebridgeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return f"unexpected {type(error).__name__}: {error} (storebridge --traceback … shows where)"


def _code(error: BaseException) -> int:
    if isinstance(error, Failure):
        return error.code
    if isinstance(error, click.ClickException):
        return error.exit_code
    return USAGE if isinstance(error, _USAGE) else NO
