"""A better label for each suspicious row, and how sure it is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from thresher.data.encode import Indices
from thresher.scores.aggregate import Floats


def suggest(labels: Indices, opinions: Floats, wrong: Floats) -> tuple[Indices, Floats]:
    """The likeliest class other than the label, [n], and the probability that it is the right one, [n].

    ``opinions`` [n, C] are probabilities of the classes; ``wrong`` [n] that the label is wrong. If it is, one of the
    others is right, each as likely as its share of what the opinions leave to the others.
    """
    others = opinions.clip(np.finfo(float).tiny)  # an opinion that is certain of the label leaves the others alike
    others[np.arange(len(labels)), labels] = 0
    return others.argmax(axis=1), wrong * others.max(axis=1) / others.sum(axis=1)


def mended(table: pd.DataFrame, dropped: Indices) -> tuple[Indices, Indices]:
    """Of the rows to drop those to relabel instead, whose suggestion is more likely right than not, and the others."""
    sure = table["suggestion_confidence"].to_numpy()[dropped] > 0.5
    return dropped[sure], dropped[~sure]
