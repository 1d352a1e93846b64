"""Cosine of the two gradients: TracIn that does not favour rows with large gradients."""

import torch
from torch import Tensor

from thresher.influences.pairing import Pairing


def cosine(pair: Pairing) -> Tensor:
    """I[j, i] = v_j . g_i / (norm v_j norm g_i), 0 where either norm is 0, [Q, N]."""
    norms = pair.query_squares.sqrt()[:, None] * pair.train_squares.sqrt()
    return torch.where(norms > 0, pair.dots / norms.clamp_min(torch.finfo(norms.dtype).tiny), 0.0)
