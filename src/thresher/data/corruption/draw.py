"""What all kinds of planted errors share: how rows and classes are drawn."""

from __future__ import annotations

import re

import numpy as np

from thresher.arrays import Floats, Indices, Labels
from thresher.errors import ConfigError

WORD = re.compile(r"\S+")


def present(labels: Labels) -> tuple[Labels, Labels]:
    """The classes of the data, sorted, [C], and each row's place among them, [n].

    Raises :class:`ConfigError` where there is only one, for then no label can be a wrong one.
    """
    classes, places = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ConfigError("--plant: all training rows have one class; --plant-kind empty or language keep the label.")
    return classes, places


def draw_rows(weights: Floats, count: int, rng: np.random.Generator) -> Indices:
    """``count`` rows, one after another without replacement, each with probability proportional to its weight [n].

    In large data a row of weight w is drawn with probability 1 - exp(-t w), with t such that these add up to
    ``count``: nearly t w where few rows are drawn. Raises :class:`ConfigError` where too few weights are above zero.
    """
    possible = np.count_nonzero(weights)
    if possible < count:
        raise ConfigError(f"--plant: only {possible} rows can be changed so, not {count}; plant a smaller share.")
    return rng.choice(len(weights), count, replace=False, p=weights / weights.sum())
