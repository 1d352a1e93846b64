"""Every detector by name. Adding one is a function and a line here, or from outside one registration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np

from thresher.arrays import Floats
from thresher.detectors.baselines import uniform
from thresher.detectors.confident import confident, confident_given
from thresher.detectors.duplicates import agreement
from thresher.detectors.evidence import UNTRAINED, WHICH, Evidence, Need, Which
from thresher.detectors.families import (
    FROZEN_LAW,
    FROZEN_NEIGHBOURS,
    PROBE,
    SECOND_LAW,
    SECOND_NEIGHBOURS,
    SECOND_PROBE,
    TRAINING,
    TUNED_LAW,
    TUNED_NEIGHBOURS,
    Family,
)
from thresher.detectors.label_noise import noise
from thresher.detectors.neighbours import knn, query_knn
from thresher.detectors.probe import probe
from thresher.detectors.training import aum, el2n, loss, loss_mean, margin
from thresher.errors import ConfigError, ModelError
from thresher.registry import Registry


@dataclass(frozen=True)
class Detector:
    """A score of training rows, [n] float64, larger = helpful.

    Attributes:
        name: Of the score.
        compute: Gives [n] float64 of the evidence.
        formula: In a line.
        cost: What it takes besides fine-tuning, with Q queries, n training rows and d features; what several need is
            done once for all.
        source: Who found it, and when.
        needs: What the evidence must hold.
        package: What must be installed that Thresher does not depend on.
        family: With which others it is averaged where canaries choose; None leaves it out of the combination, though it
            may rank the rows alone.

    Example:
        >>> shortest = Detector("shortest", lambda evidence: evidence.losses * 0.0, "0", "nothing", "-")
        >>> shortest.usable(lambda need: False)
        True
    """

    name: str
    compute: Callable[[Evidence], Floats]
    formula: str
    cost: str
    source: str
    needs: frozenset[Need] = frozenset()
    package: str | None = None
    family: Family | None = None

    @property
    def untrained(self) -> bool:
        """Whether it asks for something, and that is there before any training."""
        return bool(self.needs) and self.needs.isdisjoint({"training", "predictions", "tuned", "held out"})

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
NEIGHBOURS: dict[Which, Family] = {
    "frozen": FROZEN_NEIGHBOURS,
    "second": SECOND_NEIGHBOURS,
    "tuned": TUNED_NEIGHBOURS,
}
LAW: dict[Which, Family] = {"frozen": FROZEN_LAW, "second": SECOND_LAW, "tuned": TUNED_LAW}

_ALL = (
    Detector(
        "loss",
        loss,
        "-loss at the chosen checkpoint",
        FORWARD,
        "Arpit et al. 2017",
        frozenset({"predictions"}),
        family=TRAINING,
    ),
    Detector(
        "loss_mean",
        loss_mean,
        "-mean over epochs of the loss while training",
        KEPT,
        "Arpit et al. 2017",
        frozenset({"training"}),
        family=TRAINING,
    ),
    Detector(
        "aum",
        aum,
        "mean over epochs of z_label - max z_other while training",
        KEPT,
        "Pleiss et al. 2020",
        LEARNED,
        family=TRAINING,
    ),
    Detector(
        "el2n",
        el2n,
        "-mean over the first quarter of the epochs of |p - onehot|",
        KEPT,
        "Paul et al. 2021",
        LEARNED,
        family=TRAINING,
    ),
    Detector(
        "margin",
        margin,
        "z_label - max z_other at the chosen checkpoint",
        FORWARD,
        "Pleiss et al. 2020",
        frozenset({"predictions", "classes"}),
        family=TRAINING,
    ),
    *(
        Detector(
            f"knn_{which}",
            partial(knn, which=which),
            NEAR_ROWS,
            f"{BOTH}; n^2 d",
            "Bahri et al. 2020" if which == "tuned" else "Wilson 1972",
            frozenset({"classes", which}),
            family=NEIGHBOURS[which],
        )
        for which in WHICH
    ),
    *(
        Detector(
            f"query_knn_{which}",
            partial(query_knn, which=which),
            NEAR_QUERIES,
            f"{BOTH}; Q n d",
            "Bahri et al. 2020",
            frozenset({"classes", which, "queries"}),
            family=NEIGHBOURS[which],
        )
        for which in WHICH
    ),
    *(
        Detector(
            f"probe_{which}",
            partial(probe, which=which),
            "log p(label) by other folds and queries",
            FITS,
            "Alain & Bengio 2017",
            frozenset({"classes", which}),
            family=SECOND_PROBE if which == "second" else PROBE,
        )
        for which in UNTRAINED
    ),
    Detector(
        "confident",
        confident,
        "p(label) of the same probe, less the mean of the rows of its class",
        f"{FITS}; nothing more beside probe_frozen",
        "Northcutt et al. 2021",
        frozenset({"classes", "frozen"}),
        "cleanlab",
        PROBE,
    ),
    Detector(
        "confident_given",
        confident_given,
        "the same of probabilities that the caller has, by models without the row",
        "nothing",
        "Northcutt et al. 2021",
        frozenset({"held out"}),
        family=PROBE,
    ),
    *(
        Detector(
            f"noise_{which}",
            partial(noise, which=which),
            "log odds of a right label, errors' law learned along with the task",
            f"{FITS}; 45 more regressions",
            "Raykar et al. 2010; Hendrycks et al. 2018",
            frozenset({"classes", which, "queries"}),
            family=LAW[which],
        )
        for which in WHICH
    ),
    Detector(
        "copies",
        agreement,
        "near copies with the same label less those with another, over all of them and one, queries counting as 3",
        "seconds for ten thousands of rows: their texts alone",
        "Broder 1997",
        frozenset({"classes", "copies"}),
    ),
    Detector("random", uniform, "uniform noise", "nothing", "-"),
)
DETECTORS = Registry[Detector](
    "detector", "thresher.detectors", {detector.name: detector for detector in _ALL}, kind=Detector
)


def available(has: Callable[[Need], bool]) -> list[str]:
    """Names of the detectors that need nothing that is not there or not installed; in the registry's order."""
    return [name for name, detector in DETECTORS.items() if detector.usable(has)]


def detect(evidence: Evidence, detectors: Sequence[Detector] | None = None) -> dict[str, Floats]:
    """Scores [n] float64 of the detectors, by default of every available one, larger = helpful.

    Raises :class:`ModelError` for a score that is not finite, :class:`ConfigError` for what is no score a row.
    """
    if detectors is None:
        detectors = [DETECTORS[name] for name in available(evidence.has)]
    scores = {detector.name: detector.compute(evidence) for detector in detectors}
    for name, values in scores.items():
        shape = np.shape(values)
        if shape != (len(evidence.labels),):
            raise ConfigError(f"The detector '{name}' gives {shape} for {len(evidence.labels)} rows; one score each.")
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            raise ModelError(
                f"{name}: what the model says of training row {broken[0]} is not finite; use --dtype float32."
            )
    return scores
