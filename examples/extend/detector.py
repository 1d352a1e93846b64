"""A detector of your own: forgetting events (Toneva et al. 2019).

    python examples/extend/detector.py

A row is forgotten where the model gets it right after one epoch and wrong after the next; wrong labels are, more often.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from thresher.extend import DETECTORS, Detector, Evidence, Family


def forgetting(evidence: Evidence) -> Any:
    """-number of epochs after which the row was forgotten, [n]; larger = helpful, as everywhere."""
    right = evidence.epoch_outputs.argmax(axis=-1) == evidence.labels
    return -(right[:-1] & ~right[1:]).sum(axis=0).astype(np.float64)


FORGETTING = Detector(
    "forgetting",
    forgetting,
    "-number of times that the row is forgotten",
    "nothing: kept while training",
    "Toneva et al. 2019",
    # Left out where the evidence lacks it: a model that was trained elsewhere, a task without classes.
    needs=frozenset({"training", "classes"}),
    # With a family of its own it has a weight in what canaries combine; with TRAINING's it would share that one's.
    family=Family("forgetting", prior=0.1),
)


if __name__ == "__main__":
    import thresher

    DETECTORS.register("forgetting", FORGETTING)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 30)
    outputs = rng.dirichlet([1, 1], size=(6, 30))  # what the model said of each row after each of six epochs
    print(thresher.detect(labels, outputs)["forgetting"])  # noqa: T201
