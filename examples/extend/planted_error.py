"""A planted error of your own: labels of the shortest texts, which hurried annotators get wrong first.

    python examples/extend/planted_error.py

Registered, it is ``AuditConfig(plant=0.1, plant_kind="hurried")``; by an entry point in the group
``thresher.planted_errors`` also ``--plant-kind hurried``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from thresher.extend import PLANTED, Examples


def hurried(examples: Examples, count: int, rng: np.random.Generator, guess: Callable[[], Any]) -> Examples:
    """Give the ``count`` shortest rows another class of the data; the examples given stay as they are."""
    lengths = [sum(map(len, texts)) for texts in examples.texts]
    rows = np.argsort(lengths, kind="stable")[:count]
    classes, places = np.unique(examples.labels, return_inverse=True)
    places[rows] += rng.integers(1, len(classes), count)
    return replace(examples, labels=classes[places % len(classes)])


if __name__ == "__main__":
    PLANTED.register("hurried", hurried)
    rows = Examples([("a long review of a film",), ("good",), ("not one to see again",)], np.array([0, 1, 0]))
    print("before", rows.labels)  # noqa: T201
    print("after", PLANTED["hurried"](rows, 1, np.random.default_rng(0), lambda: np.empty((3, 2))).labels)  # noqa: T201
