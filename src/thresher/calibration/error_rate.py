"""What share of the rows is wrong, as canaries and clean queries tell it.

Positive-unlabelled: canaries are known errors, of the other rows a share pi is wrong. Let f_1 and f_0 be the densities
of the suspicion of wrong and of right rows and L = f_1 / f_0, whose logarithm is taken to be linear in the suspicion. A
canary in a row that was wrong already may make it right: in delta = pi / (C - 1) of them, C classes. So what tells
canaries from other rows has the odds

    K ((1 - delta) L + delta) / (N (pi L + 1 - pi)),    K canaries, N other rows,

which cannot exceed K (1 - delta) / (N pi): how far the odds rise tells pi. Clean queries tell it too, without
canaries, by the law of the errors that is learned with them (:func:`thresher.detectors.label_noise.told_share`).

What is assumed: that errors are to canaries as one draw of a law to another; that queries are of the kind of the rows,
and errors hang on the class more than on the row. Where the two contradict one another, one of these is not so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from thresher.arrays import Flags, Floats

STEPS = 40
RARE = 2.0  # the prior (1 - pi)^2: where nothing is known few errors are likelier than many
MOST = 0.9  # of the share at which a label says nothing of its row
FARTHEST = 30.0


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval (equal tails of the posterior)."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Known:
    """The share as clean queries tell it, with its standard error.

    ``density`` [n] is how many times denser the queries lie where the row lies than the rows do.
    """

    share: float
    error: float
    density: Floats

    @property
    def alike(self) -> float:
        """The share of the rows that would tell as much if all of them counted alike (Kish 1965)."""
        return float(self.density.sum() ** 2 / (self.density**2).sum() / len(self.density))

    def log_likelihood(self, pi: Floats) -> Floats:
        """At each pi, [G]."""
        return -(((pi - self.share) / self.error) ** 2) / 2


@dataclass(frozen=True)
class ErrorRate:
    """Share of the rows that is wrong.

    ``share`` is by canaries and queries together, or by canaries alone where ``queries`` is None. Where the two
    contradict one another it is the queries', its interval reaching over both. ``alike`` is the share of the rows that
    the queries tell of.
    """

    share: Share
    canaries: Share
    queries: Share | None
    alike: float | None = None

    @property
    def plausible(self) -> bool | None:
        """Whether the intervals by canaries and by queries overlap."""
        return None if self.queries is None else _overlap(self.canaries, self.queries)


@dataclass(frozen=True)
class Posterior:
    """Of pi, on a grid of G values: ``weights`` [G] sum to 1; ``links`` [G, 2] are slope and shift of log L in the
    suspicion, the likeliest ones if pi is that."""

    rate: ErrorRate
    pi: Floats
    weights: Floats
    links: Floats

    def wrong(self, suspicion: Floats) -> Floats:
        """P(wrong | suspicion) = pi L / (pi L + 1 - pi), mean over the posterior, [n]."""
        found = np.zeros(len(suspicion))
        for pi, weight, (slope, shift) in zip(self.pi, self.weights, self.links, strict=True):
            odds = pi / (1 - pi) * _ratio(slope * suspicion + shift)
            found += weight * odds / (1 + odds)
        return found


def error_rate(suspicion: Floats, canary: Flags, known: Known | None, classes: int) -> Posterior:
    """The posterior of pi.

    ``suspicion`` [M] of looks, of which ``canary`` [M] are canaries, must come from what was not fitted to the look.
    ``known`` is what clean queries tell, None where they tell nothing.
    """
    most = MOST * ((classes - 1) / classes if classes > 1 else 1.0)
    pi = most * ((np.arange(STEPS) + 0.5) / STEPS) ** 1.5  # finer where it is small
    prior = RARE * np.log1p(-pi) + 0.5 * np.log(np.arange(STEPS) + 0.5)  # with the width of the grid's cells
    by_canaries, links = _profile(suspicion, canary, pi, classes)
    weights = _normalise(prior + by_canaries)
    share = canaries = _share(pi, weights)
    queries = alike = None
    if known is not None:
        alike, by_queries = known.alike, known.log_likelihood(pi)
        alone = _normalise(prior + by_queries)
        queries = _share(pi, alone)
        agree = _overlap(canaries, queries)
        weights = _normalise(prior + by_canaries + by_queries) if agree else alone
        share = _share(pi, weights)
        if not agree:
            share = Share(share.estimate, min(canaries.low, share.low), max(canaries.high, share.high))
    return Posterior(ErrorRate(share, canaries, queries, alike), pi, weights, links)


def _profile(suspicion: Floats, canary: Flags, pi: Floats, classes: int) -> tuple[Floats, Floats]:
    """Log likelihood at each pi of which looks are canaries, [G], and the slopes (>= 0) and shifts of it, [G, 2]."""
    before = float(np.log(canary.sum() / (~canary).sum()))
    middle, width = suspicion.mean(), max(float(suspicion.std()), 1e-12)
    unit = (suspicion - middle) / width

    def cost(point: Floats, share: float, made_right: float) -> tuple[float, Floats]:
        ratio = _ratio(point[0] * unit + point[1])
        found, rest = (1 - made_right) * ratio + made_right, share * ratio + 1 - share
        odds = before + np.log(found) - np.log(rest)
        lean = 1 / (1 + np.exp(-odds)) - canary
        lean *= (1 - made_right) * ratio / found - share * ratio / rest
        return float((np.logaddexp(0, odds) - canary * odds).sum()), np.array([lean @ unit, lean.sum()])

    likelihood, links, point = np.empty(len(pi)), np.empty((len(pi), 2)), np.array([1.0, -before])
    for place, share in enumerate(pi):
        made_right = share / (classes - 1) if classes > 1 else 0.0
        found = minimize(cost, point, (share, made_right), "L-BFGS-B", jac=True, bounds=[(0, None), (None, None)])
        point = found.x
        likelihood[place], links[place] = -found.fun, (point[0] / width, point[1] - point[0] * middle / width)
    return likelihood, links


def _normalise(log_weights: Floats) -> Floats:
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def _share(pi: Floats, weights: Floats) -> Share:
    below = np.cumsum(weights) - weights / 2
    low, high = np.interp([0.025, 0.975], below, pi)
    return Share(float(weights @ pi), float(low), float(high))


def _overlap(first: Share, second: Share) -> bool:
    return max(first.low, second.low) <= min(first.high, second.high)


def _ratio(log_ratio: Floats) -> Floats:
    return np.exp(np.clip(log_ratio, -FARTHEST, FARTHEST))
