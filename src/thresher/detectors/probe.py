"""What a linear probe on frozen features (Alain & Bengio 2017) says of a row that it was not fitted on.

Cross-validation as confident learning does it (Northcutt et al. 2021). A row's own label has no part in the fits that
give its probabilities; it has one in how folds are dealt and in the one number that says how strongly all of them are
regularised.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from thresher.arrays import Floats, Labels
from thresher.detectors.evidence import Evidence, Singles, Which
from thresher.folds import stratified_folds

SPLITS, FOLDS = 3, 5
WIDTH = 256  # principal components kept of wider features
STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-8, 1))  # scikit-learn's C, strongest regularisation first
SMALLEST = 1e-12


def probe(evidence: Evidence, which: Which = "frozen") -> Floats:
    """Log out-of-fold probability of the row's label, the mean over three splits, [n]."""
    rows = np.arange(len(evidence.labels))
    return np.log(predict_held_out(evidence, which)[:, rows, evidence.labels]).mean(0)


_KEPT: WeakKeyDictionary[Evidence, dict[Which, Floats]] = WeakKeyDictionary()


def predict_held_out(evidence: Evidence, which: Which = "frozen") -> Floats:
    """Out-of-fold probabilities of every row, and after them of every query, by three splits, [3, n + Q, C].

    Rows and queries are dealt into the same folds: the clean queries help to judge the rows, and both are judged alike,
    so that they can be compared. Kept as long as the evidence is.
    """
    kept = _KEPT.setdefault(evidence, {})
    if which not in kept:
        found = evidence.features(which)
        assert found is not None
        features = np.concatenate([found.train, found.query])
        labels = np.concatenate([evidence.labels, evidence.query_labels])
        kept[which] = _by_splits(features, labels, evidence.classes, evidence.seed, SPLITS)
    return kept[which]


def query_likeness(evidence: Evidence, which: Which = "frozen") -> Floats:
    """How many times denser the queries lie where a row lies than the rows themselves, [n], by these features.

    The odds of a probe that tells queries from rows, fitted without the row (Bickel, Brueckner & Scheffer 2007); 1
    everywhere where it cannot tell them.
    """
    found = evidence.features(which)
    assert found is not None
    rows, queries = len(found.train), len(found.query)
    sides = np.repeat([0, 1], [rows, queries])
    said = out_of_fold(np.concatenate([found.train, found.query]), sides, 2, evidence.seed)[:rows]
    return said[:, 1] / said[:, 0] * rows / queries


def out_of_fold(features: Singles, labels: Labels, classes: int, seed: int, folds: int = FOLDS) -> Floats:
    """Probabilities of every row, [n, C], by a multinomial logistic regression fitted on the other folds.

    ``features`` [n, d] are standardised; ``labels`` [n] are below ``classes``. A class that a training part of m rows
    lacks gets about 1 / (m + C). The regularisation is that of the least out-of-fold loss of the labels as given: clean
    rows alone would ask for less, not having the wrong labels that must not be learned.
    """
    return _by_splits(features, labels, classes, seed, 1, folds)[0]


def _by_splits(features: Singles, labels: Labels, classes: int, seed: int, splits: int, folds: int = FOLDS) -> Floats:
    dealt = [stratified_folds(labels, folds, np.random.default_rng([seed, split])) for split in range(splits)]
    return Probe(standardise(features), labels, classes).by_splits(dealt)


@dataclass(frozen=True)
class Probe:
    """Features as the regression takes them, [n, k], and labels [n]."""

    features: Singles
    labels: Labels
    classes: int

    def by_splits(self, splits: Sequence[Labels]) -> Floats:
        """Out-of-fold probabilities by every split, [S, n, C]; the first also chooses the regularisation."""
        strength, first = self.choose_regularisation(splits[0])
        return np.stack([first, *(self.by_fold(fold, strength) for fold in splits[1:])])

    def choose_regularisation(self, fold: Labels) -> tuple[float, Floats]:
        """The regularisation whose out-of-fold loss is least, and the probabilities by it, [n, C]."""
        chosen, best, least = 0.0, np.empty(0), np.inf
        for strength in STRENGTHS:
            found = self.by_fold(fold, strength)
            loss = -float(np.log(found[np.arange(len(self.labels)), self.labels]).mean())
            if loss >= least:
                break  # from here on the probe learns the rows by heart, and takes longer each time
            chosen, best, least = strength, found, loss
        return chosen, best

    def by_fold(self, fold: Labels, strength: float) -> Floats:
        """Probabilities of every row by the regression fitted on all but its ``fold`` [n], [n, C]."""
        found = np.empty((len(self.labels), self.classes))
        for number in np.unique(fold):
            judged = np.flatnonzero(fold == number)
            found[judged] = self._fitted_without(judged, strength)
        return found

    def _fitted_without(self, judged: Labels, strength: float) -> Floats:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        learned = np.delete(np.arange(len(self.labels)), judged)
        present = np.unique(self.labels[learned])
        found = np.full((len(judged), self.classes), 1 / (len(learned) + self.classes))
        if len(present) > 1:
            model = LogisticRegression(C=strength, max_iter=300)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # an unfinished fit is regularised a bit more
                model.fit(self.features[learned], self.labels[learned])
            found[:, present] = model.predict_proba(self.features[judged])
        else:
            found[:, present] = 1.0
        found = found.clip(SMALLEST)
        return found / found.sum(1, keepdims=True)


def standardise(features: Singles) -> Singles:
    """Standardised columns; the first principal components where there are more than ``WIDTH``."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaled: Singles = StandardScaler().fit_transform(features)
    if scaled.shape[1] <= WIDTH or not scaled.any():
        return scaled
    return PCA(min(WIDTH, len(scaled)), random_state=0).fit_transform(scaled)
