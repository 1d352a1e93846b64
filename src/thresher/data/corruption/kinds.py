"""Every kind of error that can be planted in rows with classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from thresher.arrays import Flags, Floats, Labels
from thresher.config import PlantKind
from thresher.data.corruption.labels import bursts, confuse_labels, flip_labels, likeliest
from thresher.data.corruption.texts import empty_texts, foreign, near_copies
from thresher.data.examples import Examples
from thresher.registry import Registry

Guess = Callable[[], Floats]
"""Gives probabilities [n, C] of the classes of n training rows, by a model that did not learn from the row itself."""

Plant = Callable[[Examples, int, np.random.Generator, Guess], Examples]
"""Gives the rows with errors in as many of them as it is told, without changing those it was given."""


def _of_labels(change: Callable[[Labels, int, np.random.Generator], Labels]) -> Plant:
    return lambda examples, count, rng, _: replace(examples, labels=change(examples.labels, count, rng))


def _of_texts(change: Callable[[Examples, int, np.random.Generator], Examples]) -> Plant:
    return lambda examples, count, rng, _: change(examples, count, rng)


def _likeliest(examples: Examples, count: int, rng: np.random.Generator, guess: Guess) -> Examples:
    return replace(examples, labels=likeliest(examples.labels, guess(), count, rng))


PLANTED = Registry[Plant](
    "kind of planted error",
    "thresher.planted_errors",
    {
        "flip": _of_labels(flip_labels),
        "confusion": _of_labels(confuse_labels),
        "burst": _of_labels(bursts),
        "likeliest": _likeliest,
        "duplicate": _of_texts(near_copies),
        "empty": _of_texts(empty_texts),
        "language": _of_texts(foreign),
    },
)


def plant_errors(
    examples: Examples, share: float, kind: PlantKind, rng: np.random.Generator, guess: Guess
) -> tuple[Examples, Flags]:
    """Plant errors of one of ``PLANTED`` in exactly ``round(share n)`` of the rows, and say in which, [n].

    Labels are columns of what ``guess`` gives, which only ``likeliest`` asks. Raises :class:`ConfigError` where the
    rows do not allow so many.
    """
    count = round(share * len(examples))
    if not count:
        return examples, np.zeros(len(examples), dtype=bool)
    spoiled = PLANTED[kind](examples, count, rng, guess)
    texts = [old != new for old, new in zip(examples.texts, spoiled.texts, strict=True)]
    return spoiled, (examples.labels != spoiled.labels) | np.array(texts)
