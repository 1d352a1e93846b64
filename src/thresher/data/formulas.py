"""Cells of csv and tsv files that a spreadsheet would compute instead of showing them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from thresher.data.formats import PACKED, ending
from thresher.data.table import Table

FORMS = (".csv", ".tsv")
_FORMULA = re.compile(r"(?![+-]([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z)[=+\-@\t\r]")  # no signed number is one


def for_spreadsheets(target: Path) -> bool:
    """Whether a file of this name is one that people open in a spreadsheet, which takes text for formulas."""
    return ending(target).removesuffix(PACKED) in FORMS


def guard_cells(table: Table) -> tuple[Table, int]:
    """A table whose formulas a spreadsheet shows as text, and how many there were.

    Args:
        table: Rows as they were given.

    Returns:
        The rows with ``'`` before every text and column name that begins as formulas do (``=``, ``+``, ``-``, ``@``, a
        tab or a carriage return) and is no number, and the count of these.
    """
    records = [{_guard(name): _guard(value) for name, value in record.items()} for record in table.records]
    columns = tuple(map(_guard, table.columns))
    cells = sum(_is_formula(value) for record in table.records for value in record.values())
    return replace(table, records=records, columns=columns), cells + sum(map(_is_formula, table.columns))


def _is_formula(value: Any) -> bool:
    return isinstance(value, str) and _FORMULA.match(value) is not None


def _guard(value: Any) -> Any:
    return f"'{value}" if _is_formula(value) else value
