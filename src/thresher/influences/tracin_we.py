"""TracIn-WE (Yeh et al. 2022): TracIn on the word embedding, through the tokens that both rows contain."""

from torch import Tensor

from thresher.influences.pairing import Pairing
from thresher.influences.tokens import TokenPairing


def tracin_we(pair: Pairing) -> Tensor:
    """I[j, i] = sum over tokens in both rows of v_j[t] . g_i[t], [Q, N]."""
    return pair.dots


def tracin_we_topk(pair: Pairing) -> Tensor | None:
    """TracIn_we^10: the same sum over tokens that are among the ten largest, by norm, of each row on its own.

    None for a table that is kept as a matrix, whose tokens are not told apart.
    """
    return pair.top_token_dots if isinstance(pair, TokenPairing) else None
