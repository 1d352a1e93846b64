"""One loss a row, from the model's outputs and the batch's labels."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from thresher.errors import ModelError

IGNORED = -100
"""The label of a token on which no loss is taken."""


def row_losses(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """Loss of every row, [B], in float32 or better.

    Cross-entropy for one class a row; squared error for a single output; mean binary cross-entropy for several labels
    a row: as ``transformers`` trains each kind of sequence classifier, but not averaged over the batch.
    ``logits`` is [B, C]; ``labels`` is [B], or [B, C] for several labels a row. Raises :class:`ModelError` otherwise.
    """
    if logits.dim() != 2 or len(logits) != len(labels):
        raise ModelError(
            f"The model gives outputs of shape {tuple(logits.shape)} for {len(labels)} rows; "
            "a sequence classifier with one vector of class scores a row is needed."
        )
    logits = logits if logits.element_size() >= 4 else logits.float()
    if labels.dim() == 2:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(-1)
    if is_regression(config):
        return (logits[:, 0] - labels.to(logits.dtype)).square()
    return F.cross_entropy(logits, labels.long(), reduction="none")


def is_regression(config: Any) -> bool:
    """Whether the model predicts one number instead of a class."""
    return config.num_labels == 1 or getattr(config, "problem_type", None) == "regression"


def correct_rows(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """Which rows the model gets right, [B] bool; a regression counts as right within half a unit."""
    if labels.dim() == 2:
        return ((logits > 0) == labels.bool()).all(-1)
    if is_regression(config):
        return (logits[:, 0] - labels).abs() < 0.5
    return logits.argmax(-1) == labels
