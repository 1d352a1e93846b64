"""How labels go wrong, learned along with the task: by which law, and of each row how likely.

Errors that follow a pattern are believed by whatever learns from the rows alone; only clean queries contradict them.
Let f_j(x) be the probability that a row with features x is of class j, and T_jk that a row of class j is labelled k.
A query shows its class, a training row only its label:

    sum over queries of log f_y(x)  +  sum over rows of log sum_j f_j(x) T_jk,    k the row's label.

f is a multinomial logistic regression, T any matrix of which each line sums to 1, and both are found by expectation
maximisation (Dawid & Skene 1979 with a classifier, as Raykar et al. 2010 and Goldberger & Ben-Reuven 2017 have it; that
clean rows tell T is from Hendrycks et al. 2018). Four things make it hold on few rows: f of a row or query is always by
folds that it is not in, so that no label speaks for itself; f is made as sure of the queries as it is right of them by
one temperature (Guo et al. 2017), for T takes up what f is too sure or too unsure of; T is a pattern only as far as
rows ask for it that it was not fitted to (:mod:`thresher.detectors.error_law`); and a query counts as
``QUERY_WEIGHT`` rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from thresher.arrays import Flags, Floats, Labels
from thresher.detectors.error_law import STEADY, Law, even_law
from thresher.detectors.evidence import Evidence, Features, Singles, Which
from thresher.detectors.probe import FOLDS, Probe, standardise
from thresher.folds import stratified_folds

TURNS = 8
"""Of fitting f and then T."""

QUERY_WEIGHT = 3.0
LOOSER = 3.0
"""The regularisation that is best for labels as given is too strong for labels that are mended."""

SURENESS = 0.5
"""Standard deviation of the prior of the temperature's logarithm."""

DRAWS, UNMODELLED = 40, 0.05
"""Of the bootstrap; and the standard deviation of what it does not see, as on planted errors of other tasks."""

SMALLEST = 1e-6
STEPS = 12
"""Of L-BFGS, in each turn: a fit starts where the last one ended, and need not be finished before the labels move."""


@dataclass(frozen=True)
class LabelNoise:
    """What was learned of n rows, Q queries and C classes.

    ``law`` holds T. ``classes`` [n + Q, C] are f, the probabilities of the classes of rows and after them of queries,
    whatever their label, by folds without them.
    ``truth`` [n, C] are those of the rows' classes given the label too, and ``wrong`` [n] that it is another than that.
    """

    law: Law
    classes: Floats
    truth: Floats
    wrong: Floats

    @property
    def log_odds(self) -> Floats:
        """That the row's label is right, [n]."""
        wrong = self.wrong.clip(SMALLEST, 1 - SMALLEST)
        return np.log1p(-wrong) - np.log(wrong)


def learn_label_noise(
    found: Features, labels: Labels, query_labels: Labels, classes: int, seed: int, rows: Labels | None = None
) -> LabelNoise:
    """Learn f and T.

    Args:
        found: Features of the n training rows and the Q clean ones.
        labels: As given, numbers below ``classes``, [n].
        query_labels: Their classes, [Q].
        classes: How many there are, C, at least two.
        seed: Fixes the folds.
        rows: Which of them are the same row, [n], where some are there twice: they go into one fold.
    """
    given = np.concatenate([labels, query_labels])
    fold = stratified_folds(given, FOLDS, np.random.default_rng([seed, 0]))
    if rows is not None:
        first, same = np.unique(rows, return_index=True, return_inverse=True)[1:]
        fold[: len(labels)] = fold[first][same]
    inputs = standardise(np.concatenate([found.train, found.query]))
    strength, _ = Probe(inputs, given, classes).choose_regularisation(fold)
    model = _Folded(inputs, fold, np.where(np.arange(len(given)) < len(labels), 1.0, QUERY_WEIGHT), LOOSER * strength)
    aims = np.eye(classes)[given]
    law = _first_law(model.fit(aims)[len(labels) :], query_labels)
    chances = model.fit(aims)  # goes on where the first fit ended
    truth = law.truth(chances[: len(labels)], labels)
    for _ in range(TURNS):
        aims[: len(labels)] = truth
        chances = _as_sure_as_right(model.fit(aims), query_labels)
        law = law.learned(chances[: len(labels)], labels, fold[: len(labels)])
        truth = law.truth(chances[: len(labels)], labels)
    return LabelNoise(law, chances, truth, 1 - truth[np.arange(len(labels)), labels])


@dataclass(frozen=True)
class ShareTold:
    """The share of wrong labels as clean queries tell it, and its standard error."""

    share: float
    error: float


def query_gain(noise: LabelNoise, query_labels: Labels) -> float | None:
    """How much f says of the queries: their mean log probability less that by how often each class is.

    None where it says no more than that, for then T can be anything.
    """
    queries = noise.classes[-len(query_labels) :]
    often = np.bincount(query_labels, minlength=queries.shape[1]) / len(query_labels)
    gain = np.log(queries[np.arange(len(queries)), query_labels] / often[query_labels])
    return float(gain.mean()) if gain.mean() > 2 * gain.std() / np.sqrt(len(gain)) else None


