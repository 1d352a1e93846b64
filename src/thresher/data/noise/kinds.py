"""Every kind of error that can be planted in rows with classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from thresher.arrays import Flags, Floats, Labels
from thresher.config import PlantKind
from thresher.data.examples import Examples
from thresher.data.noise.labels import bursts, confused, flipped, likeliest
from thresher.data.noise.texts import emptied, foreign, near_copies

Guess = Callable[[], Floats]
"""Gives probabilities [n, C] of the classes of n training rows, by a model that did not learn from the row itself."""

_OF_LABELS: Mapping[PlantKind, Callable[[Labels, int, np.random.Generator], Labels]] = {
    "flip": flipped,
    "confusion": confused,
    "burst": bursts,
}
_OF_TEXTS: Mapping[PlantKind, Callable[[Examples, int, np.random.Generator], Examples]] = {
    "duplicate": near_copies,
    "empty": emptied,
    "language": foreign,
}
KINDS: tuple[PlantKind, ...] = (*_OF_LABELS, "likeliest", *_OF_TEXTS)


def plant_errors(
    examples: Examples, share: float, kind: PlantKind, rng: np.random.Generator, guess: Guess
) -> tuple[Examples, Flags]:
    """Plant errors of one of ``KINDS`` in exactly ``round(share n)`` of the rows, and say in which, [n].

    Labels are columns of what ``guess`` gives, which only ``likeliest`` asks. Raises :class:`ConfigError` where the
    rows do not allow so many.
    """
    count = round(share * len(examples))
    if not count:
        return examples, np.zeros(len(examples), dtype=bool)
    if kind in _OF_TEXTS:
        spoiled = _OF_TEXTS[kind](examples, count, rng)
    elif kind in _OF_LABELS:
        spoiled = replace(examples, labels=_OF_LABELS[kind](examples.labels, count, rng))
    else:
        spoiled = replace(examples, labels=likeliest(examples.labels, guess(), count, rng))
    texts = [old != new for old, new in zip(examples.texts, spoiled.texts, strict=True)]
    return spoiled, (examples.labels != spoiled.labels) | np.array(texts)
