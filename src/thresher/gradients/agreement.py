"""Whether a rule's gradients are the true ones: the judgement behind the check of the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor

from thresher.gradients.rows import FactoredGradients, RowGradients, TokenGradients, added, squared_norms


def agreeing(found: dict[str, RowGradients], truth: dict[str, RowGradients], eps: float) -> set[str]:
    """Modules whose rule gives every row's true gradient, up to the rounding of a dtype of precision ``eps``."""
    largest = max((float(squared_norms(gradients).max()) for gradients in truth.values()), default=0.0) ** 0.5
    # A gradient that is zero in exact arithmetic is noise in both, so differences are also judged against the whole.
    floor, share = min(256 * eps, 0.05) * largest, max(1e-3, 40 * eps)
    agreeing: set[str] = set()
    for name, gradients in found.items():
        if _width(gradients) != _width(truth[name]):
            continue  # the rule took the layer for one of another kind
        allowed = floor + share * squared_norms(truth[name]).sqrt()
        if bool((squared_norms(_difference(gradients, truth[name])).sqrt() <= allowed).all()):
            agreeing.add(name)
    return agreeing


def _width(gradients: RowGradients) -> int:
    if isinstance(gradients, FactoredGradients):
        return gradients.size
    return (gradients.value if isinstance(gradients, TokenGradients) else cast(Tensor, gradients)).shape[-1]


def _difference(first: RowGradients, second: RowGradients) -> RowGradients:
    if isinstance(first, FactoredGradients):
        first = first.dense()
    if isinstance(second, TokenGradients):
        return added(first, replace(second, value=-second.value))
    assert isinstance(second, Tensor)  # plain autograd gives no other form
    return added(first, -second)
