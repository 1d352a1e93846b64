"""Rows that are almost the same text, and contradictions among them: one text under two labels.

Whatever a model says of them, not all labels of a contradiction can be right. Near copies are found by MinHash in time
linear in the rows (Broder 1997; bands of Leskovec, Rajaraman & Ullman, *Mining of Massive Datasets*, 3.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import HashingVectorizer

from thresher.arrays import Flags, Indices
from thresher.detectors.texts import Texts

ALIKE = 0.9
"""Jaccard similarity of two texts' runs of characters from which they are copies of each other.

Below, a word more or less (such as "not") may turn the meaning of a sentence, and rightly its label.
"""

CHARACTERS = 5
BANDS, IN_A_BAND = 16, 5
"""A pair of similarity s shares a band with probability 1 - (1 - s^5)^16: 1 - 2e-6 at .9, .006 at .2."""

_PRIME = np.uint64(2**31 - 1)
_NOT_WORDS = re.compile(r"[\W_]+")


def find_copies(texts: Texts) -> Indices:
    """Number the groups of rows whose texts are the same but for case, punctuation and a few characters.

    Args:
        texts: One text a row, or several that make the row together, [n].

    Returns:
        The lowest row of the group that a row belongs to, [n] int64: its own number where it has no copy. Rows without
        a letter or digit have none.

    Example:
        >>> find_copies([("A fine film.",), ("Dull!",), ("a fine  film",)]).tolist()
        [0, 1, 0]
    """
    plain = ["_".join(_NOT_WORDS.sub(" ", text.casefold()).strip() for text in row) for row in texts]
    first = np.arange(len(plain), dtype=np.int64)
    rows = np.array([row for row, text in enumerate(plain) if text.strip("_")], dtype=np.int64)
    if len(rows) < 2:
        return first
    runs = _runs([plain[row] for row in rows])
    pairs = np.concatenate([np.empty((0, 2), np.int64), *_candidates(_signatures(runs))])
    left, right = pairs[_similarity(runs, pairs) >= ALIKE].T
    links = coo_matrix((np.ones(len(left)), (left, right)), shape=(len(rows), len(rows)))
    _, group = connected_components(links, directed=False)
    lowest = np.full(group.max() + 1, len(plain), dtype=np.int64)
    np.minimum.at(lowest, group, rows)
    first[rows] = lowest[group]
    return first


def find_contradictions(copies: Indices, labels: Sequence[object] | npt.NDArray[np.generic]) -> Flags:
    """Mark the rows of which a copy has another label.

    Args:
        copies: What :func:`find_copies` says of the rows, [n].
        labels: Their labels, [n].

    Returns:
        Flags [n]; every row of a contradiction has one, for nothing here tells which label is right.

    Example:
        >>> contradicted(np.array([0, 1, 0, 3, 3]), ["good", "bad", "bad", "good", "good"]).tolist()
        [True, False, True, False, False]
    """
    _, numbers = np.unique(np.asarray(labels), return_inverse=True)
    lowest, highest = np.full(len(copies), len(copies)), np.full(len(copies), -1)
    np.minimum.at(lowest, copies, numbers)
    np.maximum.at(highest, copies, numbers)
    return (lowest != highest)[copies]


def _runs(plain: Sequence[str]) -> csr_matrix:
    """Which runs of characters each text has, [n, 2^31 - 1] of ones; at least one a text."""
    as_they_are: Any = None  # scikit-learn's own types know no norm but a name
    hashing = HashingVectorizer(
        analyzer="char",
        ngram_range=(CHARACTERS, CHARACTERS),
        n_features=int(_PRIME),
        binary=True,
        norm=as_they_are,
        alternate_sign=False,
        lowercase=False,
    )
    return csr_matrix(hashing.transform(text.ljust(CHARACTERS, "_") for text in plain))


def _signatures(runs: csr_matrix) -> npt.NDArray[np.uint64]:
    """Smallest hash of each text's runs by every one of the hash functions, [n, bands, in a band]."""
    rng = np.random.default_rng(0)  # any will do, and the same for everybody
    factors = rng.integers(1, int(_PRIME), BANDS * IN_A_BAND, dtype=np.uint64)
    offsets = rng.integers(0, int(_PRIME), BANDS * IN_A_BAND, dtype=np.uint64)
    numbers, starts = runs.indices.astype(np.uint64), runs.indptr[:-1]
    smallest = [
        np.minimum.reduceat((factor * numbers + offset) % _PRIME, starts)
        for factor, offset in zip(factors, offsets, strict=True)
    ]
    return np.stack(smallest, axis=1).reshape(-1, BANDS, IN_A_BAND)


def _candidates(signatures: npt.NDArray[np.uint64]) -> Iterator[Indices]:
    """Pairs of texts that share a band, [pairs, 2]: each text with the first of those that share it."""
    for band in range(BANDS):
        _, first, same = np.unique(signatures[:, band], axis=0, return_index=True, return_inverse=True)
        pairs = np.stack([first[same.ravel()], np.arange(len(signatures))], axis=1)
        yield pairs[pairs[:, 0] != pairs[:, 1]]


def _similarity(runs: csr_matrix, pairs: Indices) -> npt.NDArray[np.float64]:
    """Shared runs of each pair over all runs of the two, [pairs] (Jaccard)."""
    counts = np.diff(runs.indptr)
    left, right = pairs.T
    shared = np.asarray(runs[left].multiply(runs[right]).sum(axis=1)).ravel()
    return shared / (counts[left] + counts[right] - shared)
