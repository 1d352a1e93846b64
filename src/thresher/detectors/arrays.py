"""``thresher.detect``: scores of rows from arrays that came from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax, softmax

from thresher.arrays import Floats, Labels
from thresher.detectors.evidence import Evidence, Features, Singles
from thresher.detectors.registry import DETECTORS, Detector, available
from thresher.detectors.registry import detect as scores_of
from thresher.errors import ConfigError, DataError

SMALLEST = 1e-12


def detect(
    labels: npt.ArrayLike,
    pred_probs: npt.ArrayLike | None = None,
    *,
    logits: npt.ArrayLike | None = None,
    features: npt.ArrayLike | None = None,
    query_labels: npt.ArrayLike | None = None,
    query_features: npt.ArrayLike | None = None,
    detectors: Sequence[str | Callable[[Evidence], Floats]] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of rows by what models say of them, and by what lies near them; no model is needed here.

    Each detector is computed whose needs are met, and the others are left out: ``loss``, ``margin`` and
    ``confident_given`` take one prediction a row, ``loss_mean``, ``aum`` and ``el2n`` those of several epochs,
    ``knn_frozen`` and ``probe_frozen`` features, and ``query_knn_frozen`` and ``noise_frozen`` clean queries beside
    them.

    Args:
        labels: Classes as given, whole numbers below C, [n].
        pred_probs: Probabilities of the classes. [n, C]: by models that did not learn from the row, as by
            cross-validation; others believe wrong labels that they have learned. [E, n, C]: after each epoch of a
            training on these rows.
        logits: The same before softmax, in place of ``pred_probs``.
        features: Vectors of the rows, by a model that has not seen these labels, [n, d].
        query_labels: Classes of rows that are known to be right, [Q].
        query_features: Their vectors, [Q, d].
        detectors: Names or functions of an :class:`Evidence`; by default all that can be computed.
        seed: Fixes how folds are dealt, and the detector ``random``.

    Returns:
        One line a row and one column a detector, float64; larger = helpful, lower = more likely wrong.

    Raises:
        DataError: For arrays that do not fit one another or hold what is not finite.
        ConfigError: For a detector that there is not, or whose needs are not met.

    Example:
        >>> import numpy as np
        >>> labels = np.array([0, 0, 1, 1, 1])
        >>> pred_probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.1, 0.9], [0.2, 0.8]])
        >>> scores = detect(labels, pred_probs)
        >>> int(scores["margin"].idxmin())  # row 1 says 0, and looks like a 1
        1
    """
    evidence = evidence_of(labels, pred_probs, logits, features, query_labels, query_features, seed)
    if detectors is None:
        found = scores_of(evidence)
    else:
        found = scores_of(evidence, [_detector(one, evidence) for one in detectors])
    return pd.DataFrame(found)


def evidence_of(
    labels: npt.ArrayLike,
    pred_probs: npt.ArrayLike | None = None,
    logits: npt.ArrayLike | None = None,
    features: npt.ArrayLike | None = None,
    query_labels: npt.ArrayLike | None = None,
    query_features: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Evidence:
    """The arrays of :func:`detect`, checked, as detectors take them."""
    given = whole_numbers(labels, "labels")
    queries = np.zeros(0, np.int64) if query_labels is None else whole_numbers(query_labels, "query_labels")
    said = _outputs(pred_probs, logits, len(given))
    classes = int(max(given.max(), queries.max(initial=0))) + 1
    if said is not None:
        if classes > said.shape[-1]:
            raise DataError(f"labels: class {classes - 1} has no column in predictions of {said.shape[-1]} classes.")
        classes = said.shape[-1]
    found = _features(features, query_features, len(given), len(queries))
    if len(queries) and found is None:
        raise DataError("query_labels tell nothing without features; give features and query_features, too.")
    nothing = np.zeros((0, len(given), classes), np.float32)
    outputs = nothing if said is None else said.reshape(-1, *said.shape[-2:])
    epochs = outputs if said is not None and said.ndim == 3 else outputs[:0]
    losses = -log_softmax(outputs, axis=-1)[:, np.arange(len(given)), given]
    return Evidence(
        given,
        classes,
        losses[: len(epochs)].astype(np.float32),
        epochs,
        losses[-1].astype(np.float32) if len(losses) else np.zeros(0, np.float32),
        outputs[-1] if len(outputs) else np.zeros((0, classes), np.float32),
        queries,
        found,
        None,
        seed,
        held_out=softmax(said.astype(np.float64), axis=-1) if said is not None and said.ndim == 2 else None,
    )


def whole_numbers(values: npt.ArrayLike, what: str) -> Labels:
    """Classes, checked. Raises :class:`DataError` where they are no whole numbers from 0."""
    array = np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise DataError(f"{what}: one number a row is needed, [n]; this has the shape {array.shape}.")
    if array.dtype.kind not in "iub" or array.min() < 0:
        raise DataError(f"{what}: classes are whole numbers from 0; pandas.factorize makes them of names.")
    return array.astype(np.int64)


def _outputs(pred_probs: npt.ArrayLike | None, logits: npt.ArrayLike | None, rows: int) -> Singles | None:
    """Logits [n, C] or [E, n, C] float32."""
    if pred_probs is not None and logits is not None:
        raise ConfigError("pred_probs and logits say the same; give one of them.")
    given = logits if pred_probs is None else pred_probs
    if given is None:
        return None
    name = "logits" if pred_probs is None else "pred_probs"
    array = _finite(given, name)
    if array.ndim not in (2, 3) or array.shape[-2] != rows:
        raise DataError(f"{name}: the shape is {array.shape}, and [{rows}, C] or [E, {rows}, C] is needed.")
    if pred_probs is None:
        return array.astype(np.float32)
    if array.min() < 0 or np.abs(array.sum(axis=-1) - 1).max() > 1e-2:
        raise DataError("pred_probs: probabilities of a row add up to 1; give what is no probability as logits.")
    return np.log(array.clip(SMALLEST)).astype(np.float32)


def _features(
    features: npt.ArrayLike | None, query_features: npt.ArrayLike | None, rows: int, queries: int
) -> Features | None:
    if features is None:
        return None
    train = _finite(features, "features")
    query = np.zeros((0, train.shape[-1])) if query_features is None else _finite(query_features, "query_features")
    for name, array, count in (("features", train, rows), ("query_features", query, queries)):
        if array.shape != (count, train.shape[-1]):
            raise DataError(f"{name}: the shape is {array.shape}, and ({count}, {train.shape[-1]}) is needed.")
    return Features(train.astype(np.float32), query.astype(np.float32))


def _finite(values: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise DataError(f"{what}: a number is not finite; mend or leave out its row.")
    return array


def _detector(one: str | Callable[[Evidence], Floats], evidence: Evidence) -> Detector:
    if not isinstance(one, str):
        return Detector(str(getattr(one, "__name__", "score")), one, "as passed in", "-", "-")
    detector = DETECTORS.choose(one)
    if one not in available(evidence.has):
        needs = ", ".join(sorted(need for need in detector.needs if not evidence.has(need)))
        raise ConfigError(f"The detector '{one}' needs {needs or detector.package}, which is not here.")
    return detector
