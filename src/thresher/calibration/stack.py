"""A combination of candidates that tells canaries from the other rows, held close to what is known beforehand.

Logistic regression on few numbers a row: for each family of candidates the mean of those that find canaries best.
Which labels are wrong more often than others is in the law of the errors, of which two families speak. A hundred
canaries cannot tell two hundred candidates apart, so weights are drawn towards prior ones, which come from none of
the user's rows, and can never turn a detector against itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from thresher.arrays import Flags, Floats
from thresher.calibration.candidates import Candidates, normal
from thresher.detectors.families import INFLUENCES, ORDER, OWN, Family
from thresher.detectors.registry import DETECTORS
from thresher.influences.registry import INFLUENCE
from thresher.scores.names import Configuration, DetectorScore, ScoreName

SELDOM = -3.0  # the intercept's first guess: few rows are canaries


def family_of(candidate: ScoreName) -> Family | None:
    """The family that a candidate is counted in; None for one that is left out of the combination."""
    if isinstance(candidate, Configuration):
        return INFLUENCES
    detector = DETECTORS.get(candidate.detector)
    return OWN if detector is None else detector.family


def of_frozen_features(candidate: ScoreName) -> bool:
    """Whether a candidate asks nothing of the fine-tuning: the model as it came, or the texts."""
    detector = DETECTORS.get(candidate.detector) if isinstance(candidate, DetectorScore) else None
    return detector is not None and detector.untrained


@dataclass(frozen=True)
class Stack:
    """``members`` names each family's candidates, ``weights`` their mean's weight.

    ``strength`` says how strongly the weights were drawn to the prior ones; infinitely where there were no canaries.
    """

    members: Mapping[str, tuple[ScoreName, ...]]
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
    prior = _priors(candidates)
    weights, intercept = _logistic(features[used], candidates.canary[used], prior, strength)
    return Stack(members, dict(zip(members, weights.tolist(), strict=True)), intercept, strength)


def prior_stack(candidates: Candidates) -> Stack:
    """What is known beforehand, where there are no canaries: every member of a family counts alike."""
    families = _families(candidates)
    members = {family.name: tuple(candidates.names[one] for one in there) for family, there in families.items()}
    return Stack(members, {family.name: family.prior for family in families}, SELDOM, np.inf)


def found_canaries(candidates: Candidates, used: Flags) -> Floats:
    """How low the canaries among the looks ``used`` lie, by each candidate: 1 - their mean place, [K]; random 0.5."""
    return 1 - candidates.places[used & candidates.canary].mean(axis=0, dtype=np.float64)


def witnesses(candidates: Candidates) -> Floats:
    """Normal deviates of Mean over all layers, the mean over influences that tell queries apart, [M]; 0 without any."""
    heard = [
        one
        for one in candidates.names
        if isinstance(one, Configuration)
        and (one.group, one.aggregation) == ("layers", "mean")
        and not INFLUENCE[one.influence].alike
    ]
    return _feature(candidates, heard) if heard else np.zeros(len(candidates.row))


def _families(candidates: Candidates) -> dict[Family, list[int]]:
    """Which candidates each family has, in the families' own order."""
    found: dict[Family, list[int]] = {family: [] for family in ORDER}
    called = {family.name: family for family in ORDER}  # of those of one name the first says what its weight is
    for number, candidate in enumerate(candidates.names):
        family = family_of(candidate)
        if family is not None:
            found.setdefault(called.setdefault(family.name, family), []).append(number)
    return {family: there for family, there in found.items() if there}


def _priors(candidates: Candidates) -> Floats:
    return np.array([family.prior for family in _families(candidates)])


def _members(candidates: Candidates, used: Flags) -> dict[str, tuple[ScoreName, ...]]:
    found = found_canaries(candidates, used)
    members: dict[str, tuple[ScoreName, ...]] = {}
    for family, there in _families(candidates).items():
        best = sorted(there, key=lambda number: -found[number])[: family.most]
        members[family.name] = tuple(candidates.names[number] for number in best)
    return members


def _feature(candidates: Candidates, names: Sequence[ScoreName]) -> Floats:
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
