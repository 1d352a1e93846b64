"""Do the rows that the model represents alike carry the same label? Among the training rows, or among clean queries.

Columns are standardised by the training rows before the cosine is taken: in many language models a few columns are so
large that all rows look alike (Timkey & van Schijndel 2021).
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from thresher.arrays import Floats, Indices, Labels
from thresher.detectors.evidence import Evidence, Features, Singles, Which

FEWEST, MOST = 5, 50
CHUNK = 2**24  # similarities at a time
ROUNDING = 1e-6  # cosines that differ by no more are tied


def knn(evidence: Evidence, which: Which) -> Floats:
    """Share of the row's label among its nearest other training rows, weighted by cosine, [n] in 0..1."""
    train, _ = _directions(evidence.features(which))
    same = np.arange(len(train)) if evidence.rows is None else evidence.rows
    return _label_shares(train, evidence.labels, train, evidence.labels, same)


def query_knn(evidence: Evidence, which: Which) -> Floats:
    """Share of the row's label among its nearest queries, weighted by cosine, [n] in 0..1."""
    train, query = _directions(evidence.features(which))
    return _label_shares(train, evidence.labels, query, evidence.query_labels)


def neighbours_of(candidates: int) -> int:
    """How many of so many candidates count as near: the root, between 5 and 50, and no more than there are."""
    return min(max(FEWEST, min(MOST, round(sqrt(candidates)))), candidates)


def nearest_queries(features: Features, rows: Indices) -> tuple[Indices, Floats]:
    """The queries nearest to each of the ``rows`` [m], nearest first, and their cosines, both [m, near]."""
    train, query = _directions(features)
    return _nearest(train[rows] @ query.T, neighbours_of(len(query)))


def nearest_rows(features: Features, row: int, count: int) -> tuple[Indices, Floats]:
    """The other training rows nearest to a row, nearest first, and their cosines, both [at most count]."""
    train, _ = _directions(features)
    cosines = train @ train[row]
    cosines[row] = -np.inf
    nearest, likeness = _nearest(cosines[None], min(count, len(train) - 1))
    return nearest[0], likeness[0]


def _nearest(cosines: Singles, count: int) -> tuple[Indices, Floats]:
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return nearest, np.take_along_axis(cosines, nearest, axis=1).astype(np.float64)


def _directions(features: Features | None) -> tuple[Singles, Singles]:
    from sklearn.preprocessing import StandardScaler, normalize

    assert features is not None
    scaler: Any = StandardScaler().fit(features.train)
    unit: Any = normalize
    train = unit(scaler.transform(features.train))
    return train, unit(scaler.transform(features.query)) if len(features.query) else features.query


def _label_shares(
    rows: Singles, labels: Labels, others: Singles, other_labels: Labels, same: Labels | None = None
) -> Floats:
    """Share of each row's label among its neighbours, [n]; 0 where it has none.

    ``rows`` [n, d] and ``others`` [m, d] have length 1, or 0. Where they are the same rows, ``same`` [n] numbers them:
    a row is no neighbour of its own, nor of a copy.
    """
    near = neighbours_of(len(others) if same is None else len(np.unique(same)) - 1)
    shares = np.zeros(len(rows))
    step = max(1, CHUNK // max(1, len(others)))
    for start in range(0, len(rows) if near > 0 else 0, step):
        part = np.arange(start, min(start + step, len(rows)))
        cosines: Singles = rows[part] @ others.T
        if same is not None:
            cosines[same[part][:, None] == same] = -np.inf
        row, other, weight = _neighbours(cosines, near)
        agrees = labels[part][row] == other_labels[other]
        shares[part] = np.bincount(row, weight * agrees, len(part)) / np.bincount(row, weight, len(part))
    return shares


def _neighbours(cosines: Singles, near: int) -> tuple[Labels, Labels, Floats]:
    """Row, column and weight of the ``near`` largest entries of every row of ``cosines`` [b, m].

    Those tied for the last places share them; opposite directions weigh almost nothing.
    """
    last = np.partition(cosines, -near, axis=1)[:, -near]
    row, column = np.divmod(np.flatnonzero(cosines >= (last - ROUNDING)[:, None]), cosines.shape[1])
    cosine = cosines[row, column].astype(np.float64)
    nearer = cosine > (last + ROUNDING)[row]
    left = near - np.bincount(row[nearer], minlength=len(last))
    tied = np.bincount(row[~nearer], minlength=len(last))
    return row, column, np.where(nearer, 1.0, (left / tied)[row]) * np.maximum(cosine, ROUNDING)
