"""How much of the planted noise a score finds (method.md 5). Lower scores are inspected first.

Rows that tie are counted as if inspected in a random order: each of the metrics is its expectation over those orders,
so a constant score is worth exactly as much as chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.arrays import Floats
from thresher.errors import DataError


def noise_detection_rate(scores: Any, noise: Any, fraction: float = 0.3) -> float:
    """Compute NDR@f, the share of the noisy rows that are among the lowest floor(f n) scores (method.md 5).

    Args:
        scores: One a row, [n], larger = helpful.
        noise: Which rows are noisy, [n] bool.
        fraction: f, the share of the rows that are looked at.

    Returns:
        From 0 to 1; larger = more is found, and f is chance.

    Raises:
        DataError: For lengths that differ, NaN, or noise that is nowhere or everywhere.

    Example:
        >>> noise_detection_rate([0.9, -2.0, 0.4, -0.1], [False, True, False, True], fraction=0.25)
        0.5
    """
    found = detection_curve(scores, noise)
    inspected = math.floor(fraction * len(found) + 1e-9)
    return float(found[inspected - 1]) if inspected else 0.0


def noise_detection_auc(scores: Any, noise: Any) -> float:
    """Compute AUC-NDR, sum_t D_t / (n - q/2), D_t the share of the q noisy rows among the lowest t (method.md 5).

    Args:
        scores: One a row, [n], larger = helpful.
        noise: Which rows are noisy, [n] bool.

    Returns:
        Larger = more is found; an oracle has 1 + 1 / (2 n - q), which is 1 of many rows.

    Raises:
        DataError: As :func:`noise_detection_rate` does.

    Example:
        >>> noise_detection_auc([0.9, -2.0, 0.4, -0.1], [False, True, False, True])  # all: 1 + 1 / 6
        1.1666666666666667
    """
    found = detection_curve(scores, noise)
    return float(found.sum() / (len(found) - int(np.sum(noise)) / 2))


def auroc(scores: Any, noise: Any) -> float:
    """Probability that a noisy row scores lower than a clean one."""
    from sklearn.metrics import roc_auc_score

    values, flags = _check(scores, noise)
    return float(roc_auc_score(flags, -values))


def average_precision(scores: Any, noise: Any) -> float:
    """Mean, over noisy rows, of the precision at the depth where the row is found."""
    from sklearn.metrics import average_precision_score

    values, flags = _check(scores, noise)
    return float(average_precision_score(flags, -values))


def precision_at(scores: Any, noise: Any, count: int = 50) -> float:
    """Share of noisy rows among the ``count`` lowest scores, or among all where there are fewer rows."""
    found = detection_curve(scores, noise)
    inspected = min(count, len(found))
    return float(found[inspected - 1] * np.sum(noise) / inspected)


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "ndr30": noise_detection_rate,
    "auc_ndr": noise_detection_auc,
    "auroc": auroc,
    "average_precision": average_precision,
    "precision50": precision_at,
}
"""By the name that each has in summary.json. Larger = more is found."""

ACCURACY = "accuracy"
"""What scores are compared by besides: of test rows, after retraining without the rows of lowest score."""


def measure_detection(scores: Any, noise: Any) -> dict[str, float]:
    """Every one of ``METRICS``."""
    return {name: metric(scores, noise) for name, metric in METRICS.items()}


def detection_curve(scores: Any, noise: Any) -> Floats:
    """D_t for t = 1..n: the share of the noisy rows among the lowest t scores, [n]."""
    values, flags = _check(scores, noise)
    order = np.argsort(values, kind="stable")
    _, group, sizes = np.unique(values[order], return_inverse=True, return_counts=True)
    noisy = np.bincount(group, weights=flags[order])
    return np.cumsum((noisy / sizes)[group]) / flags.sum()


def _check(scores: Any, noise: Any) -> tuple[Floats, npt.NDArray[np.bool_]]:
    values, flags = np.asarray(scores, dtype=np.float64), np.asarray(noise, dtype=bool)
    if values.shape != flags.shape or values.ndim != 1:
        raise DataError(f"Scores of shape {values.shape} and noise flags of shape {flags.shape} do not fit together.")
    if np.isnan(values).any():
        raise DataError("Some scores are NaN, which has no place in an order.")
    if flags.all() or not flags.any():
        raise DataError("Detection needs rows that are noisy and rows that are not.")
    return values, flags
