"""A page as a browser takes it apart: its elements, tables and texts; and that nothing on it can do anything."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import thresher
from audits import Audits

REPORTED = Audits(
    {"train": 60, "validation": 16, "test": 12},
    {
        "epochs": 1,
        "learning_rate": 1e-3,
        "batch_size": 16,
        "methods": ("tracin", "datainf"),
        "modules": "lora_B|classifier",
    },
    {"plant": 0.2, "canaries": 0.15, "retrain": True},
)
"""The audits that the tests of reports look at."""

EMPTY = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """``tables`` by caption: lines of cells, the headers first; ``elements`` with their attributes; ``text`` of all."""

    tables: dict[str, list[list[str]]] = field(default_factory=dict[str, list[list[str]]])
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list[tuple[str, dict[str, str]]])
    text: str = ""
    _open: list[str] = field(default_factory=list[str])
    _lines: list[list[str]] = field(default_factory=list[list[str]])
    _caption: str = ""

    @classmethod
    def of(cls, text: str) -> Page:
        page = cls()
        HTMLParser.__init__(page)
        page.feed(text)
        page.close()
        assert not page._open, page._open
        return page

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag in EMPTY:
            return
        self._open.append(tag)
        if tag == "table":
            self._lines, self._caption = [], ""
        elif tag == "tr":
            self._lines.append([])
        elif tag in ("td", "th"):
            self._lines[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in EMPTY:
            return
        assert self._open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._lines

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif self._lines and self._lines[-1] and ("td" in self._open or "th" in self._open):
            self._lines[-1][-1] += data

    def table(self, begins: str) -> list[list[str]]:
        """The lines of the one table whose caption begins so, without its headers."""
        (found,) = (lines for caption, lines in self.tables.items() if caption.startswith(begins))
        return found[1:]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def page_of(result: thresher.AuditResult) -> Page:
    return Page.of((result.folder / "report.html").read_text(encoding="utf-8"))


def pictures(page: Page) -> set[str]:
    """Names of the pictures, which begin the names of their parts."""
    return {given["id"].partition("-figure_1")[0] for _, given in page.elements if "-figure_1" in given.get("id", "")}


def check_contained(text: str) -> None:
    """Nothing on the page can ask for anything, run anything, or stand for two parts."""
    page = Page.of(text)
    names = [given["id"] for _, given in page.elements if "id" in given]
    assert len(names) == len(set(names))
    asked = {"src", "srcset", "data", "action", "background", "poster", "formaction", "ping", "manifest", "xlink:href"}
    for tag, given in page.elements:
        assert tag not in {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "form",
            "base",
            "foreignobject",
            "image",
        }
        assert not asked & set(given) and not [name for name in given if name.startswith("on")], (tag, given)
        assert "href" not in given or given["href"].removeprefix("#") in names
        for value in given.values():
            assert all(one in names for one in re.findall(r"url\(#?([^)]*)\)", value))
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style
