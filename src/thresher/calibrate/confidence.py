"""How sure we are that a row is wrong, how many rows are, and how many to drop.

Positive-unlabelled: canaries are known errors, of the other rows a share pi is wrong. Let f_c and f be the densities of
the suspicion of canaries and of other rows, f_1 and f_0 those of wrong and right ones. A canary in a row that was wrong
already may make it right: in delta = pi / (C - 1) of them, C classes. So f = pi f_1 + (1 - pi) f_0 and
f_c = (1 - delta) f_1 + delta f_0. With L = f_1 / f_0, whose logarithm is taken to be linear in the suspicion and fitted
so that the odds f_c / f which follow from it tell canaries from other rows,

    P(wrong | suspicion) = pi L / (pi L + 1 - pi).

A line in log(f_c / f) itself would not do: that ratio cannot exceed (1 - delta) / pi.

What is assumed: that errors are to canaries as one uniform draw to another. Two estimates of pi, one of which does not
know the canaries, check it as far as it can be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from thresher.calibrate.candidates import Candidates
from thresher.data.noise.draw import Flags
from thresher.scores.aggregate import Floats

DRAWS = 4000
FOUND, FAR = np.array([0.25, 0.5, 0.75, 1.0]), 2.5  # 1.96 at all four places (Bonferroni)
SURE, MOST = 0.99, 0.45  # no row is certain; above, right and wrong could not be told apart
FARTHEST = 30.0


@dataclass(frozen=True)
class ErrorRate:
    """Share of the rows that is wrong, with a 95 % interval.

    ``source`` is "queries" (what a model that saw neither thinks of their labels and of the rows') or "canaries" (an
    upper bound: as many rows would look like canaries). ``bound`` [estimate, upper end] is that upper bound in any
    case, and ``plausible`` says whether the two agree: None where there is only one of them.
    """

    estimate: float
    low: float
    high: float
    source: str
    bound: tuple[float, float]
    plausible: bool | None


@dataclass(frozen=True)
class Confidence:
    """``probability`` [n] that a row is wrong; ``q_value`` [n], the share of right rows among it and all more
    suspicious ones; ``more_likely_wrong`` rows have a probability above one half."""

    probability: Floats
    q_value: Floats
    rate: ErrorRate

    @property
    def more_likely_wrong(self) -> int:
        """How many rows to drop."""
        return int((self.probability > 0.5).sum())


def confidence(
    candidates: Candidates, suspicion: Floats, held_out: Floats, rate: ErrorRate, classes: int
) -> Confidence:
    """Of each row as it was given.

    ``suspicion`` [M] judges the looks, larger = more suspicious; ``held_out`` [M] is the same by what was not fitted to
    the look, and tells how much a suspicion means.
    """
    merged = candidates.merged(suspicion)
    pi = float(np.clip(rate.estimate, 0.5 / len(merged), MOST))
    slope, shift = _link(held_out, candidates.canary, pi, _made_right(pi, classes))
    odds = pi / (1 - pi) * _ratio(slope * merged + shift)
    wrong = np.minimum(odds / (1 + odds), SURE)
    order = np.argsort(-merged, kind="stable")
    right_so_far = np.cumsum(1 - wrong[order]) / np.arange(1, len(order) + 1)
    q_value = np.empty(len(order))
    q_value[order] = np.minimum.accumulate(right_so_far[::-1])[::-1]
    return Confidence(wrong, q_value, rate)


def _link(suspicion: Floats, canary: Flags, pi: float, delta: float) -> tuple[float, float]:
    """Slope (at least 0) and shift of log L in the suspicion, by which canaries are likeliest to be the canaries."""
    odds_before = np.log(canary.sum() / (~canary).sum())

    def cost(point: Floats) -> float:
        ratio = _ratio(point[0] * suspicion + point[1])
        odds = odds_before + np.log((1 - delta) * ratio + delta) - np.log(pi * ratio + 1 - pi)
        return float((np.logaddexp(0, odds) - canary * odds).sum())

    start = np.array([1.0, -odds_before])
    found = minimize(cost, start, method="L-BFGS-B", bounds=[(0, None), (None, None)]).x
    return float(found[0]), float(found[1])


def _ratio(log_ratio: Floats) -> Floats:
    return np.exp(np.clip(log_ratio, -FARTHEST, FARTHEST))


def error_rate(
    candidates: Candidates, suspicion: Floats, given: Floats | None, clean: Floats | None, classes: int, seed: int
) -> ErrorRate:
    """From clean queries where a model that learned from neither rows nor queries judges both, else from canaries.

    ``given`` [n] and ``clean`` [Q] are its probabilities of the rows' and of the queries' labels. A wrong label has on
    average (1 - p) / (C - 1), so the mean over the rows lies between that and the queries' as pi says (Rogan & Gladen
    1978). Errors that the model itself would make are missed by that, and the estimate is then too low. Where the
    interval leaves out nothing, canaries are asked too. ``suspicion`` is as in :func:`upper_bound`.
    """
    bound = upper_bound(suspicion, candidates.canary, classes)
    if given is not None and clean is not None:
        rng = np.random.default_rng([seed, 5])
        draws = _rate(_means(given, rng), _means(clean, rng), classes, rng.integers(2, size=DRAWS))
        low, high = np.clip(np.quantile(draws, [0.025, 0.975]), 0, 1)
        estimate = float(np.clip(_rate(given.mean(), clean.mean(), classes, 0.5), 0, 1))
        if high - low < 1:
            return ErrorRate(estimate, float(low), float(high), "queries", bound, bool(low <= bound[1]))
    return ErrorRate(bound[0], 0.0, bound[1], "canaries", bound, None)


def upper_bound(suspicion: Floats, canary: Flags, classes: int) -> tuple[float, float]:
    """The largest pi that the rows allow if errors look like canaries: estimate, and upper end of its 95 % interval.

    At every threshold the share of suspicious rows is at least that of suspicious errors times pi (Blanchard, Lee &
    Scott 2010). Of the thresholds that leave the shares ``FOUND`` of the canaries above, the one with the least upper
    end is kept. ``suspicion`` [M] must not be fitted to the look itself, or canaries lie too high, the bound too low.
    """
    thresholds = np.quantile(suspicion[canary], 1 - FOUND, method="lower")
    canaries, others = canary.sum(), (~canary).sum()
    found = (suspicion[canary, None] >= thresholds).sum(axis=0) / (canaries + 1)  # mean of an order statistic
    rest = (suspicion[~canary, None] >= thresholds).mean(axis=0)
    some = np.maximum(rest, 1 / others)  # none among so many is not none at all
    spread = np.sqrt((1 - found) / (found * canaries) + (1 - some) / (some * others))
    upper = some / found * np.exp(FAR * spread)
    best = int(np.argmin(upper))
    values = (float(value) for value in (rest[best] / found[best], upper[best]))
    mixed = 1 / (classes - 1) if classes > 1 else 0.0
    estimate, high = (min(1.0, value / (1 + mixed * value)) for value in values)
    return estimate, high


def _made_right(pi: float, classes: int) -> float:
    """Share of canaries that give a wrong row its right label; none where there are no classes."""
    return pi / (classes - 1) if classes > 1 else 0.0


def _means(values: Floats, rng: np.random.Generator) -> Floats:
    """Draws of what the mean could have been."""
    return values.mean() + rng.standard_normal(DRAWS) * values.std() / np.sqrt(len(values))


def _rate(given: Any, clean: Any, classes: int, unknown: Any) -> Any:
    """Share of wrong labels; ``unknown`` where the model cannot tell wrong labels from right ones."""
    apart = clean - (1 - clean) / (classes - 1)
    return np.where(apart > 0.02, (clean - given) / np.maximum(apart, 0.02), unknown)
