"""Outlier gradients: is a training row's gradient like those of the queries of its class (method.md 3)?

Both detectors of scikit-learn work on distances alone, |v|^2 + |g|^2 - 2 v.g, so gradients are never formed beside each
other. A row is judged by the detector of its own given label, and has the same value for every query.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from thresher.influences.pairing import Pairing

NEIGHBOURS = 20
Judge = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""(squared distances among the queries [q, q], from rows to queries [n, q], variance) -> decision values [n]."""


def outlier_svm(pair: Pairing) -> Tensor:
    """Decision value of g_i under a one-class SVM fitted on the query gradients of its class, [Q, N].

    Radial kernel exp(-|a - b|^2 / (p var)), var the variance of the class's gradient entries, nu = .5 (Schoelkopf et
    al. 2001; scikit-learn's defaults). Negative = outside. 0 where a class has fewer than two queries.
    """
    return _judge(pair, _svm)


def outlier_lof(pair: Pairing) -> Tensor:
    """Decision value of g_i by local outlier factor against the query gradients of its class, [Q, N].

    Novelty detection with up to 20 neighbours (Breunig et al. 2000; scikit-learn's default). Negative = outside. 0
    where a class has fewer than two queries.
    """
    return _judge(pair, _lof)


def _judge(pair: Pairing, judge: Judge) -> Tensor:
    query_labels, train_labels = pair.labels("query").numpy(), pair.labels("train").numpy()
    among, across = _numbers(pair.query_gram), _numbers(pair.dots)
    squares, train_squares, sums = np.diagonal(among), _numbers(pair.train_squares), _numbers(pair.entry_sums("query"))
    values = np.zeros(pair.rows)
    for label in np.unique(train_labels):
        mine, rows = np.flatnonzero(query_labels == label), np.flatnonzero(train_labels == label)
        entries = len(mine) * pair.size
        variance = squares[mine].sum() / entries - (sums[mine].sum() / entries) ** 2 if entries else 0.0
        if len(mine) > 1 and variance > 0:
            inner = squares[mine, None] + squares[mine] - 2 * among[np.ix_(mine, mine)]
            outer = train_squares[rows, None] + squares[mine] - 2 * across[np.ix_(mine, rows)].T
            np.fill_diagonal(inner, 0.0)
            values[rows] = judge(inner.clip(0), outer.clip(0), variance * pair.size)
    return torch.from_numpy(values.astype(np.float32)).expand(pair.queries, pair.rows)


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def _svm(inner: np.ndarray, outer: np.ndarray, width: float) -> np.ndarray:
    from sklearn.svm import OneClassSVM

    return OneClassSVM(kernel="precomputed").fit(np.exp(-inner / width)).decision_function(np.exp(-outer / width))


def _lof(inner: np.ndarray, outer: np.ndarray, width: float) -> np.ndarray:
    from sklearn.neighbors import LocalOutlierFactor

    neighbours = min(NEIGHBOURS, len(inner) - 1)
    detector = LocalOutlierFactor(n_neighbors=neighbours, metric="precomputed", novelty=True)
    return detector.fit(np.sqrt(inner)).decision_function(np.sqrt(outer))
