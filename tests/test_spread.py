"""How errors fall on the labels: against simulations with a truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from thresher.calibrate.spread import Spread, spread


def rows(rng: np.random.Generator, count: int, first: float, from_first: float, from_second: float) -> Any:
    """Two classes, of which ``first`` are 0: the right class, what is seen of the row, and the label it carries."""
    truth = (rng.random(count) >= first).astype(np.int64)
    wrong = rng.random(count) < np.where(truth == 0, from_first, from_second)
    return truth, rng.normal(size=count) + 1.5 * truth, np.where(wrong, 1 - truth, truth)


def found(labels: Any, truth: Any) -> Spread:
    return spread(labels, truth, 2, 0.2)


def test_queries_tell_whether_errors_fall_as_canaries_do() -> None:
    rng = np.random.default_rng(0)
    alike, even = [], []
    for _ in range(20):
        _, _, uniform = rows(rng, 2000, 0.75, 0.2, 0.2)
        _, _, one_sided = rows(rng, 2000, 0.59, 0.119, 0.317)  # 65 : 35, and a fifth of either wrong
        alike.append(found(uniform, rows(rng, 400, 0.75, 0, 0)[0]).evenness)
        even.append(found(one_sided, rows(rng, 400, 0.59, 0, 0)[0]).evenness)
    assert np.mean(alike) < 0.25
    assert np.mean(even) > 0.6


def suspicion(seen: Any, labels: Any, first: float, share: float) -> Any:
    """Log odds that the label is wrong, exact where any row of the classes as mixed in the labels may be flipped."""
    other = np.where(labels == 0, seen * 1.5 - 1.125, 1.125 - seen * 1.5) + np.where(labels == 0, 1, -1) * logit(
        1 - first
    )
    return other + logit(share)


def gain(rng: np.random.Generator, first: float, from_first: float, from_second: float, mixed: float | None) -> float:
    """What the shift adds to the AUROC of scores that take ``mixed`` for the share of class 0, or else the labels'."""
    truth, seen, labels = rows(rng, 2000, first, from_first, from_second)
    uniform = suspicion(seen, labels, (labels == 0).mean() if mixed is None else mixed, 0.2)
    shift = found(labels, rows(rng, 300, first, 0, 0)[0]).shift
    before, after = (roc_auc_score(labels != truth, one) for one in (uniform, uniform - shift[labels]))
    return float(after - before)


@pytest.mark.parametrize(("first", "from_first", "from_second"), [(0.56, 0.1, 0.35), (0.35, 0.25, 0.05)])
def test_errors_that_hit_one_class_more_are_ranked_better(first: float, from_first: float, from_second: float) -> None:
    rng = np.random.default_rng(1)
    assert np.mean([gain(rng, first, from_first, from_second, None) for _ in range(10)]) > 0.02


@pytest.mark.parametrize("first", [0.5, 0.7])
def test_errors_that_hit_all_rows_alike_are_ranked_hardly_worse(first: float) -> None:
    rng = np.random.default_rng(2)
    assert -np.mean([gain(rng, first, 0.2, 0.2, first) for _ in range(10)]) < 0.01


def test_queries_drawn_class_by_class_say_little() -> None:
    """No w explains them: rows of nine in ten one class, and as many queries of either."""
    labels = (np.arange(2000) < 200).astype(np.int64)
    assert found(labels, np.arange(400) % 2).evenness == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_number_of_wrong_rows_stays(classes: int) -> None:
    """What label j loses in odds others gain: as many rows are expected to be wrong as before."""
    rng = np.random.default_rng(classes)
    labels = rng.choice(classes, 3000, p=rng.dirichlet(np.full(classes, 5.0)))
    one = spread(labels, rng.integers(0, classes, 200), classes, 0.2)
    share = np.bincount(labels) / len(labels)
    wrong = (1 - share) / (1 - share).sum()  # where they fall as canaries do
    assert wrong @ np.exp(-one.shift) == pytest.approx(1)
    assert 0 <= one.evenness <= 1
    assert (np.diff(one.shift[np.argsort(share)]) <= 1e-12).all()  # rare labels lose


def test_labels_that_are_all_as_frequent_are_left_alone() -> None:
    labels = np.arange(900) % 3
    np.testing.assert_allclose(spread(labels, np.arange(99) % 3, 3, 0.3).shift, 0, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_class_that_no_row_carries_is_no_trouble(classes: int) -> None:
    one = spread(np.zeros(50, dtype=np.int64), np.arange(20) % classes, classes, 0.1)
    assert np.isfinite(one.shift).all()
    assert np.isfinite(expit(one.shift)).all()
