"""The page around a report: everything is in it, nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.drawing.markup import Markup, element, join, text
from benchmarks.drawing.style import COLOURS

_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


class Section(NamedTuple):
    """A heading that the page's navigation leads to."""

    anchor: str
    title: str
    content: Markup


def page(title: str, subtitle: str, top: Markup, sections: Iterable[Section]) -> str:
    """A whole document."""
    shown = list(sections)
    head = (
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", text(title)),
        element("style", Markup(COLOURS + _STYLE)),
    )
    body = (
        element(
            "header",
            element("h1", text(title)),
            element("p", text(subtitle), class_="quiet"),
            top,
            links(((each.anchor, each.title) for each in shown), "Sections"),
        ),
        element("main", *(_section(each) for each in shown)),
    )
    document = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def links(targets: Iterable[tuple[str, str]], label: str, class_: str | None = None) -> Markup:
    """Anchors and what they are called."""
    items = (element("li", element("a", text(name), href=f"#{anchor}")) for anchor, name in targets)
    return element("nav", element("ul", join(items)), aria_label=label, class_=class_)


def _section(section: Section) -> Markup:
    heading = element("h2", text(section.title))
    return element("section", heading, section.content, id=section.anchor)
