"""From texts to encoded rows, and from encoded rows to batches in which padding can do no harm."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thresher.data.examples import Examples
from thresher.errors import DataError

Indices = npt.NDArray[np.int64]
_NOT_FEATURES = {"labels", "label", "attention_mask"}


@dataclass(frozen=True)
class Batch:
    """Some rows, padded on the right.

    ``inputs`` are the model's keyword arguments, each [B, T] int64 (``input_ids``, ``attention_mask``, ...);
    ``labels`` is [B] (or [B, C] for several labels a row); ``rows`` says which rows of the data these are.
    """

    rows: Indices
    inputs: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class EncodedRows:
    """Rows without any padding: per feature one int64 tensor [T_i] a row, and ``labels`` [n] or [n, C]."""

    features: Mapping[str, Sequence[Tensor]]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Indices:
        """Tokens a row, [n]."""
        return np.array([len(ids) for ids in self.features["input_ids"]], dtype=np.int64)

    @property
    def classes(self) -> Tensor:
        """Class of every row, [n] int64; all 0 where a row's label is not one whole number."""
        one = self.labels.dim() == 1 and not self.labels.is_floating_point()
        return self.labels.long() if one else torch.zeros(len(self), dtype=torch.int64)

    def take(self, rows: Indices) -> EncodedRows:
        """The named rows, in the order given."""
        features = {name: [values[i] for i in rows] for name, values in self.features.items()}
        return EncodedRows(features, self.labels[torch.from_numpy(rows)])

    def batch(self, rows: Indices, pad_id: int, device: torch.device) -> Batch:
        """Pad the named rows on the right to the longest of them."""
        inputs = {
            name: torch.nn.utils.rnn.pad_sequence(
                [values[i] for i in rows],
                batch_first=True,
                padding_value=pad_id if name == "input_ids" else 0,
            )
            for name, values in self.features.items()
        }
        lengths = torch.tensor([len(self.features["input_ids"][i]) for i in rows])
        inputs["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        moved = {name: value.to(device) for name, value in inputs.items()}
        return Batch(rows, moved, self.labels[torch.from_numpy(rows)].to(device))


def encode_texts(examples: Examples, tokenizer: Any, max_length: int) -> EncodedRows:
    """Tokenize one text or a pair a row, cut to ``max_length`` tokens."""
    columns = [list(column) for column in zip(*examples.texts, strict=True)]
    encoded = tokenizer(*columns, truncation=True, max_length=max_length)
    names = [name for name in encoded if name != "attention_mask"]
    features = {name: [torch.tensor(values) for values in encoded[name]] for name in names}
    return EncodedRows(features, torch.from_numpy(examples.labels))


def encoded_rows(rows: Sequence[Mapping[str, Any]], model: torch.nn.Module, what: str) -> EncodedRows:
    """Read rows encoded elsewhere: dicts with ``input_ids``, ``labels`` and, if padded, ``attention_mask``.

    Positions where the mask is 0 are taken out, so the padding side of the tokenizer does not matter. Features that
    the model does not accept are left out. ``what`` ("train", "query") names the rows in messages. Raises
    :class:`DataError` for rows without tokens or labels.
    """
    if len(rows) == 0:
        raise DataError(f"There are no {what} rows; give at least one.")
    first = rows[0]
    names = [n for n in first if n not in _NOT_FEATURES and n in accepted_inputs(model) and _is_list(first[n])]
    features: dict[str, list[Tensor]] = {name: [] for name in names}
    labels: list[Tensor] = []
    for number, row in enumerate(rows):
        where = f"{what} row {number}"
        label = row.get("labels", row.get("label"))
        if "input_ids" not in row or label is None:
            raise DataError(f"{where}: an encoded row needs 'input_ids' and 'labels'; it has: {', '.join(row)}.")
        ids = torch.as_tensor(row["input_ids"])
        mask = torch.as_tensor(row.get("attention_mask", torch.ones_like(ids))).bool()
        if mask.shape != ids.shape or not mask.any():
            raise DataError(f"{where}: no token is left under its attention mask.")
        for name in names:
            features[name].append(torch.as_tensor(row[name]).long()[mask])
        labels.append(torch.as_tensor(label))
    return EncodedRows(features, torch.stack(labels))


def accepted_inputs(model: torch.nn.Module) -> set[str]:
    """Names of the arguments that the model's ``forward`` takes, seen through a PEFT wrapper."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]
    return set(inspect.signature(inner.forward).parameters)


def length_batches(lengths: Indices, batch_size: int) -> list[Indices]:
    """Batches of rows of like length, longest first: little padding, and memory runs out at once or never."""
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, Tensor, np.ndarray)) and np.ndim(value) == 1
