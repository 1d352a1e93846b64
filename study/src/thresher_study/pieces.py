"""What a report is made of: tables, drawings, and what the runs do not give; how numbers are written in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isinf, isnan
from typing import TYPE_CHECKING

import pandas as pd

from thresher_study.frames import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """A table of method.md 7: its ``numbers`` in full, one line a cell, and as people read it (``shown``, texts)."""

    name: str
    title: str
    sentence: str
    numbers: pd.DataFrame
    shown: pd.DataFrame
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """A figure of method.md 7: its pictures by what tells them apart (a model, or none), and the ``numbers`` drawn."""

    name: str
    title: str
    sentence: str
    numbers: pd.DataFrame
    figures: Mapping[str, Figure] = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Absent:
    """What cannot be made of these runs, and why."""

    name: str
    title: str
    reason: str


def decimal(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """``.55``, as the paper writes shares and correlations; ``+.55`` with ``sign``, ``-`` where there is none."""
    if isnan(value):
        return "-"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return re.sub(r"^([+-]?)0\.", r"\1." if float(text) else ".", text)


def ratio(value: float) -> str:
    """``10.5``, ``inf``, or ``-`` where there is none."""
    if isnan(value):
        return "-"
    return "inf" if isinf(value) else f"{value:.1f}" if value < 1000 else f"{value:.1g}"


def interval(low: float, high: float, digits: int = 2, *, sign: bool = False) -> str:
    """``[.35, .62]``; nothing where there is none."""
    return "" if isnan(low) else f"[{decimal(low, digits, sign=sign)}, {decimal(high, digits, sign=sign)}]"


def around(line: Line, digits: int = 2, *, sign: bool = False) -> str:
    """``.55 [.48, .62]``: the mean of a line with ``mean`` and ``margin_95``, and its interval."""
    mean, margin = line["mean"], line["margin_95"]
    found = interval(mean - margin, mean + margin, digits, sign=sign)
    return f"{decimal(mean, digits, sign=sign)} {found}".rstrip()


def listed(parts: Iterable[str]) -> str:
    """Parts of a sentence, one after the other."""
    return "; ".join(parts)


def markdown(table: pd.DataFrame) -> list[str]:
    """The lines of a Markdown table of texts."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
