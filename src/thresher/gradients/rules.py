"""How one row's gradient is formed from what went into a layer and the gradient of what came out.

With x the input and delta the loss's gradient with respect to the output, both split into rows [B, T, .], the gradient
of a weight is a sum over the T positions of the row, so that all rows of a batch come out of one backward pass:

- linear  y = W x + b:        dW = sum_t delta_t x_t^T,   db = sum_t delta_t
- Conv1D  y = x W + b:        dW = sum_t x_t delta_t^T,   db = sum_t delta_t
- norm    y = w * xhat + b:   dw = sum_t delta_t * xhat_t, db = sum_t delta_t
- embedding y = W[token]:     dW[token] = sum of delta_t over the positions that hold the token (kept sparse)

Sums and products are float32 whatever the model's dtype (float64 stays float64).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call  # pyright: ignore[reportPrivateImportUsage]
from transformers.pytorch_utils import Conv1D

from thresher.gradients.forms import Form, matrix_gradients
from thresher.gradients.rows import RowGradients, token_gradients

Rule = Callable[[nn.Module, Tensor, Tensor, int, Form], RowGradients]
"""(layer, its input, gradient of its output, rows in the batch, form) -> the rows' gradients of one parameter.

Input and output gradient are [B, ..., d], or [B * T, d] from layers that see all positions flattened. The form says how
a matrix's gradients are kept; other parameters have only one.
"""


def rule_for(layer: nn.Module, parameter: str) -> Rule | None:
    """The rule for the parameter ``weight`` or ``bias`` of a layer; None where there is none."""
    for kinds, rules in _RULES:
        if isinstance(layer, kinds):
            return rules.get(parameter)
    # Every architecture has a root-mean-square norm of its own, and none has a bias.
    return _norm if type(layer).__name__.endswith("RMSNorm") and parameter == "weight" else None


def precise(tensor: Tensor) -> Tensor:
    """float32 for anything shorter; float32 and float64 as they are."""
    return tensor if tensor.element_size() >= 4 else tensor.float()


def _positions(tensor: Tensor, rows: int) -> Tensor:
    return precise(tensor).reshape(rows, -1, tensor.shape[-1])  # [B, T, d]


def _linear(layer: nn.Module, x: Tensor, delta: Tensor, rows: int, form: Form) -> RowGradients:
    return matrix_gradients(_positions(delta, rows), _positions(x, rows), form)  # [B, T, o], [B, T, i]


def _conv1d(layer: nn.Module, x: Tensor, delta: Tensor, rows: int, form: Form) -> RowGradients:
    return matrix_gradients(_positions(x, rows), _positions(delta, rows), form)  # [B, T, i], [B, T, o]


def _norm(layer: nn.Module, x: Tensor, delta: Tensor, rows: int, form: Form) -> Tensor:
    # Every such layer is y = f(w) with f affine in w, so xhat = f(1) - f(0) whether it scales by w or by 1 + w.
    zeros = {name: torch.zeros_like(p, dtype=precise(p).dtype) for name, p in layer.named_parameters()}
    ones = {**zeros, "weight": torch.ones_like(zeros["weight"])}
    inputs = precise(x)
    normalised = functional_call(layer, ones, (inputs,)) - functional_call(layer, zeros, (inputs,))
    return _positions(precise(delta) * normalised, rows).sum(1)


def _bias(layer: nn.Module, x: Tensor, delta: Tensor, rows: int, form: Form) -> Tensor:
    positions = _positions(delta, rows)
    total = positions.sum(1)
    # A bias whose gradient is zero in exact arithmetic (a key's under softmax: shifting every key's score by the same
    # amount changes nothing) leaves the rounding noise of a sum that cancels, about 4 eps of its terms. It must not
    # be taken for signal; true gradients are about as large as their terms, a thousand times this bound and more.
    noise = min(256 * torch.finfo(delta.dtype).eps, 0.05)
    cancelled = total.norm(dim=-1) <= noise * positions.flatten(1).norm(dim=-1)
    return total.masked_fill(cancelled[:, None], 0.0)


def _embedding(layer: nn.Module, x: Tensor, delta: Tensor, rows: int, form: Form) -> RowGradients:
    tokens = x.expand(delta.shape[:-1]).reshape(rows, -1)  # [B, T]
    positions = _positions(delta, rows)  # [B, T, d]
    row = torch.arange(rows, device=x.device)[:, None].expand_as(tokens)
    # A position that the mask hides has a gradient of exactly zero; leaving it out keeps pad tokens out of the row.
    counted = (positions != 0).any(-1)
    padding = getattr(layer, "padding_idx", None)
    if padding is not None:
        counted &= tokens != padding
    return token_gradients(row[counted], tokens[counted], positions[counted], rows)


_RULES: tuple[tuple[type[nn.Module], dict[str, Rule]], ...] = (
    (nn.Embedding, {"weight": _embedding}),
    (nn.Linear, {"weight": _linear, "bias": _bias}),
    (Conv1D, {"weight": _conv1d, "bias": _bias}),
    (nn.LayerNorm, {"weight": _norm, "bias": _bias}),
)
