"""The clean queries that contradict a row: among those that are most like it, the ones of another label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thresher.auditing.run import RunDirectory
from thresher.detectors.evidence import UNTRAINED, Features
from thresher.detectors.neighbours import nearest_queries
from thresher.tensors import read_tensors


@dataclass(frozen=True)
class Witnesses:
    """Of the ``near`` queries nearest to a row those that have another label: ``queries`` by number, and how like the
    row they are, the cosine of features of a model that was not trained, both nearest first."""

    near: int
    queries: tuple[int, ...] = ()
    likeness: tuple[float, ...] = ()


def find_witnesses(
    run_dir: RunDirectory, rows: Sequence[int], labels: Sequence[str], query_labels: Sequence[str]
) -> list[Witnesses]:
    """Those of the ``rows``, which have these ``labels``; none where the run has no features."""
    file = next((run_dir.features(which) for which in UNTRAINED if run_dir.features(which).exists()), None)
    if file is None or not rows:
        return [Witnesses(0)] * len(rows)
    nearest, likeness = nearest_queries(read_features(file), np.array(rows))
    of_queries = np.array(query_labels, dtype=object)
    found: list[Witnesses] = []
    for queries, alike, label in zip(nearest, likeness, labels, strict=True):
        other = of_queries[queries] != label
        found.append(Witnesses(len(queries), tuple(queries[other].tolist()), tuple(alike[other].tolist())))
    return found


def read_features(file: Path) -> Features:
    """The features of rows and queries that are in a file of a run."""
    tensors, _ = read_tensors(file)
    return Features(tensors["train"].numpy(), tensors["query"].numpy())
