"""How one row's gradient is formed from what went into a layer and the gradient of what came out.

With x the input and delta the loss's gradient with respect to the output, both split into rows [B, T, .], the gradient
of a weight is a sum over the T positions of the row, so that all rows of a batch come out of one backward pass:

- linear  y = W x + b:        dW = sum_t delta_t x_t^T,   db = sum_t delta_t
- Conv1D  y = x W + b:        dW = sum_t x_t delta_t^T,   db = sum_t delta_t
- norm    y = w * xhat + b:   dw = sum_t delta_t * xhat_t, db = sum_t delta_t
- embedding y = c * W[token]: dW[token] = sum of c * delta_t over the positions that hold the token (kept sparse)

Sums and products are float32 whatever the model's dtype (float64 stays float64).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call  # pyright: ignore[reportPrivateImportUsage]
from torch.overrides import TorchFunctionMode
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
    return _NORM.get(parameter) if _is_norm(layer) else None


def precise(tensor: Tensor) -> Tensor:
    """float32 for anything shorter; float32 and float64 as they are."""
    return tensor if tensor.element_size() >= 4 else tensor.float()


def is_noise(total: Tensor, terms: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether sums [..., p] of terms in ``dtype``, whose norm is [...], are no more than the terms' rounding, [...].

    A bias whose gradient is zero in exact arithmetic (a key's under softmax: shifting every key's score by the same
    amount changes nothing) leaves the rounding noise of a sum that cancels, about 4 eps of its terms. It must not be
    taken for signal; true gradients are about as large as their terms, a thousand times this bound and more.
    """
    return total.norm(dim=-1) <= min(256 * torch.finfo(dtype).eps, 0.05) * terms


def _positions(tensor: Tensor, rows: int) -> Tensor:
    return precise(tensor).reshape(rows, -1, tensor.shape[-1])  # [B, T, d]


def _linear(layer: nn.Module, x: Tensor, delta: Tensor, rows: int, form: Form) -> RowGradients:
    return matrix_gradients(_positions(delta, rows), _positions(x, rows), form)  # [B, T, o], [B, T, i]


def _conv1d(layer: nn.Module, x: Tensor, delta: Tensor, rows: int, form: Form) -> RowGradients:
    return matrix_gradients(_positions(x, rows), _positions(delta, rows), form)  # [B, T, i], [B, T, o]


def _is_norm(layer: nn.Module) -> bool:
    """Every architecture has a norm class of its own; they share one weight, and perhaps one bias, a feature."""
    sizes = {name: parameter.dim() for name, parameter in layer.named_parameters()}
    return sizes in ({"weight": 1}, {"weight": 1, "bias": 1})


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
    cancelled = is_noise(total, positions.flatten(1).norm(dim=-1), delta.dtype)
    return total.masked_fill(cancelled[:, None], 0.0)


def _embedding(layer: nn.Module, x: Tensor, delta: Tensor, rows: int, form: Form) -> RowGradients:
    # Positions are often looked up once for all rows.
    tokens = (x.expand(delta.shape[:-1]) if x.dim() < delta.dim() else x).reshape(rows, -1)  # [B, T]
    positions = _positions(delta, rows)  # [B, T, d]
    row = torch.arange(rows, device=x.device)[:, None].expand_as(tokens)
    # A position that the mask hides has a gradient of exactly zero; leaving it out keeps pad tokens out of the row.
    counted = (positions != 0).any(-1)
    padding = getattr(layer, "padding_idx", None)
    if padding is not None:
        counted &= tokens != padding
    return token_gradients(row[counted], tokens[counted], positions[counted], rows)


class _Lookups(TorchFunctionMode):
    """While active, every table gives ``value`` for whatever is looked up; the tokens asked for are kept."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.tokens: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is F.embedding:
            self.tokens.append(args[0] if args else (kwargs or {})["input"])
            return torch.full_like(found, self.value)
        return found


def entering(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | None] | None:
    """What a rule needs of a call of the layer: its input, and factors [..., d] of what it looks up (None: all are 1).

    Tables with a forward of their own may scale what they look up, or be asked by mask rather than by token. Every
    such layer is y = f(e) with f affine in the rows e of the table, so that the factors are f(1) - f(0). None where
    no rule covers the call: a norm with a second input, a table that does not look up once.
    """
    if not isinstance(layer, nn.Embedding) or type(layer) is nn.Embedding:
        given = [*args, *kwargs.values()]
        return None if _is_norm(layer) and len(given) > 1 else (given[0].detach(), None)
    with torch.no_grad(), _Lookups(1.0) as ones:
        upper: Tensor = layer.forward(*args, **kwargs)
    with torch.no_grad(), _Lookups(0.0):
        lower: Tensor = layer.forward(*args, **kwargs)
    return (ones.tokens[0], upper - lower) if len(ones.tokens) == 1 else None


_NORM: dict[str, Rule] = {"weight": _norm, "bias": _bias}
_RULES: tuple[tuple[type[nn.Module], dict[str, Rule]], ...] = (
    (nn.Embedding, {"weight": _embedding}),
    (nn.Linear, {"weight": _linear, "bias": _bias}),
    (Conv1D, {"weight": _conv1d, "bias": _bias}),
)
