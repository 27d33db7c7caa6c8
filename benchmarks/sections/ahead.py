"""Who is ahead of us, by how much, and why."""

from __future__ import annotations

from benchmarks import findings
from benchmarks.drawing import units
from benchmarks.drawing.markup import Markup, element, join, text
from benchmarks.drawing.tables import body, cell, heads, name, row, table
from benchmarks.findings import Ahead
from benchmarks.record import Record

_COLUMNS = ("who", "at", "theirs", "ours", "ahead by")


def who_is_ahead(record: Record) -> Markup:
    """Those that keep the same promise, with why; then those that keep a lesser one."""
    same, lesser = findings.ahead(record), findings.ahead(record, same=False)
    return join(
        [
            _same(same, measured=any(not figure.ours for figure in record.figures)),
            *([_lesser(lesser)] if lesser else []),
        ]
    )


def _same(found: list[Ahead], *, measured: bool) -> Markup:
    if not found:
        said = "No peer that keeps the same promise is ahead of the matching backend anywhere."
        return element("p", text(said if measured else "No peer was measured."))
    lead = (
        "Peers that keep the same promise (durable, indexed, with history) and whose median is"
        " below ours on the same engine. Where the middle halves of the rounds overlap, the next"
        " run may say otherwise."
    )
    columns = heads(*_COLUMNS, "why", numbers=[2, 3, 4])
    rows = body(*(row([*_cells(each), _why(each)]) for each in found))
    drawn = table(columns, rows, caption="Who is ahead and why", class_="stack ahead")
    return join([element("p", text(lead)), drawn])


def _lesser(found: list[Ahead]) -> Markup:
    heading = element("h3", text("Faster, for less"))
    columns = heads(*_COLUMNS, "what it does not keep", numbers=[2, 3, 4])
    rows = body(
        *(
            row([*_cells(each), cell(text(each.peer.promise), "whole", "does not keep")])
            for each in found
        )
    )
    return join([heading, table(columns, rows, caption="Faster, for less", class_="stack ahead")])


def _cells(each: Ahead) -> list[Markup]:
    peer, ours = each.peer, each.ours
    engine = findings.ENGINES.get(peer.engine, peer.engine)
    return [
        name(join([text(peer.contender), element("span", text(f"on {engine}"), class_="note")])),
        cell(text(findings.deed(peer.workload, peer.mode)), "deed", "at"),
        cell(text(units.seconds(peer.median)), "number", "theirs"),
        cell(text(units.seconds(ours.median)), "number", "ours"),
        cell(text(units.times(each.by)), "number", "ahead by"),
    ]


def _why(each: Ahead) -> Markup:
    unknown = each.reason == findings.NO_REASON
    parts = [element("span", text(each.reason), class_="quiet" if unknown else None)]
    if not each.certain:
        parts.append(element("span", text("The middle halves overlap."), class_="note"))
    return cell(join(parts), "whole", "why")
