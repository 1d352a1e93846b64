"""Every influence function by name. Adding one is adding a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from thresher.errors import ConfigError
from thresher.influences.cosine import cosine
from thresher.influences.covariance import covariance
from thresher.influences.datainf import datainf, datainf_one
from thresher.influences.head_kernel import head_kernel
from thresher.influences.inverse import exact
from thresher.influences.lissa import lissa
from thresher.influences.outlier import outlier_lof, outlier_svm
from thresher.influences.pairing import Pairing
from thresher.influences.repsim import repsim
from thresher.influences.self_influence import self_influence
from thresher.influences.tracin import tracin
from thresher.influences.tracin_we import tracin_we, tracin_we_topk
from thresher.model.names import ModuleName

Where = Literal["every weight", "word embedding", "hidden states", "head"]


@dataclass(frozen=True)
class InfluenceFunction:
    """How one module's two sides meet. ``compute`` gives [Q, N], or None where the module is not kept as it needs.

    ``cost`` is what it adds to the gradients, with Q queries, n training rows and p numbers a module. ``projectable``
    says that it depends on inner products alone, and so may be estimated from projected gradients, ``alike`` that it is
    the same for every query, so that it names none. Without ``compute``,
    it takes gradients at more than one point of the training (``influences/checkpoints.py``).
    """

    compute: Callable[[Pairing], Tensor | None] | None
    formula: str
    cost: str
    source: str
    where: Where = "every weight"
    projectable: bool = True
    alike: bool = False

    def defined_on(self, module: ModuleName) -> bool:
        """Whether the function has a value on this module."""
        if module.kind != "weight":
            return self.where == ("hidden states" if module.kind == "hidden" else "head")
        return self.where == "every weight" or (self.where == "word embedding" and module.group == "WE")


INFLUENCE: Mapping[str, InfluenceFunction] = {
    "tracin": InfluenceFunction(tracin, "v . g", "Q n p", "Pruthi et al. 2020"),
    "cosine": InfluenceFunction(cosine, "v . g / (|v| |g|)", "Q n p", "Vitel & Chhabra 2026"),
    "datainf": InfluenceFunction(
        datainf, "[v.g - (1/n) sum_k (v.g_k)(g_k.g) / (lambda + |g_k|^2)] / lambda", "3 Q n p", "Kwon et al. 2024"
    ),
    "tracin_we": InfluenceFunction(
        tracin_we, "sum over shared tokens t of v[t] . g[t]", "Q n p", "Yeh et al. 2022", "word embedding"
    ),
    "tracin_we_topk": InfluenceFunction(
        tracin_we_topk, "the same over each row's own 10 largest tokens", "Q n p", "Yeh et al. 2022", "word embedding"
    ),
    "exact": InfluenceFunction(
        exact, "v (H + lambda I)^-1 g, H = (1/n) sum_k g_k g_k^T", "n^2 min(n, p) + n^2 p", "Koh & Liang 2017"
    ),
    "lissa": InfluenceFunction(
        lissa, "r . g, r <- v + (1 - damping) r - H r / scale, 100 times", "n^2 p + 100 Q n^2", "Agarwal et al. 2017"
    ),
    "datainf_one": InfluenceFunction(datainf_one, "v . g / (lambda_i + |g|^2)", "Q n p", "Vitel & Chhabra 2026, code"),
    "covariance": InfluenceFunction(
        covariance,
        "sum (v - mean v)(g - mean g) / (p - 1)",
        "Q n p",
        "Vitel & Chhabra 2026, code",
        projectable=False,
    ),
    "self_influence": InfluenceFunction(self_influence, "-|g|^2", "n p", "Pruthi et al. 2020", alike=True),
    "outlier_svm": InfluenceFunction(
        outlier_svm,
        "one-class SVM on the queries' gradients of the row's class",
        "(Q + n) Q p",
        "Schoelkopf et al. 2001",
        projectable=False,
        alike=True,
    ),
    "outlier_lof": InfluenceFunction(
        outlier_lof,
        "local outlier factor against the queries' gradients of the row's class",
        "(Q + n) Q p",
        "Breunig et al. 2000",
        projectable=False,
        alike=True,
    ),
    "repsim": InfluenceFunction(
        repsim,
        "cosine of hidden states, last token or mean",
        "forward pass; Q n d",
        "Hanawa et al. 2021",
        "hidden states",
    ),
    "head_kernel": InfluenceFunction(
        head_kernel,
        "sum_tt' (p_t - e_t) . (p_t' - e_t') h_t . h_t'",
        "forward pass; Q n (C + d) a pair of tokens",
        "Yeh et al. 2018",
        "head",
    ),
    "tracin_checkpoints": InfluenceFunction(
        None,
        "sum over checkpoints c of learning rate_c (v_c . g_c)",
        "gradients once more a checkpoint; Q n p",
        "Pruthi et al. 2020",
    ),
}


def check_methods(methods: Iterable[str], *, projected: bool = False) -> tuple[str, ...]:
    """The names as a tuple, each once. Raises :class:`ConfigError` for one that is unknown or cannot be projected."""
    names = tuple(dict.fromkeys(methods))
    unknown = [name for name in names if name not in INFLUENCE]
    if unknown or not names:
        raise ConfigError(f"There is no influence function '{', '.join(unknown)}'; choose from {', '.join(INFLUENCE)}.")
    whole = [name for name in names if projected and not INFLUENCE[name].projectable]
    if whole:
        raise ConfigError(f"--projection: {', '.join(whole)} needs whole gradients; leave one of the two out.")
    return names
