"""What contenders cost beside time: what wears an SD card out, and what fills a small machine."""

from __future__ import annotations

from benchmarks import findings
from benchmarks.drawing import units
from benchmarks.drawing.markup import NOTHING, Markup, element, join, text
from benchmarks.drawing.tables import body, cell, group, heads, name, row, table
from benchmarks.record import Cost

_COLUMNS = (
    *("contender", "written per change", "in blocks", "syncs per change", "changes per GB"),
    *("on disk per record", "memory", "its own", "import", "open"),
)


def costs(found: list[Cost]) -> Markup:
    """A table, by engine."""
    if not found:
        return element("p", text("Cost was not measured."))
    lead = (
        "Of one durable change: what is handed to the system to write, the whole blocks of 4 KiB"
        " that a disk makes of it, and how often that waits for the disk. An SD card lives by the"
        " changes that it takes to write a GB in blocks. Memory is what is resident in a process"
        " which has imported and opened, over bare Python; its own is what the system cannot drop."
    )
    bodies = (
        body(group(findings.ENGINES.get(engine, engine), len(_COLUMNS)), *map(_cost, rows))
        for engine, rows in findings.by_engine(found).items()
    )
    drawn = table(
        heads(*_COLUMNS, numbers=range(1, len(_COLUMNS))),
        *bodies,
        caption="Cost beside time",
        class_="stack",
    )
    return join([element("p", text(lead)), drawn])


def _cost(cost: Cost) -> Markup:
    changes = 1e9 / cost.change_block_bytes if cost.change_block_bytes else None
    shown = (
        units.size(cost.change_bytes),
        units.size(cost.change_block_bytes),
        units.number(cost.change_syncs),
        units.number(changes),
        units.size(cost.record_bytes),
        units.size(cost.memory_bytes),
        units.size(cost.own_memory_bytes),
        units.seconds(cost.import_seconds),
        units.seconds(cost.open_seconds),
    )
    kept = cost.promise == "same"
    note = NOTHING if kept else element("span", text(cost.promise), class_="note")
    cells = (
        cell(text(value), "number", label) for value, label in zip(shown, _COLUMNS[1:], strict=True)
    )
    who = name(join([text(cost.contender), note]))
    return row([who, *cells], "mine" if cost.ours else None)
