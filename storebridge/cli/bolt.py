"""`storebridge bolt`: what Go's `bbolt` prints of any bolt file, with its exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

_EXAMPLES = {
    "check": "storebridge bolt check jobs.bolt",
    "buckets": "storebridge bolt buckets jobs.bolt",
    "keys": "storebridge bolt keys jobs.bolt execution-index state",
    "get": "storebridge bolt get jobs.bolt execution e-1",
    "info": "storebridge bolt info jobs.bolt",
    "stats": "storebridge bolt stats jobs.bolt",
    "pages": "storebridge bolt pages jobs.bolt",
    "page": "storebridge bolt page jobs.bolt 0 3",
    "compact": "storebridge bolt compact -o smaller.bolt jobs.bolt",
    "inspect": "storebridge bolt inspect jobs.bolt",
}
_FORMATS = ("auto", "ascii-encoded", "hex", "bytes", "redacted")

_file = click.argument("file", type=click.Path())
_format = click.option(
    "--format", "form", type=click.Choice(_FORMATS), default="auto", help="How bytes are printed."
)


@click.group()
def bolt() -> None:
    """Look into any bolt file, as Go's `bbolt` command does.

    What is printed and the exit codes are those of `bbolt`; inspect prints JSON.

    \b
    Example:
      storebridge bolt check jobs.bolt
      storebridge bolt keys jobs.bolt execution
    """


def _command(name: str, help: str) -> Callable[[Callable[..., None]], click.Command]:
    """A subcommand with an example in its help."""
    text = f"{help}\n\n\b\nExample:\n  {_EXAMPLES[name]}"
    return bolt.command(name, help=text, short_help=help)


def _run(name: str, file: str, *args: Any, **options: Any) -> None:
    from storebridge_bolt.pybolt import render

    code = getattr(render, name)(file, sys.stdout.buffer, sys.stderr.buffer, *args, **options)
    sys.stdout.buffer.flush()
    if code:
        click.get_current_context().exit(code)


@_command("check", "Check that the pages of a file agree: OK, or a line an error.")
@click.option("--from-page", type=int, default=0, help="Check only below this page.")
@click.option("--strict", is_flag=True, help="Also look for what `bbolt check` passes over.")
@_file
def _check(file: str, from_page: int, strict: bool) -> None:
    _run("check", file, from_page=from_page, strict=strict)


@_command("buckets", "Print the names of the top buckets.")
@_file
def _buckets(file: str) -> None:
    _run("buckets", file)


@_command("keys", "Print the keys in a bucket, given by its path of names.")
@_format
@_file
@click.argument("bucket", nargs=-1, required=True)
def _keys(file: str, bucket: tuple[str, ...], form: str) -> None:
    _run("keys", file, [os.fsencode(name) for name in bucket], form=form)


@_command("get", "Print the value of a key in a bucket, given by its path of names.")
@_format
@click.option(
    "--parse-format",
    type=click.Choice(("ascii-encoded", "hex")),
    default="ascii-encoded",
    help="How KEY is given.",
)
@_file
@click.argument("bucket", nargs=-1, required=True)
@click.argument("key")
def _get(file: str, bucket: tuple[str, ...], key: str, form: str, parse_format: str) -> None:
    names = [os.fsencode(name) for name in bucket]
    _run("get", file, names, os.fsencode(key), form=form, parse_form=parse_format)


@_command("info", "Print the page size.")
@_file
def _info(file: str) -> None:
    _run("info", file)


@_command("stats", "Print figures on pages, trees and buckets.")
@_file
@click.argument("prefix", default="")
def _stats(file: str, prefix: str) -> None:
    _run("stats", file, os.fsencode(prefix))


@_command("pages", "Print a row for each page.")
@_file
def _pages(file: str) -> None:
    _run("pages", file)


@_command("page", "Print what is on pages, without a lock: also of a damaged file.")
@click.option("--all", "every", is_flag=True, help="Every page.")
@click.option(
    "--format-value",
    "form",
    type=click.Choice(_FORMATS),
    default="auto",
    help="How values are printed.",
)
@_file
@click.argument("page", type=int, nargs=-1)
def _page(file: str, page: tuple[int, ...], every: bool, form: str) -> None:
    _run("page", file, page, every=every, form=form)


@_command("compact", "Copy a file into a new one without its free pages.")
@click.option("-o", "--output", required=True, type=click.Path(), help="The new file.")
@click.option(
    "--tx-max-size", type=int, default=65536, help="Most bytes to copy in one transaction."
)
@_file
def _compact(file: str, output: str, tx_max_size: int) -> None:
    _run("compact", file, output, tx_max_size=tx_max_size)


@_command("inspect", "Print the tree of buckets as JSON.")
@_file
def _inspect(file: str) -> None:
    _run("inspect", file)
