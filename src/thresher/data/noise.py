"""Planting label errors where they can be counted (SPEC 6: uniform, to another class uniformly)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def plant_uniform(
    labels: npt.NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Flip ``share`` of the labels, chosen uniformly, each to another class of the data chosen uniformly.

    Returns the labels after flipping and which rows were flipped, both [n]. Exactly ``round(share n)`` rows differ.
    """
    count = round(share * len(labels))
    planted = np.zeros(len(labels), dtype=bool)
    planted[rng.choice(len(labels), count, replace=False)] = True
    classes, position = np.unique(labels, return_inverse=True)
    position[planted] += rng.integers(1, len(classes), count)
    return classes[position % len(classes)], planted
