"""Does the model know the task? What it says of clean queries, beside who always answers one class and beside a probe.

Compared query by query, by a one-sided sign test on those that only one of the two gets right: a model that has learned
nothing gets as many right as the most frequent class has queries, and influence of such a model says little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from thresher.arrays import Flags, Floats, Labels

SURE = 0.05
"""Level of the sign tests."""

FAR_BEYOND = 0.001
"""Level for a numbering of the classes that is the best of many."""


@dataclass(frozen=True)
class ClassKnown:
    """Of one class the clean queries, and how many of them are predicted right."""

    name: str
    right: int
    queries: int


@dataclass(frozen=True)
class Confused:
    """Clean queries of one class that are predicted as another."""

    name: str
    predicted: str
    queries: int


@dataclass(frozen=True)
class Knowledge:
    """What a classifier gets right of the clean ``queries``.

    ``most_frequent`` is what answering their most frequent class alone gets right, and ``probe`` a logistic regression
    on the features of the model as it came, None where there are none. ``learned``: the model is better than the most
    frequent class by more than chance, and not behind the probe by more than chance. ``probe_learned``: the probe is
    better than the most frequent class. ``confused`` are pairs of classes, the most frequent first.
    """

    queries: int
    right: int
    most_frequent: int
    probe: int | None
    better_than_one_class: bool
    behind_probe: bool
    probe_learned: bool
    classes: tuple[ClassKnown, ...]
    confused: tuple[Confused, ...]

    @property
    def learned(self) -> bool:
        """Whether what is computed of this model is worth listening to."""
        return self.better_than_one_class and not self.behind_probe

    @property
    def only_probe_knows(self) -> bool:
        """Whether rows should be ranked by frozen features alone."""
        return not self.learned and self.probe_learned


def measure_knowledge(outputs: Floats, labels: Labels, probe: Floats | None, names: Sequence[str]) -> Knowledge:
    """Compare what the model says of the queries, ``outputs`` [Q, C], with their classes ``labels`` [Q].

    Args:
        outputs: Scores of the classes by the model, larger = likelier.
        labels: The clean queries' classes, numbers below C.
        probe: Probabilities of the classes, [Q, C], by a probe that was not fitted to the query, if there is one.
        names: What the C classes are called.
    """
    predicted = outputs.argmax(1)
    right: Flags = np.equal(predicted, labels)
    one_class: Flags = np.equal(labels, np.bincount(labels).argmax())
    probe_right = None if probe is None else probe.argmax(1) == labels
    pairs = Counter(zip(labels[~right].tolist(), predicted[~right].tolist(), strict=True))
    return Knowledge(
        queries=len(labels),
        right=int(right.sum()),
        most_frequent=int(one_class.sum()),
        probe=None if probe_right is None else int(probe_right.sum()),
        better_than_one_class=better(right, one_class),
        behind_probe=probe_right is not None and better(probe_right, right),
        probe_learned=probe_right is not None and better(probe_right, one_class),
        classes=tuple(
            ClassKnown(names[int(number)], int(right[labels == number].sum()), int((labels == number).sum()))
            for number in np.unique(labels)
        ),
        confused=tuple(
            Confused(names[int(label)], names[int(other)], count) for (label, other), count in pairs.most_common()
        ),
    )


def better(right: Flags, other: Flags, level: float = SURE) -> bool:
    """Whether who is ``right`` [Q] beats the ``other`` [Q] by more than chance: a one-sided sign test (McNemar's)."""
    return sign_test(int((right & ~other).sum()), int((other & ~right).sum()), level)


def sign_test(wins: int, losses: int, level: float = SURE) -> bool:
    """Whether so many queries that speak for one side, against ``losses``, are more than chance; one-sided."""
    from scipy.stats import binomtest

    return wins > losses and bool(binomtest(wins, wins + losses, alternative="greater").pvalue <= level)


@dataclass(frozen=True)
class OtherNumbering:
    """Clean queries that are ``right``, and would be were each label, counted as now, another of the ``numbers``."""

    right: int
    right_then: int
    numbers: dict[int, int]


def other_numbering(predicted: Labels, labels: Labels, count: int) -> OtherNumbering | None:
    """Whether the classes' numbers are exchanged: another one-to-one numbering fits the queries far better.

    Args:
        predicted: The model's class of every query, [Q], below ``count``.
        labels: The query's own class as it is numbered now, [Q].
        count: Classes C.

    Returns:
        The best numbering of the C! there are (linear assignment on the confusion matrix), for the labels that occur,
        where it gets a tenth of the queries more right and beats both the present one and the most frequent class far
        beyond chance; else None.
    """
    table = np.zeros((count, count), np.int64)
    np.add.at(table, (labels, predicted), 1)
    numbers = np.asarray(linear_sum_assignment(table, maximize=True)[1])
    right, then = np.equal(predicted, labels), np.equal(predicted, numbers[labels])
    one_class = np.equal(labels, np.bincount(labels).argmax())
    if then.sum() - right.sum() < len(labels) / 10 or not (
        better(then, right, FAR_BEYOND) and better(then, one_class, FAR_BEYOND)
    ):
        return None
    present = np.unique(labels).tolist()
    return OtherNumbering(int(right.sum()), int(then.sum()), {label: int(numbers[label]) for label in present})
