"""The pairing that fits how a module's gradients are kept."""

from __future__ import annotations

from thresher.gradients.rows import HeadRows, TokenGradients
from thresher.gradients.store import GradientStore
from thresher.influences.head_kernel import LanguageHeadPairing
from thresher.influences.matrices import MatrixPairing
from thresher.influences.pairing import Pairing
from thresher.influences.tokens import TokenPairing
from thresher.tensors import Shelf


def pairing(
    query: GradientStore, reference: GradientStore, module: str, size: int, shelf: Shelf | None = None
) -> Pairing:
    """The queries and the reference rows of one module; ``size`` is its p. Statistics are kept on the ``shelf``."""
    first = next(reference.blocks(module))[1]
    if isinstance(first, TokenGradients):
        return TokenPairing(query, reference, module, size, None, shelf)
    kind = LanguageHeadPairing if isinstance(first, HeadRows) else MatrixPairing
    return kind(query, reference, module, size, None, shelf)
