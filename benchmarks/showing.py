"""The two pictures of the README."""

from __future__ import annotations

from benchmarks import findings
from benchmarks.choosing import ALONE, BACKENDS, CHANGE, TOGETHER
from benchmarks.drawing import units
from benchmarks.drawing.cards import Bar, Group, Row, card
from benchmarks.record import Cost, Figure, Record

_LESSER = ("lesser", "others that keep less")


def changes_card(record: Record) -> str:
    """Durable changes a second, by one caller and by 64."""
    figures = [
        figure
        for figure in record.figures
        if figure.workload == CHANGE and figure.mode in (ALONE, TOGETHER) and figure.median > 0
    ]
    groups = [
        Group(findings.ENGINES.get(engine, engine), _changes(rows))
        for engine, rows in findings.by_engine(figures).items()
        if _durable(engine)
    ]
    return card(
        "Durable changes a second",
        "A state change with its event, indexes and counters, on the disk when the call returns:"
        " the upper bar with one caller, the lower with 64 at once. More is better.",
        [
            ("ours-soft", "storebridge, 1 caller"),
            ("ours", "64 callers"),
            ("peer-soft", "others, 1 caller"),
            ("peer", "64 callers"),
            _LESSER,
        ],
        groups,
        description=_description(groups),
    )


def _durable(engine: str) -> bool:
    return engine not in BACKENDS or BACKENDS[engine].durable


def _changes(figures: list[Figure]) -> list[Row]:
    found: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        found.setdefault(figure.contender, {})[figure.mode] = figure
    rows = []
    for name, modes in found.items():
        first = next(iter(modes.values()))
        kind = _kind(first)
        bars = [
            Bar(1 / modes[mode].median, units.rate(1 / modes[mode].median), kind + suffix)
            for mode, suffix in ((ALONE, "-soft"), (TOGETHER, ""))
            if mode in modes
        ]
        rows.append(Row(name, _note(first), first.ours, bars))
    return sorted(rows, key=lambda row: (not row.mine, -max(bar.value for bar in row.bars)))


def cost_card(record: Record) -> str:
    """What a durable change writes, and how often it waits for the disk."""
    costs = [cost for cost in record.costs if findings.written(cost) and _durable(cost.engine)]
    groups = [
        Group(findings.ENGINES.get(engine, engine), _costs(rows))
        for engine, rows in findings.by_engine(costs).items()
    ]
    return card(
        "Written for one durable change",
        "In whole blocks, as a disk takes it, and how often the change waits for the disk: the"
        " first wears an SD card out, the second is the time on a slow one. Less is better; a bar"
        " with a break is cut.",
        [("ours", "storebridge"), ("peer", "others"), _LESSER],
        groups,
        description=_description(groups),
        aside="syncs per change",
        longest=3,
    )


def _costs(costs: list[Cost]) -> list[Row]:
    rows = []
    for cost in costs:
        size = findings.written(cost) or 0
        bar = Bar(size, units.size(size), _kind(cost))
        syncs = cost.change_syncs
        aside = units.UNKNOWN if syncs is None else f"{round(syncs, 2):g}"
        rows.append(Row(cost.contender, _note(cost), cost.ours, [bar], aside))
    return sorted(rows, key=lambda row: (not row.mine, row.bars[0].value))


def _kind(row: Figure | Cost) -> str:
    return "ours" if row.ours else "peer" if row.promise == "same" else "lesser"


def _note(row: Figure | Cost) -> str:
    return "" if row.promise == "same" else row.promise


def _description(groups: list[Group]) -> str:
    """The figures in words, for those who do not see them."""
    said = (
        f"{row.name}: {', '.join(bar.label for bar in row.bars)}"
        + (f", syncs: {row.aside}" if row.aside else "")
        for group in groups
        for row in group.rows
    )
    return "; ".join(said) or "Nothing was measured."
