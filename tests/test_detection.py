"""Detection metrics against the formulas of method.md 5 and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thresher
from thresher.errors import DataError
from thresher.evaluate.detection import auroc, average_precision, precision_at


@given(n=st.integers(4, 60), seed=st.integers(0, 999), share=st.floats(0.05, 1.0))
@settings(deadline=None, max_examples=60)
def test_without_ties_they_equal_the_formulas(n: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(n).astype(float)
    noise = np.zeros(n, dtype=bool)
    noise[rng.choice(n, rng.integers(1, n), replace=False)] = True
    order, q = np.argsort(scores), int(noise.sum())
    curve = [noise[order[:t]].sum() / q for t in range(1, n + 1)]
    inspected = int(np.floor(share * n + 1e-9))
    assert thresher.noise_detection_rate(scores, noise, share) == pytest.approx(
        curve[inspected - 1] if inspected else 0
    )
    assert thresher.noise_detection_auc(scores, noise) == pytest.approx(sum(curve) / (n - q / 2))
    for count in (1, 7, 50):
        assert precision_at(scores, noise, count) == pytest.approx(noise[order[:count]].mean())


def test_exactly_floor_f_n_rows_are_inspected() -> None:
    noise = np.zeros(10, dtype=bool)
    noise[3] = True  # the fourth lowest
    assert thresher.noise_detection_rate(np.arange(10), noise, 0.3) == 0.0
    assert thresher.noise_detection_rate(np.arange(10), noise, 0.4) == 1.0


def test_oracle_and_chance() -> None:
    noise = np.arange(1000) < 200
    assert thresher.noise_detection_rate(np.where(noise, -1.0, 1.0), noise) == 1.0
    assert thresher.noise_detection_auc(np.where(noise, -1.0, 1.0), noise) == pytest.approx(1.0, abs=1e-3)
    # A constant score is worth what a random order is worth on average.
    assert thresher.noise_detection_rate(np.zeros(1000), noise) == pytest.approx(0.3)
    assert thresher.noise_detection_auc(np.zeros(1000), noise) == pytest.approx(0.556, abs=1e-3)
    assert auroc(np.zeros(1000), noise) == 0.5
    assert average_precision(np.where(noise, -1.0, 1.0), noise) == 1.0
    assert precision_at(np.where(noise, -1.0, 1.0), noise) == pytest.approx(1)
    assert precision_at(np.where(noise, -1.0, 1.0), noise, 400) == pytest.approx(0.5)
    assert precision_at(np.zeros(1000), noise) == pytest.approx(0.2)


def test_tied_rows_count_as_the_average_over_their_orders() -> None:
    rng = np.random.default_rng(0)
    scores, noise = rng.integers(0, 4, 30).astype(float), rng.random(30) < 0.3
    shuffled = [thresher.noise_detection_rate(scores + 1e-6 * rng.random(30), noise) for _ in range(4000)]
    assert thresher.noise_detection_rate(scores, noise) == pytest.approx(np.mean(shuffled), abs=0.01)


def test_lower_scores_are_the_detrimental_ones() -> None:
    noise = np.arange(50) < 10
    assert auroc(np.arange(50), noise) == 1.0
    assert auroc(-np.arange(50), noise) == 0.0


@pytest.mark.parametrize(
    ("scores", "noise"),
    [([1.0, 2.0], [True]), ([np.nan, 1.0], [True, False]), ([1.0, 2.0], [True, True]), ([1.0, 2.0], [False, False])],
)
def test_what_cannot_be_judged_is_refused(scores: list[float], noise: list[bool]) -> None:
    with pytest.raises(DataError):
        thresher.noise_detection_rate(scores, noise)
