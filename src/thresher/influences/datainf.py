"""DataInf (Kwon et al. 2024): the inverse Hessian taken row by row, in closed form."""

import torch
from torch import Tensor

from thresher.influences.pairing import Pairing

DAMPING = 0.1


def datainf(pair: Pairing) -> Tensor:
    """I[j, i] = (1 / lambda) [v_j.g_i - (1/n) sum_k (v_j.g_k)(g_k.g_i) / (lambda + g_k.g_k)], [Q, N].

    lambda is a tenth of the mean squared gradient entry over rows and coordinates of the module. With C = V G^T the sum
    over k is ((C / (lambda + d)) G) G^T, so no n x n matrix is formed (SPEC 3). Zero where every gradient is zero.
    """
    squares = pair.train_squares
    damping = DAMPING * float(squares.double().mean()) / pair.size
    if damping == 0.0:
        return torch.zeros_like(pair.dots)
    correction = pair.through_train(pair.dots / (damping + squares))
    return (pair.dots - correction / pair.rows) / damping
