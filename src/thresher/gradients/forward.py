"""What the forward pass alone tells of a row: pooled hidden states, and the entries of a language model's head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from thresher.data.encode import IGNORED
from thresher.errors import ModelError
from thresher.gradients.rows import HeadRows
from thresher.gradients.rules import precise
from thresher.model.states import hidden_place


def pooled_states(names: Iterable[str], outputs: Any, mask: Tensor) -> dict[str, Tensor]:
    """Hidden states of every row by module name, [B, d]: of the last token, or the mean over the real ones.

    ``outputs`` are a model's with hidden states, [B, T, d] each, the embedding's first; ``mask`` is [B, T]. Raises
    :class:`ModelError` where the model gives none.
    """
    states: Any = getattr(outputs, "hidden_states", None)
    found: dict[str, Tensor] = {}
    lengths = mask.sum(1)
    for name in names:
        layer, pooling = hidden_place(name)
        if states is None or layer + 1 >= len(states):
            raise ModelError("The model gives no hidden states of its layers; leave repsim out of --methods.")
        state = precise(states[layer + 1].detach())
        if pooling == "last":
            found[name] = state[torch.arange(len(state), device=state.device), lengths - 1]
        else:
            found[name] = (state * mask[..., None]).sum(1) / lengths[:, None]
    return found


def head_rows(hidden: Tensor, labels: Tensor, *, averaged: bool) -> HeadRows:
    """Entries of the output matrix: one an answer token, at the position before it.

    ``hidden`` [B, T, d], or its last positions, goes into the matrix; ``labels`` [B, T] are token ids, -100 where no
    loss is taken; ``averaged`` says that a row's loss is the mean over its answer tokens, not their sum.
    """
    target = labels[:, -hidden.shape[1] :][:, 1:]
    counted = target != IGNORED  # [B, T - 1]
    row = counted.nonzero()[:, 0]
    share = counted.sum(1).clamp_min(1).reciprocal() if averaged else torch.ones(len(labels), device=labels.device)
    return HeadRows(
        row=row,
        label=target[counted],
        weight=share[row].to(torch.float32),
        hidden=precise(hidden.detach())[:, :-1][counted],
        rows=len(labels),
    )
