"""Wrong labels under texts that stay as they are, by four laws. ``labels`` are [n]; ``count`` of them are changed."""

from __future__ import annotations

import numpy as np

from thresher.arrays import Floats, Labels
from thresher.data.corruption.draw import draw_rows, present
from thresher.errors import ConfigError

CONFUSED, SPREAD = 0.8, 4.0
"""Share of a class's wrong labels that are the class it is confused with; largest over smallest weight of a class."""

WRONG, STRETCHES, SHORTEST = 0.6, 5, 10
"""Share of wrong labels in a bad stretch; bad stretches to need, about; the fewest rows of a stretch."""


def flip_labels(labels: Labels, count: int, rng: np.random.Generator) -> Labels:
    """Rows chosen uniformly, each to another class of the data chosen uniformly (method.md 6)."""
    return flipped_at(labels, np.sort(rng.choice(len(labels), count, replace=False)), rng)


def flipped_at(labels: Labels, rows: Labels, rng: np.random.Generator) -> Labels:
    """The named rows, each to another class of the data chosen uniformly."""
    classes, places = present(labels)
    places[rows] += rng.integers(1, len(classes), len(rows))
    return classes[places % len(classes)]


def confuse_labels(labels: Labels, count: int, rng: np.random.Generator) -> Labels:
    """Errors that depend on the class: how often it is hit, and what it is taken for.

    The C classes stand in a random circle, and each is confused with the next: a wrong label is that one with
    probability ``CONFUSED`` (always where C = 2), otherwise one of the C - 2 others chosen uniformly. Rows are drawn as
    in :func:`draw_rows` by weights of their classes, which are 1, s, s^2, ..., ``SPREAD`` in random order: with two
    classes, rows of one are hit nearly four times as often as those of the other.
    """
    classes, places = present(labels)
    last = len(classes) - 1
    circle = rng.permutation(len(classes))
    weights = rng.permutation(SPREAD ** (np.arange(last + 1) / last))
    rows = draw_rows(weights[places], count, rng)
    steps = np.ones(count, dtype=np.int64)
    if last > 1:
        elsewhere = rng.random(count) >= CONFUSED
        steps[elsewhere] = rng.integers(2, last + 1, int(elsewhere.sum()))
    changed = labels.copy()
    changed[rows] = classes[circle[(np.argsort(circle)[places[rows]] + steps) % len(classes)]]
    return changed


def likeliest(labels: Labels, probabilities: Floats, count: int, rng: np.random.Generator) -> Labels:
    """Errors that depend on the row: each gets the likeliest class other than its label.

    ``probabilities`` [n, C] are a model's, and labels are columns of them. Rows are drawn as in
    :func:`draw_rows` by the probability of that other class, so that those which look like another are hit most often.
    """
    present(labels)
    others = _of_others(labels, probabilities)
    return likeliest_at(labels, draw_rows(others.max(1).clip(0), count, rng), probabilities)


def likeliest_at(labels: Labels, rows: Labels, probabilities: Floats) -> Labels:
    """The named rows, each to the likeliest class other than its label by ``probabilities`` [n, C]."""
    changed = labels.copy()
    changed[rows] = _of_others(labels, probabilities)[rows].argmax(1)
    return changed


def _of_others(labels: Labels, probabilities: Floats) -> Floats:
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1.0
    return others


def bursts(labels: Labels, count: int, rng: np.random.Generator) -> Labels:
    """Errors of bad annotators: in some stretches of the file many labels are wrong, in all others none.

    The rows, in file order, are cut into stretches of equal length, of which about ``STRETCHES`` are bad (fewer where
    a stretch would have less than ``SHORTEST`` rows). Bad ones are chosen uniformly; in each the share ``WRONG`` of its
    rows, chosen uniformly, gets the annotator's favourite class, chosen uniformly too, or where that is the row's own,
    any other. The last takes what is left of ``count``. Raises :class:`ConfigError` above the share ``WRONG``.
    """
    classes, places = present(labels)
    length = max(SHORTEST, round(count / (WRONG * STRETCHES)))
    stretches = np.array_split(np.arange(len(labels)), max(1, len(labels) // length))
    room = [round(WRONG * len(stretch)) for stretch in stretches]
    if count > sum(room):
        raise ConfigError(f"--plant: bursts change at most {sum(room)} of these rows, not {count}; plant less.")
    left = count
    for place in rng.permutation(len(stretches)):
        rows = rng.choice(stretches[place], min(left, room[place]), replace=False)
        favourite = rng.integers(len(classes))
        another = (favourite + rng.integers(1, len(classes), len(rows))) % len(classes)
        places[rows] = np.where(places[rows] == favourite, another, favourite)
        left -= len(rows)
    return classes[places]
