"""Tables that stay tables to a screen reader where a narrow screen lays them out as blocks."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.drawing.markup import Markup, element, text


def table(head: Markup, *bodies: Markup, caption: str, class_: str | None = None) -> Markup:
    """With a caption that says what it shows, to those who cannot see where it stands."""
    top = element("thead", head, role="rowgroup")
    said = element("caption", text(caption))
    return element("table", said, top, *bodies, class_=class_, role="table")


def body(*rows: Markup) -> Markup:
    return element("tbody", *rows, role="rowgroup")


def row(cells: Iterable[Markup], class_: str | None = None) -> Markup:
    return element("tr", *cells, class_=class_, role="row")


def heads(*names: str, numbers: Iterable[int] = ()) -> Markup:
    """A row of column heads; those of `numbers` stand to the right."""
    right = set(numbers)
    return row(
        head(text(name), "number" if index in right else None) for index, name in enumerate(names)
    )


def head(content: Markup, class_: str | None = None) -> Markup:
    return element("th", content, scope="col", role="columnheader", class_=class_)


def name(content: Markup, class_: str | None = None) -> Markup:
    """What a row is about."""
    return element("th", content, scope="row", role="rowheader", class_=class_)


def cell(content: Markup, class_: str | None = None, label: str | None = None) -> Markup:
    """`label` names the column where there is no head over it."""
    return element("td", content, role="cell", class_=class_, data_label=label)


def group(title: str, columns: int) -> Markup:
    """A row that says what those below it have in common."""
    inner = element("th", text(title), colspan=columns, scope="colgroup", role="rowheader")
    return row([inner], "group")
