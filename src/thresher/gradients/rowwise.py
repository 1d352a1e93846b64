"""The plain way: one forward and one backward pass a row, by autograd alone. Slow, and true for any parameter."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from thresher.data.encode import Batch
from thresher.gradients.forms import table_ids
from thresher.gradients.rows import RowGradients, TokenGradients
from thresher.gradients.rules import is_noise, precise, rule_for
from thresher.model.losses import batch_losses


def plain_gradients(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], row: Batch, options: Mapping[str, Any]
) -> tuple[dict[str, RowGradients], Tensor]:
    """Gradients of one row's loss by name, each [1, p], or sparse [tokens, d] for an embedding's table; loss [1].

    ``row`` is a batch of one; ``options`` are further arguments of the model. A parameter the row does not touch gets
    zeros. Gradients and grad flags of the parameters are left as they were.
    """
    embeddings = table_ids(model)
    before = {name: (parameter.requires_grad, parameter.grad) for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.requires_grad_()
            parameter.grad = None
        with torch.enable_grad(), _bias_terms(model, parameters) as terms:
            loss, _ = batch_losses(model, row, **options)
            if loss.requires_grad:  # else the model uses none of these parameters
                loss.sum().backward()  # unlike autograd.grad, this goes through every kind of checkpointing
        found = {
            name: _shape(p, p.grad, sparse=id(p) in embeddings, terms=terms.get(id(p)))
            for name, p in parameters.items()
        }
    finally:
        for name, parameter in parameters.items():
            flag, parameter.grad = before[name]
            parameter.requires_grad_(flag)
    return found, loss.detach()


@contextmanager
def _bias_terms(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Generator[dict[int, Tensor]]:
    """By the id of a bias that a layer adds to its output: the squared norm of the terms that its gradient sums."""
    wanted = {id(parameter) for parameter in parameters.values()}
    terms: dict[int, Tensor] = {}

    def watch(layer: nn.Module, _: Any, output: Any) -> None:
        def note(delta: Tensor) -> None:
            terms[id(layer.bias)] = precise(delta).square().sum() + terms.get(id(layer.bias), 0.0)

        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(note)

    layers = [
        layer for layer in model.modules() if rule_for(layer, "bias") and id(getattr(layer, "bias", None)) in wanted
    ]
    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        yield terms
    finally:
        for handle in handles:
            handle.remove()


def _shape(parameter: nn.Parameter, gradient: Tensor | None, *, sparse: bool, terms: Tensor | None) -> RowGradients:
    full = precise(torch.zeros_like(parameter) if gradient is None else gradient).detach()
    if terms is not None and is_noise(full, terms.sqrt(), parameter.dtype):
        full = torch.zeros_like(full)
    if not sparse:
        return full.reshape(1, -1)
    tokens = (full != 0).any(-1).nonzero()[:, 0]
    return TokenGradients(row=torch.zeros_like(tokens), token=tokens, value=full[tokens], rows=1)
