"""What a model takes: the names of its inputs, whether it generates, and rows that were encoded for it elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.config import RowLoss
from thresher.data.encode import IGNORED, EncodedRows
from thresher.errors import DataError

_NOT_FEATURES = {"labels", "label", "attention_mask"}


def encoded_rows(
    rows: Sequence[Mapping[str, Any]] | EncodedRows, model: torch.nn.Module, what: str, row_loss: RowLoss = "mean"
) -> EncodedRows:
    """Read rows encoded elsewhere: dicts with ``input_ids``, ``labels`` and, if padded, ``attention_mask``.

    Rows that are :class:`EncodedRows` come back as they are.

    Positions where the mask is 0 are taken out, so the padding side of the tokenizer does not matter. Features that
    the model does not accept are left out. A causal LM takes a label a token: the token itself where it is to be
    learned, ``IGNORED`` elsewhere. ``what`` ("train", "query") names the rows in messages. Raises :class:`DataError`
    for rows without tokens or labels.
    """
    if isinstance(rows, EncodedRows):
        return rows
    if len(rows) == 0:
        raise DataError(f"There are no {what} rows; give at least one.")
    first = rows[0]
    names = [n for n in first if n not in _NOT_FEATURES and n in accepted_inputs(model) and _is_list(first[n])]
    features: dict[str, list[Tensor]] = {name: [] for name in names}
    labels: list[Tensor] = []
    by_token = generates(model)
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
        label = torch.as_tensor(label)
        labels.append(_token_labels(label, mask, where) if by_token else label)
    return EncodedRows(features, labels if by_token else torch.stack(labels), row_loss)


def _token_labels(label: Tensor, mask: Tensor, where: str) -> Tensor:
    if label.shape != mask.shape:
        raise DataError(f"{where}: a model that generates needs one label a token, {IGNORED} where none is learned.")
    label = label.long()[mask]
    label[0] = IGNORED  # no token comes before the first to predict it from
    if (label == IGNORED).all():
        raise DataError(f"{where}: no token has a label, so there is no loss; give the answer's tokens as labels.")
    return label


def accepted_inputs(model: torch.nn.Module) -> set[str]:
    """Names of the arguments that the model's ``forward`` takes, seen through a PEFT wrapper."""
    return set(inspect.signature(_unwrap(model).forward).parameters)


def generates(model: torch.nn.Module) -> bool:
    """Whether the model is a causal LM, seen through a PEFT wrapper."""
    can_generate = getattr(_unwrap(model), "can_generate", None)
    return can_generate is not None and bool(can_generate())


def _unwrap(model: torch.nn.Module) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, Tensor, np.ndarray)) and np.ndim(value) == 1
