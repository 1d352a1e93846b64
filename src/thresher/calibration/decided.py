"""What decisions about some rows teach of the others.

Rows that somebody has looked at are known errors and known right rows of these very data, better than canaries. The log
odds that row i is wrong are taken for what the audit says plus x_i w, where w ~ N(0, I) and x_i holds, each times a
scale, a constant (the audit's probabilities may all be too high), which label stands for which, the places that the
candidates give the row, its annotator, and where it lies among the frozen features. A few decisions cannot tell which
of these matter, and all of them at once fit the rows looked at and mislead about the others; so several such models,
from the constant alone to all of it, speak each with its evidence, the probability that it gave the decisions before
they were made (Laplace's approximation: MacKay 1992, "The Evidence Framework Applied to Classification Networks").
Where the audit was right already, the constant alone has most of it, and its order stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, logit, softmax

from thresher.arrays import Flags, Floats, Indices

CERTAIN = 1e-3
"""Probabilities that rows are taken to have at least, and at most 1 less this, before anybody has looked."""

DIRECTIONS = 64
"""Of the features, those in which the rows differ most."""

STEPS = 12
SMALLEST = 1e-5
POINTS = 400
DRAWS = 4000

OFFSET, SLOPE, BEYOND = 1.5, 0.8, 0.25
"""How far, by one standard deviation, the true log odds may lie from those that rows are ranked by: all of them higher,
the logarithm of how steeply they fall; and of a number of errors what no such line can tell, as a share of it."""

_OFFSETS = np.linspace(-4 * OFFSET, 4 * OFFSET, 41)
_SLOPES = np.exp(np.linspace(-3 * SLOPE, 1.5 * SLOPE, 30))

_MODELS: tuple[Mapping[str, float], ...] = (
    {"rows": 1.0},
    {"rows": 1.0, "groups": 1.0},
    {"rows": 1.0, "groups": 1.0, "places": 1.0},
    {"rows": 1.0, "groups": 1.0, "features": 1.0},
    {"rows": 1.0, "groups": 1.0, "places": 1.0, "features": 1.0, "said": 0.3},
)
"""Scales of the parts of x that each of the models hears; settled on simulated reviews, as docs/review.md tells."""


@dataclass(frozen=True)
class Traits:
    """What n rows are known by.

    Attributes:
        said: How likely each is wrong, as an audit says, [n].
        places: What candidates say, as normal deviates or alike, larger = more suspicious, [n, K].
        groups: Numbers of the groups that rows are in, each [n], -1 for none: by which label stands for which, by
            annotator and so on.
        features: Vectors of a model that was not trained, [n, d].
    """

    said: Floats
    places: Floats | None = None
    groups: Sequence[Indices] = ()
    features: Floats | None = None

    @cached_property
    def odds(self) -> Floats:
        """Log odds that the rows are wrong, as the audit says, [n]."""
        return logit(self.said.clip(CERTAIN, 1 - CERTAIN))

    @cached_property
    def parts(self) -> dict[str, Floats]:
        """The parts of x, by name, each [n, its own width] and of a typical length of 1."""
        count = len(self.said)
        found = {"rows": np.ones((count, 1)), "said": _standard(self.odds[:, None])}
        if self.groups:
            found["groups"] = np.concatenate([_indicators(one) for one in self.groups], axis=1)
        if self.places is not None and self.places.size:
            found["places"] = _standard(self.places) / np.sqrt(self.places.shape[1])
        if self.features is not None:
            found["features"] = _directions(self.features)
        return found


@dataclass(frozen=True)
class Left:
    """How many of the rows that nobody has looked at are wrong, with a 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Lesson:
    """Of n rows, those looked at too.

    Attributes:
        probability: How likely each is wrong, [n]; of rows looked at 0 or 1.
        left: How many of the others are wrong.
    """

    probability: Floats
    left: Left


def learn(traits: Traits, rows: Indices, wrong: Flags, seed: int = 0) -> Lesson:
    """Say anew how likely rows are wrong, where it is known of some.

    Args:
        traits: What the rows are known by.
        rows: Those that somebody has looked at, [m], each once.
        wrong: Whether they were wrong, [m].
        seed: Fixes the draws that the interval is made of.

    Returns:
        What is to be thought of the rows.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> pair = rng.integers(0, 2, 400)  # which label stands for which
        >>> wrong = (pair == 1) & (rng.random(400) < 0.8)
        >>> traits = Traits(said=np.full(400, 0.2), groups=[pair])
        >>> lesson = learn(traits, np.arange(40), wrong[:40])
        >>> bool(lesson.probability[40:][pair[40:] == 1].min() > 0.5 > lesson.probability[40:][pair[40:] == 0].max())
        True
        >>> bool(lesson.left.low <= wrong[40:].sum() <= lesson.left.high)
        True
    """
    fits = [_fit(traits, scales, rows, wrong) for scales in _MODELS if _differs(traits, scales)]
    weights = softmax(np.array([fit.evidence for fit in fits]))
    mixed = sum(weight * expit(fit.odds) for fit, weight in zip(fits, weights, strict=True))
    odds = logit(np.asarray(mixed).clip(SMALLEST, 1 - SMALLEST))
    unseen = np.setdiff1d(np.arange(len(odds)), rows)
    curve = _Curves.fit(odds[rows], wrong)
    probability = np.zeros(len(odds))
    probability[rows], probability[unseen] = wrong, curve.mean(odds[unseen])
    return Lesson(probability, curve.count(odds[unseen], np.random.default_rng([seed, 7])))


