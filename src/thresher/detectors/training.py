"""How the model takes a row's label: while it is trained on it, and when it has been chosen.

A wrong label is learned late, by heart, and against what the other rows teach.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax

from thresher.arrays import Floats, Labels
from thresher.detectors.evidence import Evidence


def loss(evidence: Evidence) -> Floats:
    """-loss of the row at the chosen checkpoint, [n]."""
    return -evidence.losses.astype(np.float64)


def loss_mean(evidence: Evidence) -> Floats:
    """-mean over the epochs of the row's loss while it was trained on, [n]."""
    return -evidence.epoch_losses.mean(0, dtype=np.float64)


def margin(evidence: Evidence) -> Floats:
    """Logit of the label minus the largest other logit, at the chosen checkpoint, [n]."""
    return _margins(evidence.outputs, evidence.labels)


def aum(evidence: Evidence) -> Floats:
    """The margin's mean over the epochs, while the row was trained on (Pleiss et al. 2020, eq. 1 and 2), [n]."""
    return np.mean([_margins(said, evidence.labels) for said in evidence.epoch_outputs], axis=0)


def el2n(evidence: Evidence) -> Floats:
    """-|softmax - onehot|, the mean over the first quarter of the epochs, at least one, [n].

    Paul et al. 2021, section 2.2, average over several trainings at one early epoch; here there is one training.
    """
    early = evidence.epoch_outputs[: max(1, len(evidence.epoch_outputs) // 4)]
    errors = softmax(early.astype(np.float64), axis=-1)
    errors[:, np.arange(len(evidence.labels)), evidence.labels] -= 1
    return -np.linalg.norm(errors, axis=-1).mean(0)


def _margins(logits: Any, labels: Labels) -> Floats:
    """Label's logit minus the largest other, [n], of ``logits`` [n, C]."""
    others = logits.astype(np.float64)
    rows = np.arange(len(labels))
    given = others[rows, labels]
    others[rows, labels] = -np.inf
    return given - others.max(-1)
