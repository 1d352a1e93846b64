"""How often each annotator is wrong, and what that says of each row.

Row i is wrong with odds o_i by all that was asked of its text and label, where a share pi of all rows is wrong; so what
was asked counts R_i = o_i (1 - pi) / pi. If annotator a is wrong in a share r_a of the rows, a row of theirs is wrong
with odds R_i r_a / (1 - r_a), and all their rows together have the likelihood

    prod over rows i of a of  r_a R_i + 1 - r_a,

the beta-binomial's where every R_i is 0 or infinite. Rates come from a beta distribution with mean pi; how many rows it
counts as, s, is what the annotators themselves make likely. All of it is integrated over on grids (empirical Bayes with
nothing plugged in), s with the prior that is even in 1 / sqrt(s) (Gelman et al., *Bayesian Data Analysis*, 5.3). So the
rate of somebody who labelled five rows is drawn to everybody's, and less so where annotators plainly differ.

The share pi has an interval itself, by which all odds may be too high or too low; intervals of rates reach over it.

What is assumed: that what is asked of a wrong row looks alike whoever labelled it, and an annotator's rows are right or
wrong independently, given the rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logit, logsumexp
from scipy.stats import beta

from thresher.arrays import Floats, Indices
from thresher.calibration.error_rate import Share

CELLS, STEADINESSES, NODES = 200, 12, 5
CHUNK = 2**15
"""Rows at a time, each at every rate of the grid."""

SMALLEST = 1e-4
"""Of a share whose odds are taken."""

_EDGES = np.linspace(0, 1, CELLS + 1) ** 1.5  # finer where rates are small
_RATES = (_EDGES[1:] + _EDGES[:-1]) / 2


@dataclass(frozen=True)
class AnnotatorRate(Share):
    """Of one annotator's rows the share that is wrong, with its 95 % interval; and how many ``rows`` there are."""

    rows: int


@dataclass(frozen=True)
class Heard:
    """What each row's probability of being ``wrong`` [n] becomes, and the ``rates`` of annotators by their number."""

    wrong: Floats
    rates: tuple[AnnotatorRate, ...]


def learn_annotators(wrong: Floats, annotators: Indices, share: Share) -> Heard:
    """Learn each annotator's rate, and hear the annotator of each row.

    Args:
        wrong: How likely each row is wrong, strictly between 0 and 1, [n].
        annotators: The number of who labelled it, -1 where that is not known, [n].
        share: Of all rows that is wrong, as far as that is known.
    """
    known = annotators >= 0
    who, odds = annotators[known], logit(wrong[known])
    count = int(who.max(initial=-1)) + 1
    if count < 2:  # of one alone nothing is known but the share
        rates = (AnnotatorRate(share.estimate, share.low, share.high, int(known.sum())),) * count
        return Heard(wrong, rates)
    cells = np.zeros((count, CELLS))
    heard = wrong.copy()
    for away, weight in _nodes(share):
        mean = float(expit(logit(expit(odds).mean()) + away))
        shifted = odds if away == 0 else odds + _shift(odds, mean)
        ratio = shifted - logit(mean)
        here = _posterior(ratio, who, count, mean)
        cells += weight * here
        if away == 0:
            heard[known] = _hear(ratio, who, here)
    rows = np.bincount(who, minlength=count)
    return Heard(heard, tuple(_rate(one, int(number)) for one, number in zip(cells, rows, strict=True)))


def _nodes(share: Share) -> Iterator[tuple[float, float]]:
    """How far the log odds of the share may be from the estimate's, and the weight of that; the middle one is 0."""
    low, middle, high = (float(logit(np.clip(one, SMALLEST, 1 - SMALLEST))) for one in _bounds(share))
    deviates, weights = np.polynomial.hermite_e.hermegauss(NODES)
    for deviate, weight in zip(deviates.tolist(), (weights / weights.sum()).tolist(), strict=True):
        side = (high - middle) if deviate > 0 else (middle - low)
        yield (0.0 if abs(deviate) < 1e-9 else deviate * side / 1.96), weight


def _bounds(share: Share) -> tuple[float, float, float]:
    if not np.isfinite([share.low, share.high]).all():
        return share.estimate, share.estimate, share.estimate
    return share.low, share.estimate, share.high


def _shift(odds: Floats, mean: float) -> float:
    """What is added to all log ``odds`` [m] so that the mean probability is ``mean``."""

    def above(shift: float) -> float:
        return float(expit(odds + shift).mean()) - mean

    found: Any = brentq(above, -50, 50)
    return float(found)


def _posterior(ratio: Floats, who: Indices, count: int, mean: float) -> Floats:
    """Of each annotator's rate, [A, cells], given log R of the rows [m] and the ``mean`` of all rates."""
    likelihood = np.zeros((count, CELLS))
    for start in range(0, len(ratio), CHUNK):
        rows = slice(start, start + CHUNK)
        np.add.at(likelihood, who[rows], np.logaddexp(ratio[rows, None] + np.log(_RATES), np.log1p(-_RATES)))
    steady = 1 / ((np.arange(STEADINESSES) + 0.5) / STEADINESSES) ** 2
    edges = beta.cdf(_EDGES, mean * steady[:, None], (1 - mean) * steady[:, None])
    prior = np.log(np.diff(edges, axis=1).clip(np.finfo(float).tiny))  # [S, cells]
    joint = likelihood[:, None] + prior  # [A, S, cells]
    evidence: Any = logsumexp(joint, axis=2)
    of_steady = evidence.sum(axis=0)
    log_weights = of_steady - logsumexp(of_steady)
    return np.exp(joint - evidence[..., None] + log_weights[:, None]).sum(axis=1)


def _hear(ratio: Floats, who: Indices, cells: Floats) -> Floats:
    """The probability that each row is wrong, [m], the mean over what its annotator's rate may be."""
    found = np.empty(len(ratio))
    for start in range(0, len(ratio), CHUNK):
        rows = slice(start, start + CHUNK)
        found[rows] = (cells[who[rows]] * np.exp(log_expit(ratio[rows, None] + logit(_RATES)))).sum(axis=1)
    return found


def _rate(cells: Floats, rows: int) -> AnnotatorRate:
    below = np.append(0, np.cumsum(cells))
    low, high = np.interp([0.025, 0.975], below / below[-1], _EDGES)
    return AnnotatorRate(float(cells @ _RATES), float(low), float(high), rows)
