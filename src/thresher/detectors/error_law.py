"""By which law classes become labels: one for all classes, or a pattern; and how likely it is that there is a pattern.

Given the probabilities f_j(x) of the rows' classes, a law T, T_jk the share of a class j's rows that are labelled k,
has the likelihood prod over rows of sum_j f_j(x) T_jk. The even law has one number, the share of errors, whatever the
class and the wrong label; a pattern has a line of its own for each class. A pattern fits the rows better even where
there is none, so the two are compared on rows that they were not fitted to, and both speak with the probability that
they have then: a mixture, not a choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from thresher.arrays import Floats, Labels

STEADY = 5.0
"""How many rows of each class the prior counts as, by which a pattern is drawn towards the even law."""

DOUBT = 8.0
"""What the log likelihood of rows that it was not fitted to must gain by a pattern for it to be as likely as none."""

SETTLE = 10
"""Turns of expectation maximisation."""


@dataclass(frozen=True)
class Law:
    """``even`` and ``pattern`` [C, C] have a line a class and a column a label.

    ``patterned`` is the probability that the second is the law.
    """

    even: Floats
    pattern: Floats
    patterned: float

    @property
    def transition(self) -> Floats:
        """The mean of the two, [C, C]."""
        return self.patterned * self.pattern + (1 - self.patterned) * self.even

    def truth(self, chances: Floats, labels: Labels) -> Floats:
        """Probabilities of the rows' classes [n, C], given ``chances`` [n, C] whatever their label, and ``labels``."""
        by_pattern, by_even = (posterior(chances, law, labels) for law in (self.pattern, self.even))
        return self.patterned * by_pattern + (1 - self.patterned) * by_even

    def fitted(self, chances: Floats, labels: Labels) -> Law:
        """Both laws found again, from these, on rows ``chances`` [n, C] and ``labels`` [n]; as likely as before."""
        even = _settle(chances, labels, self.even, _even)
        return Law(even, _settle(chances, labels, self.pattern, _pattern), self.patterned)

    def learned(self, chances: Floats, labels: Labels, fold: Labels) -> Law:
        """Both laws found again, and how likely each is by rows of each ``fold`` [n] under laws of the others."""
        gain = 0.0
        for number in np.unique(fold):
            there, out = fold != number, fold == number
            without = self.fitted(chances[there], labels[there])
            likely = [_likelihood(chances[out], law, labels[out]) for law in (without.pattern, without.even)]
            gain += likely[0] - likely[1]
        found = self.fitted(chances, labels)
        return Law(found.even, found.pattern, float(expit(gain - DOUBT)))


def posterior(chances: Floats, law: Floats, labels: Labels) -> Floats:
    """Probabilities of the rows' classes given what is known without the label, and the label by a ``law``, [n, C]."""
    joint = chances * law[:, labels].T
    return joint / joint.sum(axis=1, keepdims=True)


def even_law(share: float, classes: int) -> Floats:
    """The share of wrong labels of every class, each other class as likely, [C, C]."""
    law = np.full((classes, classes), share / (classes - 1))
    np.fill_diagonal(law, 1 - share)
    return law


def _settle(chances: Floats, labels: Labels, law: Floats, counted: Callable[[Floats, Labels], Floats]) -> Floats:
    for _ in range(SETTLE):
        law = counted(posterior(chances, law, labels), labels)
    return law


def _even(truth: Floats, labels: Labels) -> Floats:
    return even_law(1 - float(truth[np.arange(len(labels)), labels].mean()), truth.shape[1])


def _pattern(truth: Floats, labels: Labels) -> Floats:
    seen = np.zeros((truth.shape[1], truth.shape[1]))
    np.add.at(seen.T, labels, truth)
    seen += STEADY * _even(truth, labels)
    return seen / seen.sum(axis=1, keepdims=True)


def _likelihood(chances: Floats, law: Floats, labels: Labels) -> float:
    return float(np.log((chances * law[:, labels].T).sum(axis=1)).sum())
