"""Covariance of two gradients' entries: TracIn without what all coordinates have in common."""

from torch import Tensor

from thresher.influences.pairing import Pairing


def covariance(pair: Pairing) -> Tensor:
    """I[j, i] = sum_w (v_jw - mean v_j)(g_iw - mean g_i) / (p - 1) over the coordinates w, [Q, N].

    A side experiment of Vitel & Chhabra's code. Zero for a module of one number.
    """
    common = pair.entry_sums("query")[:, None] * pair.entry_sums("train") / pair.size
    return (pair.dots - common) / max(pair.size - 1, 1)
