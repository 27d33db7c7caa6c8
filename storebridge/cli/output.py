"""What commands print: tables on a terminal, tab-separated lines in a pipe, or JSON.

Text of records is shown with its control characters escaped: it can neither break a line in a pipe
nor send commands to a terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

# Control characters, and those that turn the direction of writing round.
_unfit = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SHORT = 12
_UNBROKEN = 34
"""Cells up to this length are not broken into lines; an id has it."""


def on_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def plain(value: Any) -> str:
    """A value as text that fits in a cell."""
    if value is None or value == "":
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "-"
    return _unfit.sub(_escape, str(value))


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def short(record_id: str | None) -> str | None:
    """An id as it is shown: cut on a terminal, whole in a pipe. Commands take the cut form."""
    if record_id is None or not on_terminal() or len(record_id) <= _SHORT:
        return record_id
    return record_id[:_SHORT]


def print_json(value: Any) -> None:
    """One JSON document on a line."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_body(body: bytes) -> None:
    """A record's JSON as it is stored."""
    click.echo(body)


def print_rows(headers: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """A table with headers on a terminal; else lines without."""
    if not on_terminal():
        for row in rows:
            click.echo("\t".join(plain(value) for value in row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    if title:
        click.echo(click.style(plain(title), bold=True))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    shown = [[plain(value) for value in row] for row in rows]
    for column, header in enumerate(headers):
        cells = [row[column] for row in shown]
        table.add_column(
            header,
            justify="right" if any(map(_is_number, cells)) else "left",
            overflow="fold",
            no_wrap=max(map(len, cells), default=0) <= _UNBROKEN,
        )
    for cells in shown:
        table.add_row(*(Text(cell) for cell in cells))
    console().print(table)


def print_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Names and values: aligned on a terminal, else separated by a tab."""
    shown = [(name, plain(value)) for name, value in facts]
    if not on_terminal():
        for name, value in shown:
            click.echo(f"{name}\t{value}")
        return
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"  {name:<{width}}  {value}")


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def console(*, stderr: bool = False) -> Console:
    """A terminal to draw on."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


@contextmanager
def working(message: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something takes its time; what is yielded changes the message."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with console(stderr=True).status(plain(message)) as status:
        yield lambda message: status.update(plain(message))


def confirm(question: str, *, yes: bool) -> bool:
    """Ask on a terminal; a script is taken to know what it does."""
    if yes or not (sys.stdin.isatty() and on_terminal()):
        return True
    return click.confirm(plain(question), default=False)
