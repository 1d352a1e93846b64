"""TracIn (Pruthi et al. 2020) at one checkpoint."""

from torch import Tensor

from thresher.influences.pairing import Pairing


def tracin(pair: Pairing) -> Tensor:
    """I[j, i] = v_j . g_i, [Q, N]."""
    return pair.dots
