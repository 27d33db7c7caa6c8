"""Put what a run left into a page and a file of JSON beside it:

    python -m benchmarks.armv7.report RESULTS [FOLDER]

FOLDER is `benchmarks/results` unless it is given.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

_BACKENDS = ("memory", "sqlite", "lmdb", "bolt", "tinydb", "postgresql")
_FOLDER = re.compile(r"/[^\s:]*/pytest-[^\s:]*/")
"""Where the tests had their files."""
_INTRODUCTION = """\
Made by the steps of `make armv7`, each at the commit that stands beside it: Debian's armhf under
qemu's user emulation. What that can show and what it cannot is said in
[armv7/README.md](../armv7/README.md).
"""
_RATIOS = """\
How many times as long as by hand: the median of storebridge over that of the same work on bare
sqlite3, or on py-lmdb, in turns in one run. Beside it, after the slash, the same ratio without
emulation on the same machine.
"""


def suite(results: Path, backend: str, part: str = "suite") -> dict[str, Any] | None:
    """What the conformance suite came to; None where it was not run. `again` is the part of what
    failed and was run once more."""
    report = results / f"{part}-{backend}.xml"
    if not report.exists():
        return None
    root = next(ElementTree.parse(report).iter("testsuite"))
    cases = list(root.iter("testcase"))
    failed = [
        each.attrib["name"]
        for each in cases
        if each.find("failure") is not None or each.find("error") is not None
    ]
    lines = (results / f"{part}-{backend}.log").read_text().splitlines()
    closing = next((line for line in reversed(lines) if " passed" in line or " failed" in line), "")
    return {
        "closing": closing.strip("= "),
        "failed": sorted(set(failed)),
        "commit": commit(results, f"{part}-{backend}"),
        "again": suite(results, backend, "again") if part == "suite" else None,
    }


def commit(results: Path, part: str) -> str:
    """At which commit a part of the results was made."""
    return (results / f"{part}.commit").read_text().strip()


def edges(results: Path) -> list[dict[str, Any]]:
    """Each test at an edge: its name, its outcome, and what it saw."""
    report = results / "edges.xml"
    if not report.exists():
        return []
    return [
        {
            "test": each.attrib["name"].removeprefix("test_"),
            "outcome": _outcome(each),
            "saw": {
                p.attrib["name"]: _FOLDER.sub("", p.attrib["value"]) for p in each.iter("property")
            },
        }
        for each in ElementTree.parse(report).iter("testcase")
    ]


def _outcome(case: ElementTree.Element) -> str:
    ends = [each.tag for each in case if each.tag in ("failure", "error", "skipped")]
    return ends[0] if ends else "passed"


def gather(results: Path) -> dict[str, Any]:
    """Everything of a run."""
    emulated, native = (
        json.loads((results / name).read_text()) for name in ("ratios.json", "native.json")
    )
    return {
        "commits": {each: commit(results, each) for each in ("edges", "ratios")},
        "machine": native["machine"],
        "emulated": emulated["machine"],
        "versions": (results / "versions").read_text().split(),
        "suites": {each: suite(results, each) for each in _BACKENDS},
        "edges": edges(results),
        "records": emulated["records"],
        "ratios": emulated["ratios"],
        "native ratios": native["ratios"],
        "wheels": json.loads((results / "wheels.json").read_text()),
    }


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Lines of Markdown."""
    names = list(head)
    lines = [names, ["---"] * len(names), *([str(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def page(found: dict[str, Any]) -> str:
    """The page, as Markdown."""
    machine, inside = found["machine"], found["emulated"]
    lines = [f"# ARMv7, {machine['date']}", "", _INTRODUCTION]
    lines += [
        f"On {machine['processor']}, {machine['system']}; {machine['load']}.",
        f"Emulated: {inside['system']}, Python {inside['Python']}, SQLite {inside['SQLite']}.",
        f"Installed: {', '.join(found['versions'])}.",
        *("", "## The conformance suite", ""),
    ]
    suites = found["suites"].items()
    lines += table(
        ("backend", "pytest's closing line", "commit"),
        (
            (name, each["closing"], each["commit"]) if each else (name, "not run", "")
            for name, each in suites
        ),
    )
    for name, each in suites:
        if each and each["failed"]:
            lines += ["", f"Failed on {name}: {', '.join(each['failed'])}.{_again(each['again'])}"]
    lines += ["", "## Where 32 bits end", "", f"At commit {found['commits']['edges']}.", ""]
    lines += table(
        ("test (`benchmarks/armv7/edges.py`)", "outcome", "saw"),
        (
            (each["test"], each["outcome"], "; ".join(f"{k}: {v}" for k, v in each["saw"].items()))
            for each in found["edges"]
        ),
    )
    lines += ["", f"## Ratios, {found['records']:,} records", "", _RATIOS]
    lines += [f"At commit {found['commits']['ratios']}.", ""]
    lines += _ratios(found["ratios"], found["native ratios"])
    lines += ["", "## Wheels for ARMv7", ""]
    lines += table(
        ("package", "what pip finds for ARMv7 and Python 3.11"),
        ((name, _wheel(wheel, found["versions"])) for name, wheel in found["wheels"].items()),
    )
    return "\n".join(lines) + "\n"


def _again(ended: dict[str, Any] | None) -> str:
    return f" Again, alone, at {ended['commit']}: {ended['closing']}." if ended else ""


def _wheel(wheel: str | None, installed: list[str]) -> str:
    """A wheel of an older version than the one that was installed shows that this was compiled."""
    if wheel is None:
        return "none"
    name, version = wheel.split("-")[:2]
    used = dict(each.lower().split("==") for each in installed).get(name.replace("_", "-"), version)
    return wheel if version == used else f"none for {used}; {wheel} would be older"


def _ratios(emulated: dict[str, Any], native: dict[str, Any]) -> list[str]:
    columns = [(each, by) for each in emulated for by in next(iter(emulated[each].values()))]
    operations = list(next(iter(emulated.values())))
    return table(
        ("operation", *(f"{backend} / {by}" for backend, by in columns)),
        (
            (
                operation,
                *(
                    f"{emulated[backend][operation][by]} / {native[backend][operation][by]}"
                    for backend, by in columns
                ),
            )
            for operation in operations
        ),
    )


def main(results: Path, folder: Path) -> None:
    """Write both files."""
    found = gather(results)
    name = f"{found['machine']['date']}-armv7"
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / f"{name}.md").write_text(page(found))
    print(folder / f"{name}.md")


if __name__ == "__main__":
    here = Path(__file__).parents[1] / "results"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else here)