@dataclass(frozen=True)
class _Fit:
    """Log odds of all rows [n] by one model, and the log of what it gave the decisions."""

    odds: Floats
    evidence: float


@dataclass(frozen=True)
class _Curves:
    """Straight lines ``offset`` + ``slope`` * odds, each [G], that may be the true log odds, with their ``weights``.

    Rows are looked at from the top, and how fast errors thin out below is what decisions there tell least: an order
    may be right and every probability of it wrong.
    """

    offset: Floats
    slope: Floats
    weights: Floats

    @classmethod
    def fit(cls, odds: Floats, wrong: Flags) -> _Curves:
        """Each by its prior and by what it gives decisions about rows of these log odds, [m]."""
        offset, slope = (one.ravel() for one in np.meshgrid(_OFFSETS, _SLOPES))
        point, place = np.unique(odds.round(1), return_inverse=True)
        line = offset[:, None] + slope[:, None] * point
        bad, good = (np.bincount(place, which, len(point)) for which in (wrong, ~wrong))
        told = -np.logaddexp(0, -line) @ bad - np.logaddexp(0, line) @ good
        prior = (offset / OFFSET) ** 2 + (np.log(slope) / SLOPE) ** 2
        return cls(offset, slope, softmax(told - prior / 2))

    def mean(self, odds: Floats) -> Floats:
        """How likely rows of these log odds are wrong, [n]."""
        points = np.linspace(odds.min(initial=0), odds.max(initial=0), POINTS)
        return np.interp(odds, points, self.weights @ self._likely(points))

    def count(self, odds: Floats, rng: np.random.Generator) -> Left:
        """How many rows of these log odds are wrong."""
        point, rows = np.unique(odds.round(1), return_counts=True)
        likely = self._likely(point)
        expected, spread = likely @ rows, np.sqrt(likely * (1 - likely) @ rows)
        drawn = rng.choice(len(self.weights), DRAWS, p=self.weights)
        beyond = np.exp(BEYOND * rng.normal(size=DRAWS))
        counts = (expected[drawn] * beyond + spread[drawn] * rng.normal(size=DRAWS)).clip(0, len(odds))
        low, high = np.quantile(counts, [0.025, 0.975])
        return Left(float(self.weights @ expected), float(low), float(high))

    def _likely(self, points: Floats) -> Floats:
        return expit(self.offset[:, None] + self.slope[:, None] * points)


def _fit(traits: Traits, scales: Mapping[str, float], rows: Indices, wrong: Flags) -> _Fit:
    there = {name: scale for name, scale in scales.items() if name in traits.parts}
    seen = np.concatenate([scale * traits.parts[name][rows] for name, scale in there.items()], axis=1)
    said, target = traits.odds[rows], wrong.astype(np.float64)
    w = np.zeros(seen.shape[1])
    for _ in range(STEPS):  # Newton's; the prior keeps them short
        likely = expit(said + seen @ w)
        factor = cho_factor(_precision(seen, likely), lower=True)
        w = w - cho_solve(factor, seen.T @ (likely - target) + w)
    odds = said + seen @ w
    lower = np.linalg.cholesky(_precision(seen, expit(odds)))
    fitted = -np.logaddexp(0, np.where(wrong, -odds, odds)).sum()
    every, first = traits.odds.copy(), 0
    for name, scale in there.items():  # part by part: all of x, of all rows, is never made
        part = traits.parts[name]
        every += part @ (scale * w[first : first + part.shape[1]])
        first += part.shape[1]
    return _Fit(every, float(fitted - w @ w / 2 - np.log(np.diag(lower)).sum()))


def _precision(seen: Floats, likely: Floats) -> Floats:
    return (seen * (likely * (1 - likely))[:, None]).T @ seen + np.eye(seen.shape[1])


def _differs(traits: Traits, scales: Mapping[str, float]) -> bool:
    """Whether a model hears something that the rows have and no simpler model of ours hears already."""
    heard = set(scales) & set(traits.parts)
    simpler = [set(one) & set(traits.parts) for one in _MODELS[: _MODELS.index(scales)]]
    return heard not in simpler


def _standard(columns: Floats) -> Floats:
    spread = columns.std(axis=0)
    return (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _indicators(groups: Indices) -> Floats:
    """A column for each group."""
    names = np.unique(groups[groups >= 0])
    return (groups[:, None] == names).astype(np.float64)


def _directions(features: Floats) -> Floats:
    """Where rows lie, [n, at most DIRECTIONS]: their vectors, of length 1, in the directions in which they differ."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(length > 0, length, 1)
    unit = unit - unit.mean(axis=0)
    _, axes = np.linalg.eigh(unit.T @ unit)
    return unit @ axes[:, ::-1][:, :DIRECTIONS]
