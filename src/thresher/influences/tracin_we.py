"""TracIn-WE (Yeh et al. 2022): TracIn on the word embedding, through the tokens that both rows contain."""

from torch import Tensor

from thresher.influences.pairing import Pairing


def tracin_we(pair: Pairing) -> Tensor | None:
    """I[j, i] = sum over tokens in both rows of v_j[t] . g_i[t], [Q, N]; None outside the word embedding."""
    return pair.dots if pair.is_word_embedding else None


def tracin_we_topk(pair: Pairing) -> Tensor | None:
    """TracIn_we^10: the same sum over tokens that are among the ten largest, by norm, of each row on its own."""
    return pair.top_token_dots if pair.is_word_embedding else None
