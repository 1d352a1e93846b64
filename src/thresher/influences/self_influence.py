"""Self-influence (Pruthi et al. 2020): a row with a large gradient is one that the model has to be forced to fit."""

from torch import Tensor

from thresher.influences.pairing import Pairing


def self_influence(pair: Pairing) -> Tensor:
    """I[j, i] = -g_i . g_i, the same for every query, [Q, N]: large = suspicious, so the sign is flipped."""
    return (-pair.train_squares).expand(pair.queries, pair.rows)
