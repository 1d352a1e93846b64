"""From texts to encoded rows, and from encoded rows to batches in which padding can do no harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from thresher.arrays import Indices
from thresher.config import RowLoss
from thresher.data.examples import Examples

IGNORED = -100
"""The label of a token that no loss is taken on, as everywhere in ``transformers``."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""A loss of the user's own: one number a row, [B], of the model's outputs and the batch's labels."""

BATCH_TOKENS = 8192
"""Tokens, padding included, that go through a model at once, so that long rows take no more memory than many short."""


@dataclass(frozen=True)
class Batch:
    """Some rows, padded on the right.

    ``inputs`` are the model's keyword arguments, each [B, T] int64 (``input_ids``, ``attention_mask``, ...);
    ``labels`` is [B] (or [B, C] for several labels a row), or [B, T] for a label a token, ``IGNORED`` where none is
    learned; ``rows`` says which rows of the data these are, ``row_loss`` how the losses of a row's tokens add up.
    ``loss`` is one of the user's own in place of the model's.
    """

    rows: Indices
    inputs: dict[str, Tensor]
    labels: Tensor
    row_loss: RowLoss = "mean"
    loss: Loss | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Cuts:
    """How many ``rows`` were longer than allowed, how many ``tokens`` they lost ``of`` those that all rows had.

    ``answers`` says how many of them lost tokens of an answer that is to be learned.
    """

    rows: int
    tokens: int
    of: int
    answers: int = 0


@dataclass(frozen=True)
class EncodedRows:
    """Rows without any padding: per feature one int64 tensor [T_i] a row, and ``labels``.

    Labels are one tensor [n] or [n, C], or for rows to generate from one int64 tensor [T_i] a row, ``IGNORED`` where no
    loss is taken; ``row_loss`` says whether a row's loss is the mean or the sum over its labelled tokens. ``loss`` is
    one of the user's own in place of the model's.
    """

    features: Mapping[str, Sequence[Tensor]]
    labels: Tensor | Sequence[Tensor]
    row_loss: RowLoss = "mean"
    loss: Loss | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Indices:
        """Tokens a row, [n]."""
        return np.array([len(ids) for ids in self.features["input_ids"]], dtype=np.int64)

    @property
    def classes(self) -> Tensor:
        """Class of every row, [n] int64; all 0 where a row's label is not one whole number."""
        labels = self.labels
        if isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point():
            return labels.long()
        return torch.zeros(len(self), dtype=torch.int64)

    def take(self, rows: Indices) -> EncodedRows:
        """The named rows, in the order given."""
        features = {name: [values[i] for i in rows] for name, values in self.features.items()}
        labels = self.labels
        taken = labels[torch.from_numpy(rows)] if isinstance(labels, Tensor) else [labels[i] for i in rows]
        return replace(self, features=features, labels=taken)

    def relabelled(self, labels: Indices) -> EncodedRows:
        """The same rows with other classes, [n]."""
        return replace(self, labels=torch.from_numpy(labels))

    def without(self, rows: Indices) -> EncodedRows:
        """All but the named rows, in their order."""
        return self.take(np.setdiff1d(np.arange(len(self)), rows))

    def joined(self, other: EncodedRows) -> EncodedRows:
        """These rows, and the other ones of the same kind after them."""
        features = {name: [*values, *other.features[name]] for name, values in self.features.items()}
        mine, others = self.labels, other.labels
        if isinstance(mine, Tensor) and isinstance(others, Tensor):
            labels: Tensor | Sequence[Tensor] = torch.cat([mine, others])
        else:
            labels = [*mine, *others]
        return replace(self, features=features, labels=labels)

    def batch(self, rows: Indices, pad_id: int, device: torch.device) -> Batch:
        """Pad the named rows on the right to the longest of them."""
        inputs = {
            name: pad_sequence(
                [values[i] for i in rows],
                batch_first=True,
                padding_value=pad_id if name == "input_ids" else 0,
            )
            for name, values in self.features.items()
        }
        lengths = torch.tensor([len(self.features["input_ids"][i]) for i in rows])
        inputs["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        moved = {name: value.to(device) for name, value in inputs.items()}
        labels = self.take(rows).labels
        if not isinstance(labels, Tensor):
            labels = pad_sequence(list(labels), batch_first=True, padding_value=IGNORED)
        return Batch(rows, moved, labels.to(device), self.row_loss, self.loss)


def encode_texts(examples: Examples, tokenizer: Any, max_length: int) -> tuple[EncodedRows, Cuts]:
    """Tokenize one text or a pair a row, cut to ``max_length`` tokens; and what was cut."""
    columns = [list(column) for column in zip(*examples.texts, strict=True)]
    whole = encoded = tokenizer(*columns, truncation=False, verbose=False)
    lengths = np.array([len(ids) for ids in whole["input_ids"]])
    longer = lengths > max_length
    if longer.any():
        encoded = tokenizer(*columns, truncation=True, max_length=max_length)
    names = [name for name in encoded if name != "attention_mask"]
    features = {name: [torch.tensor(values) for values in encoded[name]] for name in names}
    left = sum(len(ids) for ids in encoded["input_ids"])
    cuts = Cuts(int(longer.sum()), int(lengths.sum()) - left, int(lengths.sum()))
    return EncodedRows(features, torch.from_numpy(examples.labels)), cuts


def length_batches(lengths: Indices, batch_size: int) -> list[Indices]:
    """Batches of rows of like length, longest first: little padding, and memory runs out at once or never."""
    order = np.argsort(-lengths, kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [part for batch in batches for part in within_memory(batch, lengths)]


def within_memory(rows: Indices, lengths: Indices) -> list[Indices]:
    """The rows of a batch, in their order, in parts of at most ``BATCH_TOKENS`` tokens with padding, or of one row."""
    parts: list[Indices] = []
    start = longest = 0
    for place, length in enumerate(lengths[rows].tolist()):
        longest = max(longest, length)
        if place > start and (place + 1 - start) * longest > BATCH_TOKENS:
            parts.append(rows[start:place])
            start, longest = place, length
    return [*parts, rows[start:]]
