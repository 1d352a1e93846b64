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
    features = untrained_features(run_dir) if rows else None
    if features is None:
        return [Witnesses(0)] * len(rows)
    nearest, likeness = nearest_queries(features, np.array(rows))
    of_queries = np.array(query_labels, dtype=object)
    found: list[Witnesses] = []
    for queries, alike, label in zip(nearest, likeness, labels, strict=True):
        other = of_queries[queries] != label
        found.append(Witnesses(len(queries), tuple(queries[other].tolist()), tuple(alike[other].tolist())))
    return found


def untrained_features(run_dir: RunDirectory) -> Features | None:
    """Those of a model that was not trained, the model as it came before another encoder; None where a run has none."""
    file = next((file for which in UNTRAINED if (file := run_dir.features(which)).exists()), None)
    return None if file is None else read_features(file)


def read_features(file: Path) -> Features:
    """The features of rows and queries that are in a file of a run."""
    tensors, _ = read_tensors(file)
    return Features(tensors["train"].numpy(), tensors["query"].numpy())
