"""DataInf (Kwon et al. 2024): the inverse Hessian taken row by row, in closed form."""

import torch
from torch import Tensor

from thresher.influences.pairing import Combination, Pairing

DAMPING = 0.1


def damping(reference: Pairing) -> float:
    """lambda: a tenth of the mean squared gradient entry over the module's rows and coordinates (method.md 3)."""
    return DAMPING * float(reference.train_squares.double().mean()) / reference.size


def datainf(pair: Pairing) -> Tensor:
    """I[j, i] = (1 / lambda) [v_j.g_i - (1/n) sum_k (v_j.g_k)(g_k.g_i) / (lambda + g_k.g_k)], [Q, N].

    The n rows k are the reference. With C = V R^T the sum over k is S g_i, S = (C / (lambda + d)) R: no n x n matrix is
    formed, and a row's influence is (V - S / n) g_i / lambda (method.md 3). Zero where every gradient is zero.
    """
    at, correction = pair.fit(_fit)
    if at == 0.0:
        return torch.zeros_like(pair.dots)
    return (pair.dots - pair.along(correction) / pair.reference.rows) / at


def _fit(reference: Pairing) -> tuple[float, Combination]:
    at = damping(reference)
    return at, Combination(reference.dots / (at + reference.train_squares))


def datainf_one(pair: Pairing) -> Tensor:
    """DataInf as if row i were the only one: I[j, i] = v_j.g_i / (lambda_i + g_i.g_i), [Q, N].

    lambda_i is a tenth of the mean squared entry of g_i, so this is v_j.g_i / |g_i|^2 up to a factor 1 / (1 + .1 / p).
    0 where g_i is zero. A side experiment of Vitel & Chhabra's code.
    """
    squares = pair.train_squares * (1 + DAMPING / pair.size)
    return torch.where(squares > 0, pair.dots / squares.clamp_min(torch.finfo(squares.dtype).tiny), 0.0)
