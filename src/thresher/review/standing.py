"""Where a review stands: what was found, what is left, and how many more rows to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from thresher.arrays import Floats
from thresher.calibration.decided import Left
from thresher.decisions import Decision

SOON = 50
"""Rows that the next of is told."""

GOALS = (0.9, 0.95)


@dataclass(frozen=True)
class Standing:
    """A review in numbers.

    Attributes:
        looked_at: Rows that somebody decided about.
        found: Of them those that are wrong.
        left: How many of the others are; None where nothing tells.
        soon: How many of the next ``SOON`` are expected to be wrong; None alike.
        more: How many more rows are expected to be looked at until 90 and 95 % of all that are wrong are found.
    """

    looked_at: int
    found: int
    left: Left | None
    soon: float | None
    more: dict[float, int]

    @property
    def line(self) -> str:
        """All of it, in a sentence or two."""
        said = f"{self.looked_at:,} looked at, {self.found:,} found wrong"
        if self.left is None or self.soon is None:
            return f"{said}."
        low, high = np.floor(self.left.low), np.ceil(self.left.high)
        said += f", about {self.left.estimate:,.0f} ({low:,.0f} to {high:,.0f}) left"
        said += f"; of the next {SOON} about {self.soon:.0f}."
        to_do = [f"{more:,} more for {goal:.0%}" for goal, more in self.more.items() if more]
        if self.left.estimate < 1:
            return f"{said} There is little left to find."
        return (
            f"{said} Of all that are wrong: {', '.join(to_do)}." if to_do else f"{said} 95 % are found: time to stop."
        )


def stand(scores: pd.DataFrame, decided: Mapping[int, Decision], left: Left | None) -> Standing:
    """Of a run's verdicts as they are now, what was decided, and how many wrong rows are thought to be left."""
    found = sum(bool(one.wrong) for one in decided.values())
    if left is None or "probability_wrong" not in scores:
        return Standing(len(decided), found, None, None, {})
    unseen = np.ones(len(scores), dtype=bool)
    unseen[[row for row, one in decided.items() if one.wrong is not None]] = False
    likely = np.sort(np.nan_to_num(scores["probability_wrong"].to_numpy(dtype=np.float64)[unseen]))[::-1]
    return Standing(len(decided), found, left, float(likely[:SOON].sum()), _more(likely, found))


def _more(likely: Floats, found: int) -> dict[float, int]:
    """How many rows, the likeliest first, until each goal is expected to be reached."""
    expected = found + np.cumsum(likely)
    every = found + likely.sum()
    if not len(likely):
        return dict.fromkeys(GOALS, 0)
    return {goal: 0 if found >= goal * every else int(np.searchsorted(expected, goal * every)) + 1 for goal in GOALS}
