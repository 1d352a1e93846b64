"""Rows that are almost the same text, and contradictions among them: one text under two labels.

Whatever a model says of them, not all labels of a contradiction can be right. Near copies are found by MinHash in time
linear in the rows (Broder 1997; bands of Leskovec, Rajaraman & Ullman, *Mining of Massive Datasets*, 3.4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from thresher.arrays import Flags, Floats, Indices
from thresher.detectors.evidence import Copies, Evidence
from thresher.detectors.label_noise import QUERY_WEIGHT
from thresher.detectors.texts import Texts

if TYPE_CHECKING:  # scipy and scikit-learn take a second to import
    from scipy.sparse import csr_matrix

ALIKE = 0.9
"""Jaccard similarity of two texts' runs of characters from which they are copies of each other.

Below, a word more or less (such as "not") may turn the meaning of a sentence, and rightly its label.
"""

CHARACTERS = 5
BANDS, IN_A_BAND = 16, 5
"""A pair of similarity s shares a band with probability 1 - (1 - s^5)^16: 1 - 2e-6 at .9, .006 at .2."""

_PRIME = np.uint64(2**31 - 1)
_NOT_WORDS = re.compile(r"[\W_]+")


def find_copies(texts: Texts, *, near: bool = True) -> Indices:
    """Number the groups of rows whose texts are the same but for case, punctuation and a few characters.

    Args:
        texts: One text a row, or several that make the row together, each of which must be a copy, [n].
        near: Whether a few characters may differ, or only case and punctuation.

    Returns:
        The lowest row of the group that a row belongs to, [n] int64: its own number where it has no copy. Rows without
        a letter or digit have none.

    Example:
        >>> find_copies([("A fine film.",), ("Dull!",), ("a fine  film",)]).tolist()
        [0, 1, 0]
    """
    columns = [list(map(_words_of, column)) for column in zip(*texts, strict=True)]
    found = [_find_alike(column) if near else _find_same(column) for column in columns]
    empty = np.all([[not text for text in column] for column in columns], axis=0)
    if not found:
        return np.arange(len(texts), dtype=np.int64)
    alone = np.where(empty, np.arange(len(texts)), -1)
    first, group = np.unique(np.stack([*found, alone]), axis=1, return_index=True, return_inverse=True)[1:]
    return first.astype(np.int64)[group.ravel()]


def _words_of(text: str) -> str:
    return _NOT_WORDS.sub(" ", text.casefold()).strip()


def _find_same(plain: list[str]) -> Indices:
    """The first of the ``plain`` texts that is the same as each, [n]."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(text, place) for place, text in enumerate(plain)], dtype=np.int64)


def _find_alike(plain: list[str]) -> Indices:
    """The lowest of the ``plain`` texts that each is a copy of, [n]; texts without a letter are alike."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    where = _find_same(plain)
    firsts, same = np.unique(where, return_inverse=True)
    different = [plain[first] for first in firsts.tolist()]
    runs = _runs(different)
    pairs = _candidates(_signatures(runs))
    left, right = pairs[_similarity(runs, pairs) >= ALIKE].T
    links = coo_matrix((np.ones(len(left)), (left, right)), shape=(len(different), len(different)))
    _, group = connected_components(links, directed=False)
    _, first, number = np.unique(group[same], return_index=True, return_inverse=True)
    return first[number]


def find_contradictions(copies: Indices, labels: Sequence[object] | npt.NDArray[np.generic]) -> Flags:
    """Mark the rows of which a copy has another label.

    Args:
        copies: What :func:`find_copies` says of the rows, [n].
        labels: Their labels, [n].

    Returns:
        Flags [n]; every row of a contradiction has one, for nothing here tells which label is right.

    Example:
        >>> find_contradictions(np.array([0, 1, 0, 3, 3]), ["good", "bad", "bad", "good", "good"]).tolist()
        [True, False, True, False, False]
    """
    _, numbers = np.unique(np.asarray(labels), return_inverse=True)
    lowest, highest = np.full(len(copies), len(copies)), np.full(len(copies), -1)
    np.minimum.at(lowest, copies, numbers)
    np.maximum.at(highest, copies, numbers)
    return (lowest != highest)[copies]


def agreement(evidence: Evidence) -> Floats:
    """How far the labels of a row's near copies agree with its own, [n] in -1..1; 0 where it has none.

    Those that agree less those that differ, over all of them and one more: one copy says less than many.
    """
    assert evidence.copies is not None
    agree, differ = count_votes(evidence.copies, evidence.labels, evidence.query_labels, evidence.rows)
    return (agree - differ) / (agree + differ + 1)


def count_votes(
    copies: Copies, labels: Indices, query_labels: Indices, rows: Indices | None = None
) -> tuple[Floats, Floats]:
    """How many near copies of each row have its label, [n], and how many another, [n].

    A query's label is known to be right, and counts as ``QUERY_WEIGHT``, as it does where the law of the errors is
    learned. Lines that are the same of the ``rows`` [n] are no copies of each other.
    """
    count, queries = len(labels), len(query_labels)
    weight = np.repeat([1.0, QUERY_WEIGHT], [count, queries])
    group, label = np.concatenate([copies.train, copies.query]), np.concatenate([labels, query_labels])
    row = np.concatenate([np.arange(count) if rows is None else rows, -1 - np.arange(queries)])
    every = _total(weight, group) - _total(weight, row)
    agree = _total(weight, group, label) - _total(weight, row, label)
    return agree[:count], (every - agree)[:count]


def _total(weight: Floats, *keys: Indices) -> Floats:
    """The summed ``weight`` [m] of all whose ``keys``, each [m], are the same, [m]."""
    _, number = np.unique(np.stack(keys), axis=1, return_inverse=True)
    return np.bincount(number.ravel(), weight)[number.ravel()].astype(np.float64)


def _runs(plain: Sequence[str]) -> csr_matrix:
    """Which runs of characters each text has, [n, 2^31 - 1] of ones; at least one a text."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import HashingVectorizer

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


def _candidates(signatures: npt.NDArray[np.uint64]) -> Indices:
    """Pairs of texts that share a band, [pairs, 2]: each text with the first of these, and the one before.

    Two, for the first may be one that lies at the edge of the group.
    """
    count, found = len(signatures), [np.empty(0, np.int64)]
    for band in range(BANDS):
        _, first, same = np.unique(signatures[:, band], axis=0, return_index=True, return_inverse=True)
        order = np.argsort(same.ravel(), kind="stable")
        linked = same.ravel()[order[1:]] == same.ravel()[order[:-1]]
        found += [first[same.ravel()] * count + np.arange(count), (order[:-1] * count + order[1:])[linked]]
    pairs = np.stack(np.divmod(np.unique(np.concatenate(found)), max(count, 1)), axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _similarity(runs: csr_matrix, pairs: Indices) -> npt.NDArray[np.float64]:
    """Shared runs of each pair over all runs of the two, [pairs] (Jaccard)."""
    counts = np.diff(runs.indptr)
    left, right = pairs.T
    shared = np.asarray(runs[left].multiply(runs[right]).sum(axis=1)).ravel()
    return shared / (counts[left] + counts[right] - shared)
