"""LiSSA (Agarwal et al. 2017; Koh & Liang 2017): the inverse as a series, a step at a time."""

import torch
from torch import Tensor

from thresher.influences.datainf import damping
from thresher.influences.pairing import Pairing

STEPS = 100
TOLERANCE = 1e-4
_POWER_STEPS = 30


def lissa(pair: Pairing, steps: int = STEPS, tolerance: float = TOLERANCE) -> Tensor:
    """I[j, i] = r_j . g_i / scale after r <- v + (1 - damping) r - H r / scale, [Q, N]; H = (1/n) sum_k g_k g_k^T.

    damping * scale is DataInf's lambda, so the fixed point is the exact (H + lambda I)^-1 v. The scale is the largest
    eigenvalue of H, plus lambda: the shortest that is sure to converge. r stays in the span of v and the training
    gradients, so the series runs on R G^T [Q, N] and G G^T [N, N] alone. It ends after ``steps``, or when a step
    changes it by less than ``tolerance`` of its norm: directions in which H is small have then not converged.
    """
    at = damping(pair)
    if at == 0.0:
        return torch.zeros_like(pair.dots)
    curvature = pair.gram / pair.rows
    scale = 1.01 * _largest_eigenvalue(curvature) + at
    now = pair.dots
    for _ in range(steps):
        then = pair.dots + (1 - at / scale) * now - now @ curvature / scale
        change = float((then - now).norm() / then.norm().clamp_min(torch.finfo(then.dtype).tiny))
        now = then
        if change < tolerance:
            break
    return now / scale


def _largest_eigenvalue(matrix: Tensor) -> float:
    vector = matrix.sum(1) + matrix.diagonal()
    for _ in range(_POWER_STEPS):
        vector = matrix @ (vector / vector.norm().clamp_min(torch.finfo(vector.dtype).tiny))
    return float(vector.norm())
