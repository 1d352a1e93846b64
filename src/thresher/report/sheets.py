"""A table as it is: for the console, and for a page."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.styled import Styled
from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """``rows`` have a cell for each of the ``headers``; the first says what a row is of, ``note`` how to read it."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def as_table(sheet: Sheet) -> RenderableType:
    """The table for the console, with its note below."""
    table = Table(title=sheet.title, title_justify="left")
    for number, header in enumerate(sheet.headers):
        table.add_column(header, justify="right" if number else "left")
    for row in sheet.rows:
        table.add_row(*row)
    return Group(table, Styled(sheet.note, "dim")) if sheet.note else table
