"""How the time of one operation grows with the records there are."""

from __future__ import annotations

from benchmarks.drawing import units
from benchmarks.drawing.lines import Line, lines
from benchmarks.drawing.markup import Markup, element, join, text
from benchmarks.drawing.scales import usable
from benchmarks.drawing.tables import body, cell, group, head, name, row, table
from benchmarks.record import Growth

_OURS = "storebridge "


def growth(grown: list[Growth]) -> Markup:
    """A chart each workload, then all of its points."""
    drawable = [each for each in grown if _points(each)]
    if not drawable:
        return element("p", text("Growth was not measured."))
    lead = (
        "Time of one operation by the number of records, a logarithm on both axes: what costs the"
        " same with any number is level, what grows in step climbs one mark for each mark. Curves"
        " that grow faster than they may are dashed and say MISSED."
    )
    found: dict[str, list[Growth]] = {}
    for each in drawable:
        found.setdefault(each.workload, []).append(each)
    charts = (_chart(workload, curves) for workload, curves in found.items())
    return join(
        [
            element("p", text(lead)),
            element("div", join(charts), class_="curves"),
            element("h3", text("The points")),
            _points_table(found),
        ]
    )


def _points(each: Growth) -> list[tuple[int, float]]:
    return [(at, value) for at, value in each.points if at > 0 and usable([value])]


def _chart(workload: str, curves: list[Growth]) -> Markup:
    shapes = sorted({each.shape for each in curves})
    missed = [each.contender for each in curves if each.verdict == "MISSED"]
    description = f"{len(curves)} curves; " + (
        f"{', '.join(missed)} grow faster than allowed." if missed else "none grows too fast."
    )
    return element(
        "figure",
        element("h3", text(workload)),
        element("figcaption", text(f"may be {' or '.join(shapes)}"), class_="small"),
        lines(
            [_line(each) for each in curves],
            title=f"{workload} by number of records",
            description=description,
            across=units.count,
            up=units.mark,
            below="records",
        ),
    )


def _line(each: Growth) -> Line:
    ours = each.contender.startswith(_OURS)
    missed = each.verdict == "MISSED"
    label = each.contender.removeprefix(_OURS) + (" ✗ MISSED" if missed else "")
    return Line(label, "bad" if missed else "ours" if ours else "peer", _points(each))


def _points_table(found: dict[str, list[Growth]]) -> Markup:
    counts = sorted({at for curves in found.values() for each in curves for at, _ in _points(each)})
    columns = row(
        [
            head(text("contender")),
            head(text("may be")),
            *(head(text(units.count(count)), "number") for count in counts),
            head(text("verdict")),
        ]
    )
    bodies = (
        body(group(workload, len(counts) + 3), *(_row(each, counts) for each in curves))
        for workload, curves in found.items()
    )
    drawn = table(columns, *bodies, caption="Growth: seconds by number of records")
    return element("div", drawn, class_="scroll", tabindex="0", role="region", aria_label="Growth")


def _row(each: Growth, counts: list[int]) -> Markup:
    at = dict(_points(each))
    mark, kind = {"MISSED": ("✗ ", "bad"), "reached": ("✓ ", "good")}.get(each.verdict, ("", ""))
    cells = (
        name(text(each.contender)),
        cell(text(each.shape)),
        *(cell(text(units.seconds(at.get(count))), "number") for count in counts),
        cell(text(mark + each.verdict), f"verdict {kind}".strip()),
    )
    return row(cells, "mine" if each.contender.startswith(_OURS) else None)
