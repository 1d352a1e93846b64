"""What is known of rows beside what canaries can tell: near copies that contradict them, and who labelled them.

Canaries are drawn without regard to either, so their weight cannot be learned from canaries: rows that near copies
contradict are errors already, and no canary is more likely to be one of them. Both have a law of their own instead, by
which the odds that a row is wrong rise or fall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from thresher.arrays import Flags, Floats, Indices
from thresher.calibration.annotators import AnnotatorRate, learn_annotators
from thresher.calibration.confidence import SURE, Confidence, along

SMALLEST = 1e-4
"""Of a share of errors, and of a probability whose odds are taken."""


@dataclass(frozen=True)
class Votes:
    """How many near copies of each row have its label, ``agree`` [n], and how many another, ``differ`` [n]; none of
    copies that all agree, for a row may have been copied with its label."""

    agree: Floats
    differ: Floats

    def log_odds(self, share: float, classes: int) -> Floats:
        """By how much they raise the log odds that a row is wrong, [n], where a ``share`` of labels is wrong.

        A copy of a row with a right label is right, and of a row with a wrong one is not labelled so but by chance.
        """
        chance = share / (classes - 1)
        return self.differ * np.log((1 - chance) / share) - self.agree * np.log((1 - share) / chance)


@dataclass(frozen=True)
class Beside:
    """Of n rows: what near copies say, where rows have classes, and the number of the annotator of each, -1 where it is
    not known."""

    votes: Votes | None = None
    annotators: Indices | None = None

    def take(self, rows: Flags) -> Beside:
        """Of these rows alone."""
        votes = self.votes and Votes(self.votes.agree[rows], self.votes.differ[rows])
        return Beside(votes, None if self.annotators is None else self.annotators[rows])


@dataclass(frozen=True)
class Informed:
    """``suspicion`` [n] and ``confidence`` that heard all there is, and the ``rates`` of annotators by their number."""

    suspicion: Floats
    confidence: Confidence
    rates: tuple[AnnotatorRate, ...] = ()


def inform(suspicion: Floats, sure: Confidence, spoiled: Flags, classes: int, beside: Beside) -> Informed:
    """Raise and lower the probabilities of rows [n] by what is known ``beside``, and rank them by what comes out.

    Rows whose text is ``spoiled`` [n] are wrong whatever is said of their label, and say nothing of who labelled them.
    """
    share, rates = sure.rate.share, ()
    wrong = sure.probability.clip(SMALLEST, SURE)
    if beside.votes is not None:
        votes = beside.votes.log_odds(float(np.clip(share.estimate, SMALLEST, 0.5)), classes)
        wrong = expit(logit(wrong) + np.where(spoiled, 0.0, votes))
    if beside.annotators is not None:
        heard = learn_annotators(wrong, np.where(spoiled, -1, beside.annotators), share)
        wrong, rates = heard.wrong, heard.rates
    order = np.lexsort((-suspicion, -wrong, ~spoiled))
    ranked = np.empty_like(suspicion)
    ranked[order] = np.sort(suspicion)[::-1]  # in the unit of the ranking that was judged
    return Informed(ranked, along(ranked, np.where(spoiled, SURE, wrong), sure.rate, spoiled), rates)
