"""The README's figures are those of a record, and only those."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import choosing, readme
from benchmarks.record import Record, read, write
from benchmarks.showing import changes_card, cost_card
from tests.unit.report.records import change, figure, full

TEXT = """# A project
<!-- figures: choosing (drawn) -->
old
<!-- end of figures -->
between
<!-- figures: speed -->
<!-- end of figures -->
after
"""
SVG = "{http://www.w3.org/2000/svg}"


def test_only_what_is_between_the_marks_changes() -> None:
    """And drawing twice is as drawing once."""
    once = readme.rewritten(TEXT, {"choosing": "new \\1", "speed": "fast"})
    assert once == TEXT.replace("old\n", "\nnew \\1\n\n").replace(
        "speed -->\n", "speed -->\n\nfast\n\n"
    )
    assert readme.rewritten(once, {"choosing": "new \\1", "speed": "fast"}) == once


@pytest.mark.parametrize("text", ["", TEXT.replace("speed", "spede"), TEXT + TEXT])
def test_marks_must_be_there_once(text: str) -> None:
    """Rather than drawing half of it."""
    with pytest.raises(ValueError, match="marks for"):
        readme.rewritten(text, {"choosing": "", "speed": ""})


def _row(table: str, name: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| `{name}`"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_holds_the_figures() -> None:
    """Rates are one over the median; memory keeps nothing, so its changes are not durable."""
    table = choosing.table(full())
    assert _row(table, "sqlite")[2:8] == [
        *("2,500/s", "20,000/s", "8.00 µs", "21.0 KB", "1.60 KB", "14.0 MB")
    ]
    assert _row(table, "memory")[2:4] == ["–", "–"]
    assert _row(table, "bolt")[2:8] == ["–"] * 6


def test_columns_without_a_figure_are_left_out() -> None:
    """A record of half a run makes a table of half the columns, and none makes one of words."""
    half = Record(
        figures=[figure("storebridge lmdb", 5e-6, engine="lmdb", workload="get", mode="reading")]
    )
    assert choosing.table(half).splitlines()[0] == (
        "| backend | open to | get | read by | choose it when |"
    )
    assert len(choosing.table(Record()).splitlines()) == 2 + len(choosing.BACKENDS)


@pytest.mark.parametrize("record", [full(), Record()], ids=["full", "empty"])
def test_pictures_stand_alone(record: Record) -> None:
    """SVG that any reader takes, with a title, its figures in words, and both colour schemes."""
    for picture in (changes_card(record), cost_card(record)):
        root = ElementTree.fromstring(picture)
        assert root.tag == f"{SVG}svg"
        assert root.findtext(f"{SVG}title")
        assert root.findtext(f"{SVG}desc")
        assert "prefers-color-scheme:dark" in (root.findtext(f"{SVG}style") or "")
        assert "href" not in picture


def test_pictures_say_their_figures() -> None:
    """What is no durable change is not shown as one, and what is cut says how long it is."""
    changes, cost = changes_card(full()), cost_card(full())
    assert "storebridge sqlite: 2,500/s, 20,000/s; sqlite3 by hand: 3,120/s" in changes
    assert "memory" not in changes
    assert "TinyDB: 8.00 MB, syncs: 1" in cost


def test_a_picture_of_nothing_says_so() -> None:
    """Rather than being a frame around nothing."""
    for picture in (changes_card(Record()), cost_card(Record())):
        shown = [each.text for each in ElementTree.fromstring(picture).iter(f"{SVG}text")]
        assert "Nothing was measured." in shown


def test_a_long_bar_is_cut() -> None:
    """It ends where the others can be seen, with a break; nothing leaves the picture."""
    cut = cost_card(full())
    assert 'class="cut"' in cut
    widths = [
        float(each.get("width", 0)) for each in ElementTree.fromstring(cut).iter(f"{SVG}rect")
    ]
    assert max(widths[1:]) < widths[0]


def test_names_are_escaped_in_pictures() -> None:
    """As in the report."""
    record = Record(figures=[change("<b>&\0", 1e-3, "64 callers", promise="<i>")])
    assert "<b>&\ufffd" in "".join(ElementTree.fromstring(changes_card(record)).itertext())


def test_drawn_from_a_record(tmp_path: Path) -> None:
    """All files at once: what misses a hand-written figure or a target has none."""
    path = tmp_path / "2026-11-29-amd64.json"
    write(full(), path)
    files = readme.drawn(path, TEXT)
    text = files[readme.README]
    assert [path.name for path in files] == ["README.md", "changes.svg", "cost.svg"]
    assert "| create, in a batch | 1.50 |" in text
    assert "Of 3 targets 1 were reached and 1 not measured." in text
    assert "- rate: 20,000, at least 40,000 a second was asked" in text
    write(Record(), path)
    assert "Not measured." in readme.drawn(path, TEXT)[readme.README]


def test_a_record_is_kept_by_its_date(tmp_path: Path) -> None:
    """Among the results it stays; from elsewhere it is put there; from another machine it is
    refused."""
    results, source = tmp_path / "results", tmp_path / "latest.json"
    write(full(), source)
    kept = readme.keep(source, results)
    assert kept == results / "2026-11-29-amd64.json"
    assert read(kept) == full()
    assert readme.keep(kept, results) == kept == readme.newest(results)
    write(Record(machine={"system": "Linux, armv7l"}), source)
    with pytest.raises(ValueError, match="amd64"):
        readme.keep(source, results)


def test_the_newest_record_counts(tmp_path: Path) -> None:
    """By its date, of this architecture."""
    assert readme.newest(tmp_path) is None
    for name in ("2026-11-29-amd64.json", "2026-12-01-amd64.json", "2027-01-01-armv7.json"):
        write(Record(), tmp_path / name)
    assert readme.newest(tmp_path) == tmp_path / "2026-12-01-amd64.json"
