"""Do errors fall on the labels as canaries do, or on all labels alike?

Canaries are drawn whatever the row's label: where a label is rare many of the rows that carry it are canaries, and so
it is with errors that hit every row alike. Errors that hit one class more than others need not fall so, and canaries
cannot tell, for they are ours. Of n rows let the share s_j carry label j, and pi_j of these be wrong. For some w

    pi_j ~ h_j^(1 - w),    h_j = (1 - s_j) / ((C - 1) s_j),

w = 0 being errors drawn as canaries are and w = 1 all labels wrong equally often. Where errors come from shows in how
often each class is the right one: if every other class is as likely to be it, the queries' labels are expected to be

    q_j = s_j (1 - pi_j) + sum over i != j of s_i pi_i / (C - 1).

They may be off for other reasons, so the likelihood of w has the tails of a Student t; and with probability
``OTHERWISE`` the queries were drawn in another way, say class by class, any shares of the classes as likely as others:
where no w fits them, they do not count. Every w is as likely beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from thresher.data.encode import Indices
from thresher.scores.aggregate import Floats

STEPS = 21
FREEDOM = 3.0  # the t's: the fewest that have a variance
MOST = 0.95  # of a label's rows that may be wrong
OTHERWISE = 0.05  # probability that the queries are no sample of what the rows are of


@dataclass(frozen=True)
class Spread:
    """``evenness`` is the mean of w; ``shift`` [C] what a look's log odds of being wrong lose by its label then."""

    evenness: float
    shift: Floats


def spread(labels: Indices, queries: Indices, classes: int, pi: float) -> Spread:
    """How errors fall on the labels, by the ``queries``' classes [Q], if the share ``pi`` of the rows is wrong.

    ``labels`` [n] are the rows'; both are below ``classes``, at least two. The shift leaves the number of wrong rows
    that is expected as it is.
    """
    share = np.bincount(labels, minlength=classes) / len(labels)
    hit = np.log((1 - share).clip(1 / len(labels)) / (classes - 1) / share.clip(1 / len(labels)))
    evenness = np.linspace(0, 1, STEPS)
    told = np.array([_log_likelihood(one, hit, share, queries, pi) for one in evenness.tolist()])
    weights = np.exp(told - told.max())
    mean = float(weights @ evenness / weights.sum())
    wrong = share * np.exp(hit)
    return Spread(mean, mean * hit + np.log(wrong / wrong.sum() @ np.exp(-mean * hit)))


def _log_likelihood(evenness: float, hit: Floats, share: Floats, queries: Indices, pi: float) -> float:
    """Of the queries' classes: about what is expected, at the scale of their sampling, or anyhow."""
    classes = len(share)
    relative = np.exp((1 - evenness) * hit)
    moved = share * np.minimum(pi * relative / (share @ relative), MOST)
    expected = share - moved + (moved.sum() - moved) / (classes - 1)
    expected = np.maximum(expected, 1 / len(queries))
    seen = np.bincount(queries, minlength=classes)
    distance = ((seen - len(queries) * expected) ** 2 / (len(queries) * expected)).sum()
    peak = -0.5 * ((classes - 1) * np.log(2 * np.pi * len(queries)) + np.log(expected).sum())
    fits = peak - (FREEDOM + classes - 1) / 2 * np.log1p(distance / FREEDOM)
    anyhow = gammaln(classes) + gammaln(len(queries) + 1) - gammaln(len(queries) + classes)
    return float(np.logaddexp(np.log1p(-OTHERWISE) + fits, np.log(OTHERWISE) + anyhow))
