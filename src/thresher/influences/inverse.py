"""The inverse of the damped empirical Fisher matrix, taken exactly (method.md 3; Koh & Liang 2017 with H = Fisher)."""

import torch
from torch import Tensor

from thresher.influences.datainf import damping
from thresher.influences.matrices import MatrixPairing
from thresher.influences.pairing import Pairing


def exact(pair: Pairing) -> Tensor:
    """I[j, i] = v_j (H + lambda I)^-1 g_i with H = (1/n) sum_k g_k g_k^T, [Q, N]; lambda as in DataInf.

    By rows, V G^T (G G^T / n + lambda)^-1, or by parameters, V (G^T G / n + lambda)^-1 G^T, whichever matrix is
    smaller; solved in float64. Zero where every gradient is zero.
    """
    at = damping(pair)
    if at == 0.0:
        return torch.zeros_like(pair.dots)
    if isinstance(pair, MatrixPairing) and pair.coordinates() < pair.rows:
        v, g = pair.whole("query").double(), pair.whole("train").double()
        return (_solve(pair.second_moment() / pair.rows, at, v.T).T @ g.T).float()
    return _solve(pair.gram.double() / pair.rows, at, pair.dots.double().T).T.float()


def _solve(matrix: Tensor, at: float, right: Tensor) -> Tensor:
    """(matrix + at I)^-1 right for a symmetric matrix with no negative eigenvalue."""
    matrix.diagonal().add_(at)
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
