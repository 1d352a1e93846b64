"""What a study's job comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How one job ended: after how many seconds (0 where nobody could tell), and one line of what went wrong."""

    name: str
    seconds: float
    error: str | None


Work = Callable[[str], Outcome]
"""Runs the job of a name: picklable, takes up what an earlier call left unfinished, tells of errors in its outcome."""
