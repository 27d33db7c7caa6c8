"""The command that looks a database over."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from storebridge.cli import output
from storebridge.cli.options import Where, json_option, on_each, with_databases
from storebridge.doctor import Finding, examine
from storebridge.location import Location


@click.command()
@with_databases
@json_option
@click.option("--quick", is_flag=True, help="Leave out what reads every entry.")
def doctor(where: Where, as_json: bool, quick: bool) -> None:
    """Look a database over: each part with a verdict, and what mends it.

    Owner and mode of every file, log, free disk, layout, openers, lock, readers that are far
    behind, free space in the file, age of the last backup, clock, and all that `check` finds.
    Changes nothing. Exits with 1 if any part is bad.

    \b
    Example:
      storebridge doctor jobs.db
      storebridge doctor --json | jq '.findings[] | select(.verdict == "bad")'
    """

    def show(location: Location) -> bool:
        with output.working(f"looking {location.text} over …"):
            findings = list(examine(location, quick=quick))
        bad = any(finding.verdict == "bad" for finding in findings)
        if as_json:
            listed = [asdict(finding) for finding in findings]
            output.print_json({"location": location.text, "ok": not bad, "findings": listed})
        else:
            headers = ("part", "verdict", "what", "mends it")
            output.print_rows(headers, [_cells(each) for each in findings], location.text)
        return not bad

    on_each(where, show)


def _cells(finding: Finding) -> tuple[Any, ...]:
    return finding.subject, finding.verdict, finding.what, finding.mend
