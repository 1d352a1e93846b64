"""A better label for each suspicious row, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from thresher.arrays import Floats, Indices

SURE = 0.5
"""A label is suggested where it is more likely right than not."""


def suggest(labels: Indices, opinions: Floats, wrong: Floats) -> tuple[Indices, Floats]:
    """The likeliest class other than the label, [n], and the probability that it is the right one, [n].

    ``opinions`` [n, C] are probabilities of the classes; ``wrong`` [n] that the label is wrong. If it is, one of the
    others is right, each as likely as its share of what the opinions leave to the others.
    """
    others = _others(labels, opinions)
    return others.argmax(axis=1), wrong * others.max(axis=1) / others.sum(axis=1)


@dataclass(frozen=True)
class ErrorPair:
    """Of the ``rows`` that carry one ``label`` about ``wrong`` are of class ``likely``; both are numbers of classes.

    ``alike`` of them look like it: it is likelier than their label.
    """

    label: int
    likely: int
    rows: int
    alike: int
    wrong: float


def error_pairs(labels: Indices, opinions: Floats, wrong: Floats) -> tuple[ErrorPair, ...]:
    """What wrong labels stand for what, the most frequent first; of every pair at least one row is expected.

    Each row counts by the probability that its label is ``wrong`` [n], shared out by the ``opinions`` [n, C] of the
    other classes.
    """
    others = _others(labels, opinions)
    shared = wrong[:, None] * others / others.sum(axis=1, keepdims=True)
    expected = np.zeros((opinions.shape[1], opinions.shape[1]))
    np.add.at(expected, labels, shared)
    rows = np.bincount(labels, minlength=len(expected))
    alike = np.zeros(expected.shape, dtype=np.int64)
    np.add.at(alike, (labels, opinions.argmax(axis=1)), 1)
    pairs = [
        ErrorPair(int(label), int(likely), int(rows[label]), int(alike[label, likely]), float(expected[label, likely]))
        for label, likely in np.argwhere(expected >= 1)
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.wrong))


def _others(labels: Indices, opinions: Floats) -> Floats:
    """Opinions of the classes other than the label, alike where they are certain of the label, [n, C]."""
    others = opinions.clip(np.finfo(float).tiny)
    others[np.arange(len(labels)), labels] = 0
    return others


def split_relabels(table: pd.DataFrame, dropped: Indices) -> tuple[Indices, Indices]:
    """Of the rows to drop those to relabel instead, whose suggestion is more likely right than not, and the others."""
    sure = table["suggestion_confidence"].to_numpy()[dropped] > SURE
    return dropped[sure], dropped[~sure]


def lost_classes(scores: pd.DataFrame, kept: Indices, better: Mapping[int, str]) -> list[str]:
    """Classes of which no row would be left, with how many rows each has, in words.

    ``kept`` are the rows of the cleaned set, ``better`` the labels that some of them get. Empty where rows have no
    classes.
    """
    if "label" not in scores:
        return []
    labels = scores["label"].astype(str)
    left = {*better.values(), *labels.iloc[np.setdiff1d(kept, list(better))]}
    return [f"'{name}' ({count} of {count} rows)" for name, count in labels.value_counts().items() if name not in left]
