"""How sure we are that a row is wrong, and how many to drop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from thresher.arrays import Flags, Floats
from thresher.calibration.choice import Pattern
from thresher.calibration.error_rate import ErrorRate, Posterior

SURE = 0.99  # no row is certain


@dataclass(frozen=True)
class Confidence:
    """``probability`` [n] that a row is wrong; ``q_value`` [n], the share of right rows among it and all more
    suspicious ones; ``more_likely_wrong`` rows have a probability above one half."""

    probability: Floats
    q_value: Floats
    rate: ErrorRate

    @property
    def more_likely_wrong(self) -> int:
        """How many rows to drop."""
        return int((self.probability > 0.5).sum())


def confidence(
    suspicion: Floats, posterior: Posterior, spoiled: Flags | None = None, pattern: Pattern | None = None
) -> Confidence:
    """Of each row as it was given; ``suspicion`` [n], larger = more suspicious.

    As far as errors follow a ``pattern``, of rows [n], its law says how likely each row is wrong: too few canaries lie
    where such errors do. Rows that are ``spoiled`` [n] are surely wrong, whatever their label.
    """
    wrong = posterior.wrong(suspicion)
    if pattern is not None:
        wrong = pattern.likely * expit(pattern.odds) + (1 - pattern.likely) * wrong
    return along(suspicion, wrong, posterior.rate, spoiled)


def along(suspicion: Floats, wrong: Floats, rate: ErrorRate, spoiled: Flags | None = None) -> Confidence:
    """Probabilities ``wrong`` [n], given to the rows in the order of their suspicion."""
    wrong = wrong.copy()
    order = np.argsort(-suspicion, kind="stable")
    wrong[order] = np.minimum(np.sort(wrong)[::-1], SURE)  # who ranks higher is no less likely wrong
    if spoiled is not None:
        wrong[spoiled] = SURE
    right_so_far = np.cumsum(1 - wrong[order]) / np.arange(1, len(order) + 1)
    q_value = np.empty(len(order))
    q_value[order] = np.minimum.accumulate(right_so_far[::-1])[::-1]
    return Confidence(wrong, q_value, rate)
