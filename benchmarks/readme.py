"""The README's figures: `python -m benchmarks.readme RECORD` draws them from a record.

A record that is not in `benchmarks/results/` is kept there first, by its date. What is between the
marks in README.md, and the pictures, are what the newest record there yields; a test says so.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import msgspec

from benchmarks import choosing, findings
from benchmarks.drawing import units
from benchmarks.record import Figure, Record, read, write
from benchmarks.showing import changes_card, cost_card

TOP = Path(__file__).parents[1]
README = TOP / "README.md"
RESULTS = TOP / "benchmarks" / "results"
_ARCHITECTURE = "amd64"
"""A README has figures of one; emulated ones say nothing but ratios."""
_SPEED = ("sqlite", "lmdb", "bolt", "sqlalchemy")
_PICTURES = {
    "changes.svg": "Durable changes a second by contender, with one caller and with 64",
    "cost.svg": "What one durable change writes, and how often it waits for the disk",
}
_marked = re.compile(
    r"(<!-- figures: (\w+)[^>]* -->\n).*?(<!-- end of figures -->)", re.MULTILINE | re.DOTALL
)


def newest(results: Path = RESULTS) -> Path | None:
    """The record that the README is drawn from."""
    return max(results.glob(f"*-{_ARCHITECTURE}.json"), default=None)


def drawn(path: Path, readme: str) -> dict[Path, str]:
    """What each file is to contain for a record; `readme` is what the README contains."""
    record = read(path)
    sections = {"choosing": _choosing(record, path.name), "speed": _speed(record)}
    return {
        README: rewritten(readme, sections),
        RESULTS / "changes.svg": changes_card(record),
        RESULTS / "cost.svg": cost_card(record),
    }


def rewritten(readme: str, sections: dict[str, str]) -> str:
    """The text with each section between its marks. ValueError if one has none, or there is one
    more."""
    marked = sorted(match[2] for match in _marked.finditer(readme))
    if marked != sorted(sections):
        raise ValueError(f"marks for {', '.join(marked) or 'nothing'}, not {', '.join(sections)}")
    return _marked.sub(lambda match: f"{match[1]}\n{sections[match[2]]}\n\n{match[3]}", readme)


def keep(source: Path, results: Path = RESULTS) -> Path:
    """The record among the results, where it is put if it comes from elsewhere. ValueError if it
    does not come from this architecture."""
    record = read(source)
    if "x86_64" not in record.machine.get("system", ""):
        raise ValueError(f"{source}: not measured on {_ARCHITECTURE}, as the README's figures are")
    if source.resolve().parent == results.resolve():
        return source
    kept = results / f"{record.machine.get('date', 'undated')}-{_ARCHITECTURE}.json"
    write(record, kept)
    return kept


def _choosing(record: Record, name: str) -> str:
    where = ", ".join(
        record.machine[key] for key in ("date", "processor", "sync") if key in record.machine
    )
    pictures = "\n\n".join(
        f"![{said}](benchmarks/results/{file})" for file, said in _PICTURES.items()
    )
    measured = textwrap.fill(
        f"Measured by `make bench`: {where or 'nobody noted where'}. On a slower disk the durable"
        " changes of one caller take as much longer; those of many callers, who share commits, far"
        " less.",
        104,
        break_on_hyphens=False,
    )
    return "\n\n".join(
        (
            "## Which backend should I choose?",
            choosing.table(record),
            measured,
            pictures,
            f"All figures and their spread: [{name}](benchmarks/results/{name}).",
        )
    )


def _speed(record: Record) -> str:
    rows = [
        (race, [_ratio(race.figures, engine) for engine in _SPEED])
        for race in findings.races(record)
    ]
    shown = [(race, ratios) for race, ratios in rows if any(ratios)]
    engines = [engine for at, engine in enumerate(_SPEED) if any(ratios[at] for _, ratios in shown)]
    lines = [["", *engines], ["---", *["--:"] * len(engines)]]
    for race, ratios in shown:
        cells = (ratios[_SPEED.index(engine)] for engine in engines)
        lines.append([race.title, *(f"{cell:.2f}" if cell else units.UNKNOWN for cell in cells)])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines) if shown else "Not measured."
    return f"{table}\n\n{_targets(record)}"


def _ratio(figures: list[Figure], engine: str) -> float | None:
    """Ours to the code written by hand that keeps the same promise."""
    hand = findings.by_hand(figures, engine)
    mine = next((f for f in figures if f.ours and f.engine == engine and f.median > 0), None)
    if hand is None or mine is None or hand.promise != "same":
        return None
    return mine.median / hand.median


def _targets(record: Record) -> str:
    missed = [outcome for outcome in record.targets if outcome.verdict == "MISSED"]
    reached = sum(outcome.verdict == "reached" for outcome in record.targets)
    rest = len(record.targets) - reached - len(missed)
    lines = [f"Of {len(record.targets)} targets {reached} were reached and {rest} not measured."]
    if missed:
        lines += ["Missed:", ""]
    lines += [
        f"- {outcome.what}: {units.number(outcome.value)}, {outcome.asked} was asked"
        for outcome in missed
    ]
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.readme RECORD")
    try:
        kept = keep(Path(sys.argv[1]))
        for path, content in drawn(kept, README.read_text(encoding="utf-8")).items():
            path.write_text(content, encoding="utf-8")
            print(path)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")


if __name__ == "__main__":
    main()
