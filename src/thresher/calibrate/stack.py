"""A combination of candidates that tells canaries from the other rows, held close to what is known beforehand.

Logistic regression on few numbers a row: for each family of candidates the mean of those that find canaries best.
Which labels are wrong more often than others is in the law of the errors, of which two families speak. A hundred
canaries cannot tell two hundred candidates apart, so weights are drawn towards prior ones, which come from none of
the user's rows, and can never turn a detector against itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from thresher.arrays import Flags, Floats
from thresher.calibrate.candidates import Candidates, normal
from thresher.influences.registry import INFLUENCE
from thresher.scores.table import DETECTOR, Configuration

SELDOM = -3.0  # the intercept's first guess: few rows are canaries


@dataclass(frozen=True)
class Family:
    """Candidates of one kind: ``prior`` is the weight of their mean, ``most`` how many are averaged."""

    has: Callable[[str], bool]
    prior: float
    most: int


def _detectors(*names: str) -> Callable[[str], bool]:
    return {DETECTOR + name for name in names}.__contains__


FAMILIES: Mapping[str, Family] = {
    "influence": Family(lambda name: Configuration.parse(name) is not None, 0.2, 5),
    "training": Family(_detectors("loss", "loss_mean", "aum", "margin", "el2n"), 0.25, 2),
    "probe": Family(_detectors("probe_frozen", "confident"), 0.2, 1),
    "frozen neighbours": Family(_detectors("knn_frozen", "query_knn_frozen"), 0.1, 1),
    "tuned neighbours": Family(_detectors("knn_tuned", "query_knn_tuned"), 0.1, 1),
    "frozen law": Family(_detectors("noise_frozen"), 0.8, 1),
    "tuned law": Family(_detectors("noise_tuned"), 0.3, 1),
}
OF_FROZEN = ("probe", "frozen neighbours", "frozen law")


def of_frozen_features(candidate: str) -> bool:
    """Whether a candidate asks the model as it came, and nothing of its fine-tuning."""
    return any(FAMILIES[family].has(candidate) for family in OF_FROZEN)


@dataclass(frozen=True)
class Stack:
    """``members`` names each family's candidates, ``weights`` their mean's weight.

    ``strength`` says how strongly the weights were drawn to the prior ones.
    """

    members: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, float]
    intercept: float
    strength: float

    def suspicion(self, candidates: Candidates) -> Floats:
        """Log odds of being a canary, of every look, [M]; larger = more suspicious."""
        total = np.full(len(candidates.row), self.intercept)
        for family, names in self.members.items():
            total += self.weights[family] * _feature(candidates, names)
        return total


def fit_stack(candidates: Candidates, used: Flags, strength: float) -> Stack:
    """Fit to the looks ``used`` [M]: penalised by strength / 2 times the squared distance from the prior weights."""
    members = _members(candidates, used)
    features = np.stack([_feature(candidates, names) for names in members.values()], axis=1)
    prior = np.array([FAMILIES[family].prior for family in members])
    weights, intercept = _logistic(features[used], candidates.canary[used], prior, strength)
    return Stack(members, dict(zip(members, weights.tolist(), strict=True)), intercept, strength)


def found_canaries(candidates: Candidates, used: Flags) -> Floats:
    """How low the canaries among the looks ``used`` lie, by each candidate: 1 - their mean place, [K]; random 0.5."""
    return 1 - candidates.places[used & candidates.canary].mean(axis=0, dtype=np.float64)


def witnesses(candidates: Candidates) -> Floats:
    """Normal deviates of Mean over all layers, the mean over influences that tell queries apart, [M]; 0 without any."""
    parsed = {name: Configuration.parse(name) for name in candidates.names}
    heard = [
        name
        for name, found in parsed.items()
        if found and (found.group, found.aggregation) == ("layers", "mean") and not INFLUENCE[found.influence].alike
    ]
    return _feature(candidates, heard) if heard else np.zeros(len(candidates.row))


def _members(candidates: Candidates, used: Flags) -> dict[str, tuple[str, ...]]:
    found = found_canaries(candidates, used)
    members: dict[str, tuple[str, ...]] = {}
    for name, family in FAMILIES.items():
        there = [number for number, candidate in enumerate(candidates.names) if family.has(candidate)]
        best = sorted(there, key=lambda number: -found[number])[: family.most]
        if best:
            members[name] = tuple(candidates.names[number] for number in best)
    return members


def _feature(candidates: Candidates, names: Sequence[str]) -> Floats:
    columns = [candidates.names.index(name) for name in names]
    return -normal(candidates.places[:, columns]).mean(axis=1)


def _logistic(features: Floats, canary: Flags, prior: Floats, strength: float) -> tuple[Floats, float]:
    """Weights [d], at least 0, and intercept."""
    target = canary.astype(np.float64)

    def cost(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights, odds = point[:-1], features @ point[:-1] + point[-1]
        away = weights - prior
        wrong = 1 / (1 + np.exp(-odds)) - target
        value = (np.logaddexp(0, odds) - target * odds).sum() + strength / 2 * (away @ away)
        return float(value), np.append(features.T @ wrong + strength * away, wrong.sum())

    limits = [(0.0, None)] * len(prior) + [(None, None)]
    found = minimize(cost, np.append(prior, SELDOM), jac=True, method="L-BFGS-B", bounds=limits)
    return found.x[:-1], float(found.x[-1])
