"""Influence functions as their definitions have them, for gradients of float64."""

from __future__ import annotations

from torch import Tensor

TOLERANCE = 1e-5


def defined(v: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The formulas, written out with n x n and Q x N matrices. ``v`` [Q, p], ``g`` [N, p]."""
    dots, gram = v @ g.T, g @ g.T
    squares = gram.diagonal()
    damping = 0.1 * (g**2).mean()
    correction = (dots / (damping + squares)) @ gram / len(g)
    return {
        "tracin": dots,
        "cosine": dots / (v.norm(dim=1)[:, None] * g.norm(dim=1)),
        "datainf": (dots - correction) / damping,
    }
