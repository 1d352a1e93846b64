"""What a report is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thresher.report.sheets import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """What ``draw`` draws, under ``title``; ``alt`` says it to those who do not see it, ``sheet`` has its numbers."""

    name: str
    title: str
    draw: Callable[[], Figure]
    alt: str
    note: str = ""
    sheet: Sheet | None = None


@dataclass(frozen=True)
class Section:
    """A part of the report under its title; ``doubt`` is what stands out in it."""

    name: str
    title: str
    lines: tuple[str, ...] = ()
    doubt: str = ""
    pictures: tuple[Picture, ...] = ()
    sheets: tuple[Sheet, ...] = ()
