"""The pairing that fits how a module's gradients are kept."""

from __future__ import annotations

from thresher.gradients.rows import HeadRows, TokenGradients
from thresher.gradients.store import GradientStore
from thresher.influences.head_kernel import LanguageHeadPairing
from thresher.influences.matrices import MatrixPairing
from thresher.influences.pairing import Pairing
from thresher.influences.tokens import TokenPairing


def pairing(store: GradientStore, module: str, size: int) -> Pairing:
    """Both sides of one module; ``size`` is its p."""
    first = next(store.blocks("train", module))[1]
    if isinstance(first, TokenGradients):
        return TokenPairing(store, module, size)
    return (LanguageHeadPairing if isinstance(first, HeadRows) else MatrixPairing)(store, module, size)
