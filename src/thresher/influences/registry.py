"""Every influence function by name. Adding one is a file and a line here, or from outside one registration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from thresher.registry import Registry

Where = Literal["every weight", "word embedding", "hidden states", "head"]


@dataclass(frozen=True)
class InfluenceFunction:
    """How one module's two sides meet.

    Attributes:
        compute: Gives [Q, N] float32 of a :class:`Pairing`, larger = helpful, or None where the module is not kept as
            it needs. The N rows may be some of all: what hangs on others than the row itself is taken from
            ``pair.reference``, in ``pair.fit``. None in its place: it takes gradients at more than one point of the
            training (``influences/checkpoints.py``).
        formula: In a line, with v a query's and g a training row's gradient.
        cost: What it adds to the gradients, with Q queries, n training rows and p numbers a module.
        source: Who found it, and when.
        where: On what it has a value.
        projectable: It depends on inner products alone, and so may be estimated from projected gradients.
        alike: It is the same for every query, so that it names none.
        gram: It needs G G^T, n x n numbers: every row is then a reference row.
        optimizer_aware: It may take train gradients that the optimizer scaled. Others bring an inverse Hessian, or a
            detector, fitted to plain gradients.
        cross_entropy: It is written for the softmax and its cross-entropy, and has no value for another loss.
        title: What it is called in tables and figures.

    Example:
        >>> half = InfluenceFunction(lambda pair: pair.dots / 2, "v . g / 2", "Q n p", "-", optimizer_aware=True)
        >>> half.where
        'every weight'
    """

    compute: Callable[[Pairing], Tensor | None] | None
    formula: str
    cost: str
    source: str
    where: Where = "every weight"
    projectable: bool = True
    alike: bool = False
    gram: bool = False
    optimizer_aware: bool = False
    cross_entropy: bool = False
    title: str | None = None

    def defined_on(self, module: ModuleName) -> bool:
        """Whether the function has a value on this module."""
        if module.kind != "weight":
            return self.where == ("hidden states" if module.kind == "hidden" else "head")
        return self.where == "every weight" or (self.where == "word embedding" and module.group == "WE")


Method = str | InfluenceFunction | Callable[[Pairing], Tensor | None]
"""An influence function: its name, or itself."""

Methods = Sequence[Method] | Mapping[str, InfluenceFunction]
"""Several of them, or what :func:`check_methods` made of these."""

INFLUENCE = Registry[InfluenceFunction](
    "influence function",
    "thresher.influences",
    {
        "tracin": InfluenceFunction(
            tracin, "v . g", "Q n p", "Pruthi et al. 2020", optimizer_aware=True, title="TracIn"
        ),
        "cosine": InfluenceFunction(
            cosine, "v . g / (|v| |g|)", "Q n p", "Vitel & Chhabra 2026", optimizer_aware=True, title="Cosine"
        ),
        "datainf": InfluenceFunction(
            datainf,
            "[v.g - (1/n) sum_k (v.g_k)(g_k.g) / (lambda + |g_k|^2)] / lambda",
            "3 Q n p",
            "Kwon et al. 2024",
            title="DataInf",
        ),
        "tracin_we": InfluenceFunction(
            tracin_we,
            "sum over shared tokens t of v[t] . g[t]",
            "Q n p",
            "Yeh et al. 2022",
            "word embedding",
            optimizer_aware=True,
            title="TracIn_we",
        ),
        "tracin_we_topk": InfluenceFunction(
            tracin_we_topk,
            "the same over each row's own 10 largest tokens",
            "Q n p",
            "Yeh et al. 2022",
            "word embedding",
            optimizer_aware=True,
            title="TracIn_we^10",
        ),
        "exact": InfluenceFunction(
            exact,
            "v (H + lambda I)^-1 g, H = (1/n) sum_k g_k g_k^T",
            "n^2 min(n, p) + n^2 p",
            "Koh & Liang 2017",
            gram=True,
        ),
        "lissa": InfluenceFunction(
            lissa,
            "r . g, r <- v + (1 - damping) r - H r / scale, 100 times",
            "n^2 p + 100 Q n^2",
            "Agarwal et al. 2017",
            gram=True,
            title="LiSSA",
        ),
        "datainf_one": InfluenceFunction(
            datainf_one, "v . g / (lambda_i + |g|^2)", "Q n p", "Vitel & Chhabra 2026, code"
        ),
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
            title="RepSim",
        ),
        "head_kernel": InfluenceFunction(
            head_kernel,
            "sum_tt' (p_t - e_t) . (p_t' - e_t') h_t . h_t'",
            "forward pass; Q n (C + d) a pair of tokens",
            "Yeh et al. 2018",
            "head",
            cross_entropy=True,
        ),
        "tracin_checkpoints": InfluenceFunction(
            None,
            "sum over checkpoints c of learning_rate_c (v_c . g_c)",
            "gradients once more a checkpoint; Q n p",
            "Pruthi et al. 2020",
            optimizer_aware=True,
        ),
    },
    kind=InfluenceFunction,
)


def check_methods(methods: Methods, *, projected: bool = False) -> dict[str, InfluenceFunction]:
    """The influence functions by name, each once, in the order given.

    A callable that is passed in goes by its own name, and is defined on every weight, of whole gradients.

    Raises:
        ConfigError: For one that is unknown or cannot be projected, and for a callable without a name of its own.
    """
    if not isinstance(methods, Mapping):
        methods = _by_name(methods)
    whole = [name for name, function in methods.items() if projected and not function.projectable]
    if whole:
        raise ConfigError(f"--projection: {', '.join(whole)} needs whole gradients; leave one of the two out.")
    return dict(methods)


def _by_name(methods: Sequence[Method]) -> dict[str, InfluenceFunction]:
    unknown = [name for name in methods if isinstance(name, str) and name not in INFLUENCE]
    if unknown or not methods:
        names = ", ".join(dict.fromkeys(unknown))
        raise ConfigError(f"There is no influence function '{names}'; choose from {', '.join(INFLUENCE)}.")
    return dict(_name(method) for method in methods)


def _name(method: Method) -> tuple[str, InfluenceFunction]:
    if isinstance(method, str):
        return method, INFLUENCE[method]
    record = method if isinstance(method, InfluenceFunction) else _passed_in(method)
    name = str(getattr(record.compute, "__name__", type(record.compute).__name__))
    known = INFLUENCE.get(name)
    if known is not None and known.compute is record.compute:
        return name, known
    if known is not None or not name.isidentifier():
        why = "is taken" if known else "can name no scores"
        raise ConfigError(f"An influence function that is passed in needs a name of its own, and '{name}' {why}.")
    return name, record


def _passed_in(compute: Callable[[Pairing], Tensor | None]) -> InfluenceFunction:
    formula = (getattr(compute, "__doc__", None) or "as passed in").strip().splitlines()[0]
    return InfluenceFunction(compute, formula, "-", "-", projectable=False)
