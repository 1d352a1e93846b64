"""What the model says about rows, without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from thresher.data.encode import EncodedRows, length_batches
from thresher.model.load import Subject
from thresher.model.losses import correct_rows, row_losses


@torch.no_grad()
def predict(subject: Subject, data: EncodedRows, batch_size: int) -> Tensor:
    """Logits of every row, [n, C] float32, in eval mode; the training mode is put back."""
    was_training = subject.model.training
    subject.model.eval()
    try:
        logits: list[Tensor] = [torch.empty(0)] * len(data)
        for rows in length_batches(data.lengths, batch_size):
            batch = data.batch(rows, subject.pad_id, subject.device)
            for row, values in zip(rows, subject.model(**batch.inputs).logits.float().cpu(), strict=True):
                logits[row] = values
        return torch.stack(logits)
    finally:
        subject.model.train(was_training)


def mean_loss(subject: Subject, data: EncodedRows, logits: Tensor) -> float:
    """Mean of the rows' losses."""
    return float(row_losses(logits, data.labels, subject.model.config).double().mean())


def accuracy(subject: Subject, data: EncodedRows, logits: Tensor) -> float:
    """Share of rows predicted correctly."""
    return float(correct_rows(logits, data.labels, subject.model.config).double().mean())
