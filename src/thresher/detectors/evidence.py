"""What detectors judge the training rows by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from thresher.arrays import Floats, Indices, Labels

Singles = npt.NDArray[np.float32]
Which = Literal["frozen", "second", "tuned"]
"""Features of the model before fine-tuning, of a second encoder, or of the model after fine-tuning."""

WHICH: tuple[Which, ...] = ("frozen", "second", "tuned")
UNTRAINED: tuple[Which, ...] = ("frozen", "second")

Need = Literal["training", "classes", "predictions", "held out", "queries", "copies"] | Which


@dataclass(frozen=True)
class Features:
    """One vector a row: ``train`` [n, d] and ``query`` [Q, d]."""

    train: Singles
    query: Singles


@dataclass(frozen=True)
class Copies:
    """Which texts are near copies of each other: those with the same number, ``train`` [n] and ``query`` [Q]."""

    train: Indices
    query: Indices


@dataclass(frozen=True, eq=False)
class Evidence:
    """n training rows, Q clean queries, and what models say about them; all numbers finite.

    An audit has all of it but ``held_out``; what a caller has from elsewhere may lack any of it but the labels.

    Attributes:
        labels: The classes as trained on, [n], numbers below ``classes``.
        classes: How many there are, C; where there are none to tell apart it is 0, and so are the labels.
        epoch_losses: Losses of each row while it was trained on, [E, n]; E = 0 for a model that was not trained here.
        epoch_outputs: What the model said then, [E, n, C]: a classifier's logits.
        losses: Of the chosen checkpoint in eval mode, [n]; of no use without ``outputs``.
        outputs: Of the same, [n, C] logits; [0, C] where no model was asked.
        query_labels: The queries' classes, [Q].
        frozen: Features of the model before fine-tuning.
        tuned: The same after it.
        seed: For what is drawn at random.
        rows: Which are the same row, [n], where some are there twice.
        held_out: Probabilities of the classes by models that did not learn from the row, [n, C].
        copies: Which rows and queries are near copies.
        second: Features of a second encoder, which is not trained.
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
    held_out: Floats | None = None
    copies: Copies | None = None
    second: Features | None = None

    def has(self, need: Need) -> bool:
        """Whether a detector with this need can be computed."""
        there = {
            "training": len(self.epoch_losses) > 0,
            "classes": self.classes > 1,
            "predictions": len(self.outputs) > 0,
            "held out": self.held_out is not None,
            "queries": len(self.query_labels) > 0,
            "copies": self.copies is not None,
            **{which: self.features(which) is not None for which in WHICH},
        }
        return there[need]

    def features(self, which: Which) -> Features | None:
        """Those of one name; None where there are none."""
        return {"frozen": self.frozen, "second": self.second, "tuned": self.tuned}[which]

    @property
    def untrained(self) -> Which | None:
        """By whose features, of a model that has not seen these labels, the rows can be judged: the own ones first."""
        return next((which for which in UNTRAINED if self.features(which) is not None), None)
