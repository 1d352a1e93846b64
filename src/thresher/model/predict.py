"""What the model says about rows, without gradients."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from thresher.data.encode import EncodedRows, length_batches
from thresher.model.load import LoadedModel
from thresher.model.losses import batch_losses, correct_rows
from thresher.tensors import read_tensors, write_tensors


@dataclass(frozen=True)
class Predictions:
    """``losses`` [n] float32, and ``outputs`` [n, C]: a classifier's logits, or [n, 1] the share of tokens right."""

    losses: Tensor
    outputs: Tensor

    @property
    def mean_loss(self) -> float:
        """Mean of the rows' losses."""
        return float(self.losses.double().mean())


@torch.no_grad()
def predict(subject: LoadedModel, data: EncodedRows, batch_size: int) -> Predictions:
    """Loss and output of every row, in eval mode; the training mode is put back."""
    losses = torch.empty(len(data))
    outputs: list[Tensor] = [torch.empty(0)] * len(data)
    with evaluating(subject.model):
        for rows in length_batches(data.lengths, batch_size):
            batch = data.batch(rows, subject.pad_id, subject.device)
            found, said = batch_losses(subject.model, batch)
            losses[torch.from_numpy(rows)] = found.float().cpu()
            for row, values in zip(rows, said.float().cpu(), strict=True):
                outputs[row] = values
    return Predictions(losses, torch.stack(outputs))


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Eval mode for the duration."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def accuracy(subject: LoadedModel, data: EncodedRows, outputs: Tensor) -> float:
    """Share of rows predicted correctly."""
    return float(correct_rows(outputs, data.labels, subject.model.config).double().mean())


def write_predictions(file: Path, predictions: Mapping[str, Predictions]) -> None:
    """Keep what the model says about the rows of each side: outputs by side, and losses as ``SIDE_losses``."""
    outputs = {side: found.outputs for side, found in predictions.items()}
    write_tensors(file, outputs | {f"{side}_losses": found.losses for side, found in predictions.items()})


def read_predictions(file: Path, side: str) -> Predictions:
    """What was kept of one side."""
    tensors, _ = read_tensors(file)
    return Predictions(tensors[f"{side}_losses"], tensors[side])
