"""The report of a run: one HTML file with everything in it.

`python -m benchmarks.report [RECORD [FILE]]` draws that of an earlier run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import findings
from benchmarks.drawing.markup import Markup, element, join, text
from benchmarks.drawing.page import Section, page
from benchmarks.record import LATEST, Record, read
from benchmarks.sections.ahead import who_is_ahead
from benchmarks.sections.cost import costs
from benchmarks.sections.growth import growth
from benchmarks.sections.verdicts import verdicts
from benchmarks.sections.workloads import workloads

REPORT = LATEST.with_name("report.html")
"""Where a run leaves its report."""


def write(record: Record, path: Path = REPORT) -> Path:
    """Draw a record into a file, whose path comes back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report(record), encoding="utf-8")
    return path


def report(record: Record) -> str:
    """A whole page, whatever was measured."""
    sections = [
        Section("targets", "Targets", verdicts(record.targets)),
        Section("ahead", "Who is ahead of us, by how much and why", who_is_ahead(record)),
        Section("workloads", "Workloads", workloads(record)),
        Section("growth", "Growth", growth(record.growth)),
        Section("cost", "Cost beside time", costs(record.costs)),
        Section("machine", "Where it was measured", _machine(record.machine)),
    ]
    facts = (record.machine.get(key) for key in ("date", "processor", "system"))
    subtitle = " · ".join(fact for fact in facts if fact) or "Nobody noted where or when."
    return page("storebridge benchmarks", subtitle, _tiles(record), sections)


def _tiles(record: Record) -> Markup:
    found = [outcome.verdict for outcome in record.targets]
    missed, reached = found.count("MISSED"), found.count("reached")
    peers = len({each.peer.contender for each in findings.ahead(record)})
    shown = (
        (reached, "targets reached", "good"),
        (missed, "targets MISSED", "bad" if missed else None),
        (len(found) - missed - reached, "targets not measured", None),
        (peers, "peers that keep the same promise and are ahead of us somewhere", None),
    )
    tiles = (
        element("li", element("b", text(str(value))), text(what), class_=kind)
        for value, what, kind in shown
    )
    return element("ul", join(tiles), class_="tiles")


def _machine(facts: dict[str, str]) -> Markup:
    if not facts:
        return element("p", text("This run did not say."))
    pairs = (
        element("div", element("dt", text(key)), element("dd", text(value)))
        for key, value in facts.items()
    )
    return element("dl", *pairs)


def main() -> None:
    given = [Path(argument) for argument in sys.argv[1:]]
    source, target = (*given, *(LATEST, REPORT)[len(given) :])
    print(write(read(source), target))


if __name__ == "__main__":
    main()
