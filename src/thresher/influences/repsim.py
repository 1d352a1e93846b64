"""RepSim (Hanawa et al. 2021; method.md 3): rows that the model represents alike, layer by layer; no gradients."""

from torch import Tensor

from thresher.influences.cosine import cosine
from thresher.influences.pairing import Pairing


def repsim(pair: Pairing) -> Tensor:
    """I[j, i] = cosine of the two rows' hidden states, of the last token or the mean over the real ones, [Q, N]."""
    return cosine(pair)
