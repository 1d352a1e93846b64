"""What detectors judge the training rows by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from thresher.arrays import Labels

Singles = npt.NDArray[np.float32]
Which = Literal["frozen", "tuned"]
"""Features of the model before fine-tuning, or after."""

Need = Literal["training", "classes"] | Which


@dataclass(frozen=True)
class Features:
    """One vector a row: ``train`` [n, d] and ``query`` [Q, d]."""

    train: Singles
    query: Singles


@dataclass(frozen=True, eq=False)
class Evidence:
    """n training rows, Q clean queries (at least one), and what models say about them; all numbers finite.

    ``labels`` [n] are the classes as trained on and ``query_labels`` [Q] the queries', numbers below ``classes``;
    where there are none to tell apart, labels are all 0 and ``classes`` is 0. ``epoch_losses`` [E, n] and
    ``epoch_outputs`` [E, n, C] hold what the model said of each row while it was trained on it, E = 0 for one that was
    not trained here; ``losses`` [n] and ``outputs`` [n, C] are of the chosen checkpoint in eval mode. Outputs are a
    classifier's logits. ``frozen`` and ``tuned`` are features of the model before and after fine-tuning. ``seed`` is
    for what is drawn at random, and ``rows`` [n] tells which are the same row, where some are there twice.
    """

    labels: Labels
    classes: int
    epoch_losses: Singles
    epoch_outputs: Singles
    losses: Singles
    outputs: Singles
    query_labels: Labels
    frozen: Features | None
    tuned: Features | None
    seed: int
    rows: Labels | None = None

    def has(self, need: Need) -> bool:
        """Whether a detector with this need can be computed."""
        if need == "training":
            return len(self.epoch_losses) > 0
        if need == "classes":
            return self.classes > 1
        return self.features(need) is not None

    def features(self, which: Which) -> Features | None:
        """Features of the model before or after fine-tuning."""
        return self.frozen if which == "frozen" else self.tuned
