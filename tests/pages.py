"""A page as a browser takes it apart: its elements, tables and texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

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
