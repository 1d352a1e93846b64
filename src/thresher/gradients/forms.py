"""In which form the gradients of a matrix are kept: multiplied out, as outer products, or projected.

The gradient of a row for y = W x is sum_t delta_t x_t^T over its T positions. Multiplied out it takes o * i numbers; as
it stands, T (o + i), which is less for short texts and large matrices. Projected on both sides before the product it
takes k * k:

    S = R_o (sum_t delta_t x_t^T) R_i^T = sum_t (R_o delta_t) (R_i x_t)^T

with entries of R_o [k, o] and R_i [k, i] drawn as +-1/sqrt(k). E[R^T R] = I, so <S, S'> is an unbiased estimate of the
inner product of the gradients. Its standard error lies between 1/k of the product of their norms, for gradients without
common directions, and sqrt((1 + 2/k)^2 - 1), about 2/sqrt(k), for gradients of rank one along the same directions.
(TRAK, Park et al. 2023, projects after the product; LoGra, Choe et al. 2024, before it, as here.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from thresher.gradients.rows import FactoredGradients, RowGradients

SEED = 0


@dataclass(frozen=True)
class Sketch:
    """The two projections of one matrix's gradient, [k, a] and [k, b] float32; None for a side of at most k numbers."""

    left: Tensor | None
    right: Tensor | None

    def project(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Both factors' last dimension brought down to k."""
        return _project(left, self.left), _project(right, self.right)

    def dense(self, gradients: Tensor, shape: tuple[int, int]) -> Tensor:
        """The same projection of gradients that are multiplied out already, [B, a * b] -> [B, k * k]."""
        by_side = _project(gradients.reshape(-1, *shape), self.right)  # [B, a, k]
        return _project(by_side.mT, self.left).mT.flatten(1)


Form = Literal["dense", "factored"] | Sketch


def choose_forms(
    model: nn.Module, names: Sequence[str], *, length: float, projection: int, device: torch.device
) -> dict[str, Form]:
    """The form of every named matrix; parameters that are no matrix of a linear layer are not mentioned.

    ``projection`` is k, 0 for none; without one the smaller exact form is taken for rows of ``length`` tokens.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    linear = matrix_ids(model)
    matrices = {name: tuple(parameters[name].shape) for name in names if id(parameters.get(name)) in linear}
    if projection:
        return {name: _sketch(name, shape, projection, device) for name, shape in matrices.items()}
    return {
        name: "factored" if length * sum(shape) < shape[0] * shape[1] else "dense" for name, shape in matrices.items()
    }


def table_ids(model: nn.Module) -> set[int]:
    """The ids of the parameters that are an embedding's table."""
    return {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}


def matrix_ids(model: nn.Module) -> set[int]:
    """The ids of the parameters that are a linear layer's matrix."""
    return {id(layer.weight) for layer in model.modules() if isinstance(layer, (nn.Linear, Conv1D))}


def form_bytes(size: int, shape: Sequence[int], form: Form, length: float) -> float:
    """Bytes that the gradient of one row of ``length`` tokens takes; ``size`` and ``shape`` are the parameter's."""
    if form == "dense":
        return 4.0 * size
    if form == "factored":
        return length * (4 * sum(shape) + 8)
    sides = zip(shape, (form.left, form.right), strict=True)
    return 4.0 * float(np.prod([side if r is None else len(r) for side, r in sides]))


def matrix_gradients(left: Tensor, right: Tensor, form: Form) -> RowGradients:
    """sum_t left_t right_t^T of every row in its form. ``left`` [B, T, a], ``right`` [B, T, b]."""
    if isinstance(form, Sketch):
        left, right = form.project(left, right)
    elif form == "factored":
        counted = (left != 0).any(-1) & (right != 0).any(-1)  # [B, T]; what the mask hides is exactly zero
        row = torch.arange(len(left), device=left.device)[:, None].expand_as(counted)
        return FactoredGradients(row=row[counted], left=left[counted], right=right[counted], rows=len(left))
    return (left.mT @ right).flatten(1)


def in_form(gradients: Tensor, shape: Sequence[int], forms: Mapping[str, Form], name: str) -> Tensor:
    """Gradients that are multiplied out, [B, p], projected where the form is a projection."""
    form = forms.get(name, "dense")
    return form.dense(gradients, (shape[0], shape[1])) if isinstance(form, Sketch) else gradients


def _sketch(name: str, shape: tuple[int, ...], k: int, device: torch.device) -> Sketch:
    sides: list[Tensor | None] = []
    for side, width in zip(("left", "right"), shape, strict=True):
        # Drawn on the CPU from the module's name, so that every device and every run has the same.
        seed = int.from_bytes(hashlib.sha256(f"{SEED}|{name}|{side}".encode()).digest()[:8], "little")
        signs = np.random.default_rng(seed).integers(0, 2, (k, width)) * 2.0 - 1.0 if width > k else None
        sides.append(None if signs is None else torch.tensor(signs / np.sqrt(k), dtype=torch.float32, device=device))
    return Sketch(sides[0], sides[1])


def _project(factor: Tensor, projection: Tensor | None) -> Tensor:
    return factor if projection is None else factor @ projection.to(factor.dtype).T
