"""Confident learning (Northcutt, Jiang & Chuang 2021): of the probe by the library of its authors; and without it."""

from __future__ import annotations

from typing import Any

import numpy as np

from thresher.arrays import Floats, Labels
from thresher.detectors.evidence import Evidence
from thresher.detectors.probe import predict_held_out


def confident(evidence: Evidence) -> Floats:
    """cleanlab's label quality: self-confidence, adjusted by what the probe gives each class's rows on average, [n].

    Of the out-of-fold probabilities, the mean over three splits; in 0..1.
    """
    from cleanlab.rank import get_label_quality_scores

    quality: Any = get_label_quality_scores(
        evidence.labels, predict_held_out(evidence)[:, : len(evidence.labels)].mean(0), adjust_pred_probs=True
    )
    return quality


def confident_given(evidence: Evidence) -> Floats:
    """Probability of the row's label less the mean of its class's rows, moved and scaled into 0..1, [n].

    Of the probabilities that the caller has; the same as cleanlab's adjusted label quality.
    """
    given = evidence.held_out
    assert given is not None
    means = _thresholds(evidence.labels, given)
    adjusted = given - means + means.max()
    return adjusted[np.arange(len(given)), evidence.labels] / adjusted.sum(axis=1)


def confident_joint(labels: Labels, probabilities: Floats) -> Floats:
    """How many rows carry a label (line) and are of a class (column), [C, C], as confident learning counts them.

    A row is counted under a class that it is at least as likely of as the rows with that label are on average, under
    its likeliest class where there are several such, and not at all where there is none. Lines are then made to add up
    to how often each label is.

    Args:
        labels: As given, numbers below C, [n].
        probabilities: Of the classes, by models that did not learn from the row, [n, C].
    """
    count = probabilities.shape[1]
    above = probabilities >= _thresholds(labels, probabilities) - 1e-6
    several = above.sum(axis=1) > 1
    guess = np.where(several, probabilities.argmax(axis=1), above.argmax(axis=1))
    counted = above.any(axis=1)
    joint = np.zeros((count, count))
    np.add.at(joint, (labels[counted], guess[counted]), 1)
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))
    return joint / joint.sum(axis=1, keepdims=True) * np.bincount(labels, minlength=count)[:, None]


def _thresholds(labels: Labels, probabilities: Floats) -> Floats:
    """Of each class the mean probability that its rows are given for it, [C]; above any for a class without rows."""
    often = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=len(often))
    return np.where(often > 0, sums / np.maximum(often, 1), 2.0)
