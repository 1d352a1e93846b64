"""Every influence function by name. Adding one is adding a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from thresher.errors import ConfigError
from thresher.influences.cosine import cosine
from thresher.influences.datainf import datainf
from thresher.influences.pairing import Pairing
from thresher.influences.tracin import tracin
from thresher.influences.tracin_we import tracin_we, tracin_we_topk


@dataclass(frozen=True)
class InfluenceFunction:
    """How one module's gradients meet. ``compute`` gives [Q, N], or None where it is not defined.

    Without ``compute``, it takes gradients at more than one point of the training (``influences/checkpoints.py``).
    """

    compute: Callable[[Pairing], Tensor | None] | None
    formula: str
    source: str
    word_embedding_only: bool = False


INFLUENCE: Mapping[str, InfluenceFunction] = {
    "tracin": InfluenceFunction(tracin, "v . g", "Pruthi et al. 2020"),
    "cosine": InfluenceFunction(cosine, "v . g / (|v| |g|)", "Vitel & Chhabra 2026"),
    "datainf": InfluenceFunction(
        datainf, "[v.g - (1/n) sum_k (v.g_k)(g_k.g) / (lambda + |g_k|^2)] / lambda", "Kwon et al. 2024"
    ),
    "tracin_we": InfluenceFunction(
        tracin_we, "sum over shared tokens t of v[t] . g[t]", "Yeh et al. 2022", word_embedding_only=True
    ),
    "tracin_we_topk": InfluenceFunction(
        tracin_we_topk,
        "the same over each row's own 10 largest tokens",
        "Yeh et al. 2022",
        word_embedding_only=True,
    ),
    "tracin_checkpoints": InfluenceFunction(
        None, "sum over checkpoints c of learning rate_c (v_c . g_c)", "Pruthi et al. 2020"
    ),
}


def check_methods(methods: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple, each once. Raises :class:`ConfigError` for one that is not known."""
    names = tuple(dict.fromkeys(methods))
    unknown = [name for name in names if name not in INFLUENCE]
    if unknown or not names:
        raise ConfigError(f"There is no influence function '{', '.join(unknown)}'; choose from {', '.join(INFLUENCE)}.")
    return names
