"""Evidence about rows that lie in clusters, one a class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.preprocessing import StandardScaler

from thresher.detectors.evidence import Evidence, Features


def evidence(
    rows: int = 40,
    *,
    classes: int = 3,
    epochs: int = 4,
    queries: int = 15,
    width: int = 6,
    apart: float = 4.0,
    seed: int = 0,
) -> Evidence:
    """Clusters, one a class, ``apart`` from each other; the model's logits are noisy distances to their centres."""
    rng = np.random.default_rng(seed)
    labels, query_labels = np.arange(rows) % classes, np.arange(queries) % classes
    centres = np.eye(max(classes, width))[:classes, :width] * apart

    def drawn(of: Any) -> Any:
        return (centres[of] + rng.normal(size=(len(of), width))).astype(np.float32)

    train, query = drawn(labels), drawn(query_labels)
    logits = (train @ centres.T + rng.normal(size=(epochs + 1, rows, classes))).astype(np.float32)
    made = Evidence(
        labels, classes, np.zeros((epochs, rows), np.float32), logits[:-1], np.zeros(rows, np.float32), logits[-1],
        query_labels, Features(train, query), Features(2 * train, 2 * query), seed,
    )  # fmt: skip
    return labelled(made, labels)


def labelled(made: Evidence, labels: Any) -> Evidence:
    """The same outputs and features with other labels, and the losses that follow from these."""
    losses = [
        F.cross_entropy(torch.from_numpy(said), torch.from_numpy(labels), reduction="none").numpy()
        for said in (*made.epoch_outputs, made.outputs)
    ]
    epochs = np.stack(losses[:-1]) if losses[:-1] else made.epoch_losses
    return replace(made, labels=labels, epoch_losses=epochs, losses=losses[-1])


def flipped(made: Evidence, *rows: int) -> Evidence:
    labels = made.labels.copy()
    labels[list(rows)] = (labels[list(rows)] + 1) % made.classes
    return labelled(made, labels)


def standardised(features: Any) -> Any:
    return StandardScaler().fit_transform(features)
