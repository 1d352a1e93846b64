"""Whether probabilities are what they say, by canaries: of rows that are said to be wrong with 0.7, are 0.7 wrong?

Nobody knows which rows are wrong, but canaries are known to be, and lie where wrong rows lie. With the densities f_1 of
wrong and f_0 of right rows among the looks of one probability, a share pi of wrong rows, and canaries of which delta =
pi / (C - 1) were made right (:mod:`thresher.calibration.error_rate`), canaries have the density (1 - delta) f_1 + delta
f_0 and the other looks pi f_1 + (1 - pi) f_0. Both are counted, so pi f_1 / (pi f_1 + (1 - pi) f_0), the share of the
other looks there that is wrong, follows without the curve that gave the probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from thresher.arrays import Flags, Floats

EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
Z = 1.96


@dataclass(frozen=True)
class Reliable:
    """Looks at rows whose ``probability`` of being wrong, its mean, lies from ``above`` to ``up_to``: how many are of
    ``rows`` as given and of ``canaries``, and which share of the former is wrong as the latter tell it, with its 95 %
    interval."""

    above: float
    up_to: float
    probability: float
    rows: int
    canaries: int
    wrong: float
    low: float
    high: float


def reliability(probability: Floats, canary: Flags, share: float, classes: int) -> tuple[Reliable, ...]:
    """Bins of looks from the least to the most likely wrong; those without a row as given are left out.

    Args:
        probability: Of each look that it is wrong, by what was not fitted to it, [M].
        canary: Which looks are canaries, [M].
        share: Of the rows that is wrong.
        classes: How many there are; fewer than two where rows have none.
    """
    found: list[Reliable] = []
    many = canary.sum() / max(1, (~canary).sum())
    for above, up_to in pairwise(EDGES):
        here = (probability > above) & (probability <= up_to) | (above == 0) & (probability == 0)
        rows, canaries = int((here & ~canary).sum()), int((here & canary).sum())
        if rows:
            among = _wilson(canaries, canaries + rows)
            wrong, low, high = (_told(one / max(1 - one, 1e-12) / many, share, classes) for one in among)
            mean = float(probability[here & ~canary].mean())
            found.append(Reliable(above, up_to, mean, rows, canaries, wrong, low, high))
    return tuple(found)


def _told(ratio: float, share: float, classes: int) -> float:
    """The share of the rows that is wrong where canaries are so many times as dense as they."""
    made_right = share / (classes - 1) if classes > 1 else 0.0
    whole = (1 - share) * (1 - made_right) - made_right * share
    return float(np.clip(share * ((1 - share) * ratio - made_right) / max(whole, 1e-12), 0, 1))


def _wilson(hits: int, of: int) -> tuple[float, float, float]:
    """A share with its 95 % interval (Wilson 1927)."""
    share, width = hits / of, Z**2 / of
    middle = (share + width / 2) / (1 + width)
    reach = Z * np.sqrt(share * (1 - share) / of + width / (4 * of)) / (1 + width)
    return share, max(0.0, float(middle - reach)), min(1.0, float(middle + reach))
