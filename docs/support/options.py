"""A hook of the site: the page of options is made of the fields of the configuration, so it cannot be out of date."""

from __future__ import annotations

from inspect import get_annotations
from typing import Any

from thresher.config import AuditConfig
from thresher.options import Section

MARK = "<!-- options -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables of options in the place that a page marks for them."""
    return markdown.replace(MARK, _tables()) if MARK in markdown else markdown


def _tables() -> str:
    """A table a section, in the order of the sections: data first, output last."""
    lines: list[str] = []
    for section in reversed(AuditConfig.__mro__):
        own = [name for name in AuditConfig.model_fields if name in get_annotations(section)]
        if issubclass(section, Section) and own:
            title = (section.__doc__ or section.__name__).strip().split("\n")[0].rstrip(".")
            lines += [f"## {title}", "", "| option | default | |", "|---|---|---|"]
            lines += [_line(name) for name in own] + [""]
    return "\n".join(lines)


def _line(name: str) -> str:
    field = AuditConfig.model_fields[name]
    default = "required" if field.is_required() else _shown(field.default)
    return f"| `--{name.replace('_', '-')}` | {default} | {_cell(field.description or '')} |"


def _shown(value: Any) -> str:
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else str("" if value is None else value)
    return f"`{shown}`" if shown else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
