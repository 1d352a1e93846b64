"""One loss a row, and what is kept of a row besides it, from the model's outputs and the batch's labels.

A classifier gives logits [B, C] for labels [B], or [B, C] for several labels a row; what is kept are the logits. A
causal LM gives logits [B, T, V], or those of its last positions, for labels [B, T], of which position t is predicted
from the logits at t - 1; what is kept is one number, the share of a row's labelled tokens that are the model's first
choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from thresher.config import RowLoss
from thresher.data.encode import IGNORED, Batch, Loss
from thresher.errors import ConfigError, ModelError
from thresher.model.inputs import accepted_inputs, generates


def batch_losses(model: nn.Module, batch: Batch, **options: Any) -> tuple[Tensor, Tensor]:
    """Run the model: losses [B], and what is kept of every row, [B, C] or [B, 1], without a graph."""
    logits: Tensor = model(**batch.inputs, **options, **scored_positions(model, batch)).logits
    return losses_of(logits, batch, model.config)


def scored_positions(model: nn.Module, batch: Batch) -> dict[str, int]:
    """The argument by which a causal LM scores only the last positions, from the first that predicts a labelled token.

    Scores take as many numbers a position as the vocabulary has tokens, and most of a row is prompt.
    """
    if not generates(model) or "logits_to_keep" not in accepted_inputs(model) or batch.loss is not None:
        return {}  # a loss of the user's own may look at every position
    first = int((batch.labels != IGNORED).any(0).float().argmax())
    return {"logits_to_keep": batch.labels.shape[1] - max(first - 1, 0)}


def losses_of(logits: Tensor, batch: Batch, config: Any) -> tuple[Tensor, Tensor]:
    """:func:`batch_losses` of a batch that the model has been run on."""
    if _by_token(logits, batch.labels):
        tokens = _LabelledTokens.of(logits, batch.labels)
        losses = _own_losses(batch.loss, logits, batch.labels) if batch.loss else tokens.losses(batch.row_loss)
        return losses, tokens.share_right()
    losses = _own_losses(batch.loss, logits, batch.labels) if batch.loss else row_losses(logits, batch.labels, config)
    return losses, logits.detach()


def _own_losses(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    losses: Any = loss(logits, labels)
    if not isinstance(losses, Tensor) or losses.shape != (len(labels),):
        given = f"a tensor of {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise ConfigError(f"loss: it gives {given} for {len(labels)} rows; give one number a row (reduction='none').")
    return losses


def row_losses(logits: Tensor, labels: Tensor, config: Any, row_loss: RowLoss = "mean") -> Tensor:
    """Loss of every row, [B], in float32 or better.

    Cross-entropy for one class a row; squared error for a single output; mean binary cross-entropy for several labels
    a row: as ``transformers`` trains each kind of sequence classifier, but not averaged over the batch. For a causal
    LM the cross-entropy of the labelled tokens, its mean or sum a row. Raises :class:`ModelError` for outputs that
    are none of these.
    """
    if _by_token(logits, labels):
        return _LabelledTokens.of(logits, labels).losses(row_loss)
    if logits.dim() != 2 or len(logits) != len(labels):
        raise ModelError(
            f"The model gives outputs of shape {tuple(logits.shape)} for {len(labels)} rows; a sequence classifier "
            "with one vector of class scores a row is needed, or a causal LM with a label a token."
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


def correct_rows(outputs: Tensor, labels: Tensor | Sequence[Tensor], config: Any) -> Tensor:
    """Which rows the model gets right, [n] bool, from what :func:`batch_losses` keeps of them.

    A regression counts as right within half a unit; a row to generate from when at least half of its labelled tokens
    are the model's first choice, each after the true ones before it.
    """
    if not isinstance(labels, Tensor):
        return outputs[:, 0] >= 0.5
    if labels.dim() == 2:
        return ((outputs > 0) == labels.bool()).all(-1)
    if is_regression(config):
        return (outputs[:, 0] - labels).abs() < 0.5
    return outputs.argmax(-1) == labels


def _by_token(logits: Tensor, labels: Tensor) -> bool:
    return logits.dim() == 3 and labels.dim() == 2 and logits.shape[1] <= labels.shape[1]


@dataclass(frozen=True)
class _LabelledTokens:
    """Labelled tokens alone: logits [K, V] and labels [K]; ``where`` they are among those scored, [B, T' - 1]."""

    logits: Tensor
    labels: Tensor
    where: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Self:
        labels = labels[:, -logits.shape[1] :][:, 1:]
        where = labels != IGNORED
        return cls(logits[:, :-1][where], labels[where], where)

    def losses(self, row_loss: RowLoss) -> Tensor:
        logits = self.logits if self.logits.element_size() >= 4 else self.logits.float()
        total = self._by_row(F.cross_entropy(logits, self.labels, reduction="none"))
        return total if row_loss == "sum" else total / self.where.sum(-1)

    def share_right(self) -> Tensor:
        right = self.logits.detach().argmax(-1) == self.labels
        return (self._by_row(right.float()) / self.where.sum(-1))[:, None]

    def _by_row(self, values: Tensor) -> Tensor:
        spread = values.new_zeros(self.where.shape)
        spread[self.where] = values
        return spread.sum(-1)
