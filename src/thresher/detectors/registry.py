"""Every detector by name. Adding one is adding a function and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np

from thresher.arrays import Floats
from thresher.detectors.baselines import uniform
from thresher.detectors.confident import confident
from thresher.detectors.evidence import Evidence, Need
from thresher.detectors.label_noise import noise
from thresher.detectors.neighbours import knn, query_knn
from thresher.detectors.probe import probe_frozen
from thresher.detectors.training import aum, el2n, loss, loss_mean, margin
from thresher.errors import ModelError


@dataclass(frozen=True)
class Detector:
    """A score of training rows, [n] float64, larger = helpful.

    ``cost`` is what it takes besides fine-tuning, with Q queries, n training rows and d features; what several need is
    done once for all. ``needs`` says what the evidence must hold, and ``package`` what must be installed that Thresher
    does not depend on.
    """

    name: str
    compute: Callable[[Evidence], Floats]
    formula: str
    cost: str
    source: str
    needs: frozenset[Need] = frozenset()
    package: str | None = None

    def usable(self, has: Callable[[Need], bool]) -> bool:
        """Whether there is all that is needed, and the package is installed."""
        return all(map(has, self.needs)) and (self.package is None or find_spec(self.package) is not None)


KEPT = "nothing: kept while training"
FORWARD = "one forward pass over the training rows"
BOTH = "one forward pass over training and query rows"
FITS = f"{BOTH}; 10 logistic regressions, and 5 for each strength of regularisation tried"
NEAR_ROWS = "share of the label among the sqrt(n) nearest other rows, weighted by cosine"
NEAR_QUERIES = "share of the label among the sqrt(Q) nearest queries, weighted by cosine"
LEARNED = frozenset[Need]({"training", "classes"})
FROZEN, TUNED = frozenset[Need]({"classes", "frozen"}), frozenset[Need]({"classes", "tuned"})

_ALL = (
    Detector("loss", loss, "-loss at the chosen checkpoint", FORWARD, "Arpit et al. 2017"),
    Detector(
        "loss_mean",
        loss_mean,
        "-mean over epochs of the loss while training",
        KEPT,
        "Arpit et al. 2017",
        frozenset({"training"}),
    ),
    Detector(
        "aum", aum, "mean over epochs of z_label - max z_other while training", KEPT, "Pleiss et al. 2020", LEARNED
    ),
    Detector(
        "el2n", el2n, "-mean over the first quarter of the epochs of |p - onehot|", KEPT, "Paul et al. 2021", LEARNED
    ),
    Detector(
        "margin",
        margin,
        "z_label - max z_other at the chosen checkpoint",
        FORWARD,
        "Pleiss et al. 2020",
        frozenset({"classes"}),
    ),
    Detector("knn_frozen", partial(knn, which="frozen"), NEAR_ROWS, f"{BOTH}; n^2 d", "Wilson 1972", FROZEN),
    Detector("knn_tuned", partial(knn, which="tuned"), NEAR_ROWS, f"{BOTH}; n^2 d", "Bahri et al. 2020", TUNED),
    Detector(
        "query_knn_frozen",
        partial(query_knn, which="frozen"),
        NEAR_QUERIES,
        f"{BOTH}; Q n d",
        "Bahri et al. 2020",
        FROZEN,
    ),
    Detector(
        "query_knn_tuned", partial(query_knn, which="tuned"), NEAR_QUERIES, f"{BOTH}; Q n d", "Bahri et al. 2020", TUNED
    ),
    Detector(
        "probe_frozen", probe_frozen, "log p(label) by other folds and queries", FITS, "Alain & Bengio 2017", FROZEN
    ),
    Detector(
        "confident",
        confident,
        "p(label) of the same probe, less the mean of the rows of its class",
        f"{FITS}; nothing more beside probe_frozen",
        "Northcutt et al. 2021",
        FROZEN,
        "cleanlab",
    ),
    Detector(
        "noise_frozen",
        partial(noise, which="frozen"),
        "log odds of a right label, errors' law learned along with the task",
        f"{FITS}; 45 more regressions",
        "Raykar et al. 2010; Hendrycks et al. 2018",
        FROZEN,
    ),
    Detector(
        "noise_tuned",
        partial(noise, which="tuned"),
        "the same on features after fine-tuning",
        f"{FITS}; 45 more regressions",
        "Raykar et al. 2010; Hendrycks et al. 2018",
        TUNED,
    ),
    Detector("random", uniform, "uniform noise", "nothing", "-"),
)
DETECTORS: Mapping[str, Detector] = {detector.name: detector for detector in _ALL}


def available(has: Callable[[Need], bool]) -> list[str]:
    """Names of the detectors that need nothing that is not there or not installed; in the registry's order."""
    return [name for name, detector in DETECTORS.items() if detector.usable(has)]


def detect(evidence: Evidence) -> dict[str, Floats]:
    """Scores [n] float64 of every available detector, larger = helpful.

    Raises :class:`ModelError` for a score that is not finite.
    """
    scores = {name: DETECTORS[name].compute(evidence) for name in available(evidence.has)}
    for name, values in scores.items():
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            raise ModelError(
                f"{name}: what the model says of training row {broken[0]} is not finite; use --dtype float32."
            )
    return scores
