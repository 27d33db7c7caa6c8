"""A bar chart of each workload and mode: everyone who did it, by engine."""

from __future__ import annotations

import re

from benchmarks import findings
from benchmarks.drawing import units
from benchmarks.drawing.bars import axis, bar
from benchmarks.drawing.markup import NOTHING, Markup, element, join, text
from benchmarks.drawing.page import links
from benchmarks.drawing.scales import Scale, scale
from benchmarks.drawing.tables import body, cell, group, head, name, row, table
from benchmarks.findings import Race
from benchmarks.record import Figure, Record

_KEY = (("ours", "ours"), ("peer", "keeps the same promise"), ("lesser", "keeps a lesser promise"))


def workloads(record: Record) -> Markup:
    """A chart each, with links to all of them."""
    races = findings.races(record)
    if not races:
        return element("p", text("No workload was measured."))
    lead = (
        "Time of one operation: the median of the rounds, and their middle half as a whisker; less"
        " is better. Contenders took turns in one run. “By hand” is how many times as long as the"
        " code written by hand on the same engine: a time alone says more of the machine."
    )
    targets = ((_anchor(race), race.title) for race in races)
    shape = Scale(0.0, 1.0, False, ())
    key = (
        element(
            "li",
            element("span", bar(1.0, None, scale=shape, kind=kind, title=said), class_="swatch"),
            text(said),
        )
        for kind, said in _KEY
    )
    return join(
        [
            element("p", text(lead)),
            element("ul", join(key), class_="key"),
            links(targets, "Workloads", "races"),
            *map(_chart, races),
        ]
    )


def _anchor(race: Race) -> str:
    return re.sub(r"\W+", "-", f"{race.workload} {race.mode}".lower())


def _chart(race: Race) -> Markup:
    shared = scale(value for figure in race.figures for value in (figure.median, figure.high))
    said = "log scale: each mark is ten times the last" if shared.logarithmic else ""
    bodies = (
        body(
            group(_engine(engine, figures), 4),
            *(_figure(figure, shared, findings.by_hand(figures, engine)) for figure in figures),
        )
        for engine, figures in findings.by_engine(race.figures).items()
    )
    columns = row(
        [
            head(text("contender"), "who"),
            head(axis(shared, units.mark), "drawn"),
            head(text("median"), "number what"),
            head(text("× by hand"), "number beside"),
        ]
    )
    return element(
        "section",
        element("h3", text(race.title)),
        element("p", text(said), class_="quiet small") if said else NOTHING,
        table(columns, *bodies, caption=race.title, class_="chart"),
        id=_anchor(race),
    )


def _engine(engine: str, figures: list[Figure]) -> str:
    counts = " or ".join(f"{count:,}" for count in sorted({each.records for each in figures}))
    return f"{findings.ENGINES.get(engine, engine)}, {counts} records"


def _figure(figure: Figure, shared: Scale, hand: Figure | None) -> Markup:
    kept = figure.promise == "same"
    note = NOTHING if kept else element("span", text(figure.promise), class_="note")
    kind = "ours" if figure.ours else "peer" if kept else "lesser"
    title = (
        f"{figure.contender}: median {units.seconds(figure.median)}, quartiles"
        f" {units.seconds(figure.low)} and {units.seconds(figure.high)}, {figure.rounds} rounds"
    )
    drawn = bar(
        figure.median,
        (figure.low, figure.high),
        scale=shared,
        kind=kind,
        title=title,
        height=26 if kept else 42,
    )
    ratio = "" if hand is None else units.times(figure.median / hand.median)
    cells = (
        name(join([text(figure.contender), note]), "who"),
        cell(drawn, "drawn"),
        cell(text(units.seconds(figure.median)), "number what"),
        cell(text(ratio), "number beside"),
    )
    return row(cells, "mine" if figure.ours else None)
