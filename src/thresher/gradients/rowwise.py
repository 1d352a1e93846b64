"""The plain way: one forward and one backward pass a row, by autograd alone. Slow, and true for any parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thresher.data.encode import Batch
from thresher.gradients.rows import RowGradients, TokenGradients
from thresher.gradients.rules import precise
from thresher.model.losses import batch_losses


def plain_gradients(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], row: Batch, options: Mapping[str, Any]
) -> tuple[dict[str, RowGradients], Tensor]:
    """Gradients of one row's loss by name, each [1, p], or sparse [tokens, d] for an embedding's table; loss [1].

    ``row`` is a batch of one; ``options`` are further arguments of the model. A parameter the row does not touch gets
    zeros. Grad flags are left as they were.
    """
    flags = {name: parameter.requires_grad for name, parameter in parameters.items()}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    gradients: Sequence[Tensor | None] = [None] * len(parameters)
    try:
        for parameter in parameters.values():
            parameter.requires_grad_()
        with torch.enable_grad():
            loss, _ = batch_losses(model, row, **options)
        if loss.requires_grad:  # else the model uses none of these parameters
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(flags[name])
    found = {
        name: _shaped(parameter, gradient, sparse=id(parameter) in embeddings)
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
    }
    return found, loss.detach()


def _shaped(parameter: nn.Parameter, gradient: Tensor | None, *, sparse: bool) -> RowGradients:
    full = precise(torch.zeros_like(parameter) if gradient is None else gradient).detach()
    if not sparse:
        return full.reshape(1, -1)
    tokens = (full != 0).any(-1).nonzero()[:, 0]
    return TokenGradients(row=torch.zeros_like(tokens), token=tokens, value=full[tokens], rows=1)
