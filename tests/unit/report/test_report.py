"""The report says what a record says, whatever is in it or missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import msgspec
import pytest

from benchmarks import findings, report
from benchmarks.record import Cost, Growth, Outcome, Record
from tests.unit.report.records import figure, full

NASTY = "<script>alert(1)</script> \"'&\0 ]]> <!--"


def parsed(record: Record) -> ElementTree.Element:
    page = report.report(record)
    assert page.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(page.split("\n", 1)[1])


def words(element: ElementTree.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def section(record: Record, anchor: str) -> ElementTree.Element:
    found = parsed(record).find(f".//section[@id='{anchor}']")
    assert found is not None
    return found


def _renamed(value: object) -> object:
    if isinstance(value, str):
        return value if value in {"same", "MISSED", "reached"} else f"{value}{NASTY}"
    if isinstance(value, list):
        return [_renamed(each) for each in value]
    if isinstance(value, dict):
        return {key: _renamed(each) for key, each in value.items()}
    return value


def test_names_are_escaped() -> None:
    """Whatever contenders, workloads, machines and targets are called, it is text."""
    plain = msgspec.to_builtins(full())
    nasty = msgspec.convert(_renamed(plain), Record)
    page = parsed(nasty)
    assert [each.tag for each in page.iter() if each.tag == "script"] == []
    shown = words(page)
    for name in ("storebridge sqlite", "APScheduler", "TinyDB", "two cores", "idle"):
        assert name + " ".join(NASTY.replace("\0", "\ufffd").split()) in shown


def test_an_empty_record_is_a_page() -> None:
    """A run that measured nothing says so in each section."""
    page = parsed(Record())
    sections = [words(each) for each in page.iterfind(".//main/section")]
    assert len(sections) == 6
    for said in (
        "No target was",
        "No peer was",
        "No workload was",
        "Growth was not",
        "Cost was not",
    ):
        assert any(said in each for each in sections), said


def test_missing_figures_are_dashes() -> None:
    """What was not measured is neither drawn nor taken for zero."""
    record = Record(
        figures=[figure("storebridge bolt", 2e-6, engine="bolt"), figure("sqlite3 by hand", 0.0)],
        costs=[Cost("storebridge lmdb", "lmdb", True, "same")],
        growth=[
            Growth("get", "storebridge lmdb", "flat", [], "not measured"),
            Growth("get", "storebridge sqlite", "flat", [(1000, 1e-6)], "reached"),
            Growth("get", "storebridge bolt", "flat", [(1000, 0.0), (2000, 1e-6)], "reached"),
        ],
        targets=[Outcome("x", "a thing", "at most 2 times", None, "times", "not measured")],
    )
    page = parsed(record)
    costs = page.find(".//section[@id='cost']")
    assert costs is not None
    assert {words(each) for each in costs.iterfind(".//td")} == {"–"}
    growth = page.find(".//section[@id='growth']")
    assert growth is not None
    assert "storebridge lmdb" not in words(growth)
    assert "storebridge bolt flat – 1.00 µs" in words(growth)
    assert "not measured a thing at most 2 times" in words(page)


def test_nothing_is_fetched() -> None:
    """One file, which works without a network: no script, style, font or picture from elsewhere."""
    page = report.report(full())
    assert re.findall(r"https?:|url\(|@import|<script|<link|<img| src=", page) == []
    targets = re.findall(r'href="([^"]*)"', page)
    ids = re.findall(r' id="([^"]*)"', page)
    assert targets
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert len(ids) == len(set(ids))


def test_who_is_ahead_is_told_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """By how much, and why; for want of a reason that none is known."""
    known = {("create", "in a batch", "sqlite3 by hand"): "does without"}
    monkeypatch.setattr(findings, "REASONS", known)
    record = full()
    said = words(section(record, "ahead"))
    assert "sqlite3 by hand on SQLite create, in a batch 20.0 µs 30.0 µs 1.50×" in said
    assert "does without" in said
    assert f"set_state, one a transaction 320 µs 400 µs 1.25× {findings.NO_REASON}" in said
    lines = [str(each) for each in findings.ahead(record)]
    assert lines[1] == (
        "sqlite3 by hand is 1.25 times as fast as storebridge sqlite: set_state, one a transaction:"
        " no reason known"
    )


def test_only_like_is_compared_with_like() -> None:
    """Ahead is who is faster on the same engine in the same mode; who keeps less stands apart."""
    record = Record(
        figures=[
            figure("storebridge sqlite", 5e-6),
            figure("py-lmdb by hand", 1e-6, engine="lmdb"),
            figure("sqlite3 by hand", 1e-6, mode="64 callers"),
            figure("aiosqlite by hand", 6e-6),
            figure("diskcache", 1e-6, promise="no history"),
        ]
    )
    assert findings.ahead(record) == []
    said = words(section(record, "ahead"))
    assert "No peer that keeps the same promise is ahead" in said
    assert "Faster, for less" in said
    assert "diskcache on SQLite create, in a batch 1.00 µs 5.00 µs 5.00× no history" in said


def test_what_may_be_noise_is_told() -> None:
    """Where the middle halves of two overlap, the order may be chance."""
    close = Record(figures=[figure("storebridge sqlite", 1.05e-6), figure("other", 1e-6)])
    apart = Record(figures=[figure("storebridge sqlite", 2e-6), figure("other", 1e-6)])
    assert "The middle halves overlap" in words(section(close, "ahead"))
    assert "The middle halves overlap" not in words(section(apart, "ahead"))


def _rows(record: Record) -> Iterator[str]:
    return (words(row) for row in section(record, "workloads").iterfind(".//tr"))


def test_bars_are_told_in_words() -> None:
    """Each bar has its figures, the ratio to the hand-written code, and what a peer does not keep
    beside it: nothing is said by colour or length alone."""
    rows = list(_rows(full()))
    ours = next(row for row in rows if row.startswith("storebridge sqlite"))
    assert "quartiles 27.0 µs and 33.0 µs, 5 rounds" in ours
    assert ours.endswith("30.0 µs 1.50×")
    assert any(row.startswith("APScheduler no history") for row in rows)
    assert next(row for row in rows if row.startswith("storebridge lmdb")).endswith("25.0 µs")


def test_a_logarithmic_axis_says_so() -> None:
    """And a linear one does not."""
    near = Record(figures=[figure("storebridge sqlite", 1e-6), figure("other", 2e-6)])
    far = Record(figures=[figure("storebridge sqlite", 1e-6), figure("other", 2e-4)])
    assert "log scale" not in words(section(near, "workloads"))
    assert "log scale" in words(section(far, "workloads"))


def test_growth_that_is_too_fast_is_named() -> None:
    """In the picture, in its description, and in the table."""
    growth = section(full(), "growth")
    picture = growth.find(".//svg")
    assert picture is not None
    assert "storebridge bolt grow faster than allowed" in (picture.findtext("desc") or "")
    assert "bolt ✗ MISSED" in words(picture)
    assert "storebridge bolt flat 8.00 µs 80.0 µs ✗ MISSED" in words(growth)


def test_targets_have_the_missed_first() -> None:
    """With what was found and asked."""
    rows = [words(row) for row in section(full(), "targets").iterfind(".//tr")][1:]
    assert rows[0].startswith("✗ MISSED rate")
    assert rows[0].endswith("20,000 a second at least 40,000 a second")
    assert "200 % of its limit" in rows[0]
    assert rows[1].startswith("✓ reached get beside by hand 75.0 % of its limit 1.20 times")
    assert rows[2].startswith("by make bench-full idle")
