"""Canaries tell which share of the rows of about one probability is wrong, whatever that probability says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import norm

from thresher.calibration.reliability import EDGES, reliability

COUNT, CANARIES, SHARE = 200_000, 40_000, 0.2


def looks(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Suspicions of rows and canaries, who is a canary, and who is wrong; some canaries were made right."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(COUNT + CANARIES) < SHARE
    canary = np.arange(COUNT + CANARIES) >= COUNT
    made_right = SHARE / (classes - 1) if classes > 1 else 0.0
    wrong[canary] = rng.random(CANARIES) >= made_right
    return rng.normal(size=len(wrong)) + 2.0 * wrong, canary, wrong


def truth(suspicion: np.ndarray) -> np.ndarray:
    odds = SHARE / (1 - SHARE) * norm.pdf(suspicion, 2) / norm.pdf(suspicion)
    return odds / (1 + odds)


@pytest.mark.parametrize("classes", [0, 2, 6])
@pytest.mark.parametrize("power", [1.0, 3.0])
def test_the_share_that_is_wrong_is_found_beside_right_and_beside_too_low_probabilities(
    classes: int, power: float
) -> None:
    suspicion, canary, wrong = looks(classes)
    said = truth(suspicion) ** power
    bins = reliability(said, canary, SHARE, classes)
    assert [(one.above, one.up_to) for one in bins] == list(pairwise(EDGES))
    inside = 0
    for one in bins:
        here = (said > one.above) & (said <= one.up_to) & ~canary
        assert one.rows == here.sum() and one.canaries == ((said > one.above) & (said <= one.up_to) & canary).sum()
        assert one.probability == pytest.approx(said[here].mean())
        assert one.wrong == pytest.approx(wrong[here].mean(), abs=0.04)
        inside += one.low <= wrong[here].mean() <= one.high
    assert inside >= len(bins) - 1
    assert sum(one.rows for one in bins) == COUNT and sum(one.canaries for one in bins) == CANARIES
    if power > 1:  # what is said is too low, and that is seen
        assert np.mean([one.wrong - one.probability for one in bins[1:-1]]) > 0.1


def test_what_has_no_rows_is_left_out_and_without_canaries_none_is_wrong() -> None:
    bins = reliability(np.array([0.0, 0.05, 0.95]), np.array([False, False, True]), 0.1, 2)
    assert [(one.rows, one.canaries, one.wrong, one.low) for one in bins] == [(2, 0, 0.0, 0.0)]
    assert bins[0].high > 0