def estimate_share(
    noise: LabelNoise, labels: Labels, query_labels: Labels, seed: int, counted: Flags, probe: Floats | None = None
) -> ShareTold | None:
    """How many of the rows ``counted`` [n] are wrong, and how it varies as rows and queries are redrawn.

    As far as there is a pattern it is their mean probability, else :func:`_even_share` of what a ``probe`` [n + Q, C]
    says that took all labels as they are: f, which mends labels that it then learns from, is a little too sure, and
    says .019 too many (27 sets of nine tasks, 20 % even errors; the probe .003 too few). f and the probe stay as they
    are; what makes f as sure as right, and T, are found again for each of ``DRAWS`` bootstrap draws. None where there
    is no :func:`query_gain`. ``UNMODELLED`` is added to the error: errors that depend on the row are no T.
    """
    if query_gain(noise, query_labels) is None:
        return None
    rng, rows = np.random.default_rng([seed, 9]), np.flatnonzero(counted)
    queries = noise.classes[len(labels) :]
    likely = noise.law.patterned if probe is not None else 1.0
    even = np.zeros(len(noise.classes)) if probe is None else probe[np.arange(len(probe)), np.r_[labels, query_labels]]

    def mixed(by_law: float, some: Labels, few: Labels) -> float:
        return likely * by_law + (1 - likely) * _even_share(even[some], even[len(labels) + few], queries.shape[1])

    shares: list[float] = []
    for _ in range(DRAWS):
        some, few = rng.choice(rows, len(rows)), rng.integers(0, len(queries), len(queries))
        chances = _as_sure_as_right(np.concatenate([noise.classes[some], queries[few]]), query_labels[few])[: len(some)]
        truth = noise.law.fitted(chances, labels[some]).truth(chances, labels[some])
        shares.append(mixed(1 - float(truth[np.arange(len(some)), labels[some]].mean()), some, few))
    share = mixed(float(noise.wrong[rows].mean()), rows, np.arange(len(queries)))
    return ShareTold(share, float(np.hypot(np.std(shares), UNMODELLED)))


_KEPT: WeakKeyDictionary[Evidence, dict[str, LabelNoise]] = WeakKeyDictionary()


def noise_of(evidence: Evidence, which: Which) -> LabelNoise:
    """What is learned by features of the model before or after fine-tuning; kept as long as the evidence is."""
    kept = _KEPT.setdefault(evidence, {})
    if which not in kept:
        features = evidence.features(which)
        assert features is not None
        kept[which] = learn_label_noise(
            features, evidence.labels, evidence.query_labels, evidence.classes, evidence.seed, evidence.rows
        )
    return kept[which]


def noise(evidence: Evidence, which: Which) -> Floats:
    """Log odds that the row's label is right, [n]."""
    return noise_of(evidence, which).log_odds


class _Folded:
    """A regression for each fold, fitted to the rows of the others; each fit starts where the last one ended."""

    def __init__(self, inputs: Singles, fold: Labels, weights: Floats, strength: float) -> None:
        self._inputs = np.column_stack([inputs, np.ones(len(inputs))])
        self._fold, self._weights, self._strength = fold, weights, strength
        self._coefficients: dict[int, Floats] = {}

    def fit(self, aims: Floats) -> Floats:
        """Probabilities of all rows, [m, C], by regressions on ``aims`` [m, C], probabilities of the classes."""
        found = np.empty_like(aims)
        for number in range(FOLDS):
            learned, judged = self._fold != number, self._fold == number
            start = self._coefficients.get(number, np.zeros((self._inputs.shape[1], aims.shape[1])))
            self._coefficients[number] = self._regress(learned, aims[learned], start)
            found[judged] = softmax(self._inputs[judged] @ self._coefficients[number], axis=1)
        return found.clip(SMALLEST)

    def _regress(self, rows: Flags, aims: Floats, start: Floats) -> Floats:
        inputs, weights = self._inputs[rows], self._weights[rows][:, None]

        def cost(point: Floats) -> tuple[float, Floats]:
            coefficients = point.reshape(start.shape)
            logs = log_softmax(inputs @ coefficients, axis=1)
            shrunk = coefficients / self._strength
            shrunk[-1] = 0  # the intercept is free
            slope = inputs.T @ (weights * (np.exp(logs) - aims)) + shrunk
            return float((shrunk * coefficients).sum() / 2 - (weights * aims * logs).sum()), slope.ravel()

        found = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
        return found.x.reshape(start.shape)


def _even_share(rows: Floats, queries: Floats, classes: int) -> float:
    """The share of wrong labels that errors of one law for all classes have, by the mean probability of labels.

    With s = ``rows`` [n] and a = ``queries`` [Q], probabilities of their labels by what has not seen them, and
    o = (1 - a) / (C - 1) of another label: E s = (1 - share) E a + share E o, however well those are calibrated.
    """
    right = float(queries.mean())
    other = (1 - right) / (classes - 1)
    return float(np.clip((right - rows.mean()) / max(right - other, SMALLEST), 0, 1))


def _first_law(said: Floats, classes: Labels) -> Law:
    """What is said of the queries [Q, C] of each class by a probe that takes all labels as they are, for a pattern."""
    count = said.shape[1]
    seen = np.full((count, count), STEADY / count)
    np.add.at(seen, classes, said)
    right = float(said[np.arange(len(classes)), classes].mean())
    return Law(even_law(1 - right, count), seen / seen.sum(axis=1, keepdims=True), 1.0)


def _as_sure_as_right(found: Floats, query_labels: Labels) -> Floats:
    """Probabilities raised to the power at which those of the queries, the last ones, are likeliest."""
    logs = np.log(found)
    queries = logs[-len(query_labels) :]

    def cost(power: float) -> float:
        said = log_softmax(np.exp(power) * queries, axis=1)
        return float(power**2 / (2 * SURENESS**2) - said[np.arange(len(queries)), query_labels].sum())

    power = minimize_scalar(cost, bounds=(-3 * SURENESS, 3 * SURENESS), method="bounded").x
    return softmax(np.exp(power) * logs, axis=1).clip(SMALLEST)
