"""How rows are dealt into folds, wherever something is judged on what it was not fitted on."""

from __future__ import annotations

import numpy as np

from thresher.arrays import Labels


def stratified_folds(labels: Labels, folds: int, rng: np.random.Generator) -> Labels:
    """A fold for every row, [n]: class after class is dealt out in random order, so each is spread evenly."""
    order = np.lexsort((rng.random(len(labels)), labels))
    found = np.empty(len(labels), dtype=np.int64)
    found[order] = np.arange(len(labels)) % folds
    return found
