"""Out-of-fold probabilities against scikit-learn, and what comes of them against cleanlab."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clusters import evidence, flipped, standardised
from thresher.detectors import probe
from thresher.detectors.evidence import Evidence, Features
from thresher.detectors.probe import Probe, out_of_fold, query_likeness
from thresher.detectors.registry import detect
from thresher.folds import stratified_folds


def both(made: Evidence) -> tuple[Any, Any]:
    """Features and labels of the rows, and after them of the queries."""
    assert made.frozen is not None
    features = np.concatenate([made.frozen.train, made.frozen.query])
    return features, np.concatenate([made.labels, made.query_labels])


def fitted_by_hand(features: Any, labels: Any, fold: Any, strength: float, classes: int) -> Any:
    """Out-of-fold probabilities by scikit-learn."""
    seen = standardised(features).astype(np.float64)
    found = np.zeros((len(labels), classes))
    for number in set(fold):
        learned = fold != number
        model = LogisticRegression(C=strength, max_iter=1000, tol=1e-8).fit(seen[learned], labels[learned])
        found[~learned] = model.predict_proba(seen[~learned])
    return found


@pytest.mark.parametrize("width", [6, 300], ids=["as they are", "by principal components"])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_equals_scikit_learn_fold_by_fold(classes: int, width: int) -> None:
    made = flipped(evidence(60, classes=classes, width=width, apart=2), *range(0, 60, 5))
    features, labels = both(made)
    fold = stratified_folds(labels, 5, np.random.default_rng([0, 0]))
    by_strength = {strength: fitted_by_hand(features, labels, fold, strength, classes) for strength in probe.STRENGTHS}
    losses = {s: -np.log(found[np.arange(75), labels]).mean() for s, found in by_strength.items()}
    best = min(losses, key=lambda strength: losses[strength])
    assert probe.STRENGTHS[0] < best < probe.STRENGTHS[-1]
    np.testing.assert_allclose(out_of_fold(features, labels, classes, 0), by_strength[best], atol=2e-3)
    kept = probe.predict_held_out(made)
    assert kept.shape == (3, 75, classes)
    for split, found in enumerate(kept):  # rows and queries in the same folds, the first of which chooses for all
        fold = stratified_folds(labels, 5, np.random.default_rng([0, split]))
        np.testing.assert_allclose(found, fitted_by_hand(features, labels, fold, best, classes), atol=2e-3)


def test_the_score_of_the_probe_is_the_mean_of_three_splits() -> None:
    made = evidence(30)
    kept = probe.predict_held_out(made)
    assert not np.allclose(kept[0], kept[1])
    np.testing.assert_allclose(kept.sum(-1), 1)
    np.testing.assert_allclose(probe.probe(made), np.log(kept[:, np.arange(30), made.labels]).mean(0))


def test_rows_and_queries_with_right_labels_are_judged_alike() -> None:
    made = evidence(300, queries=300, apart=1.5)
    kept = probe.predict_held_out(flipped(made, *range(0, 300, 6)))
    right = np.arange(300) % 6 > 0
    given, clean = kept[:, np.arange(300), made.labels], kept[:, 300 + np.arange(300), made.query_labels]
    assert given[:, right].mean() == pytest.approx(clean.mean(), abs=0.03)
    assert kept[:, np.arange(300), (made.labels + 1) % 3][:, ~right].mean() < clean.mean() - 0.2


def test_the_label_of_a_row_does_not_change_its_own_probabilities() -> None:
    made = evidence(30, apart=1)
    assert made.frozen is not None
    fold = np.arange(30) % 5
    before, after = (
        Probe(standardised(made.frozen.train), labels, 3).by_fold(fold, 0.1)
        for labels in (made.labels, flipped(made, 12).labels)
    )
    same = (before == after).all(1)
    np.testing.assert_array_equal(same, fold == fold[12])


def test_folds_are_even_and_every_class_is_spread_over_them() -> None:
    labels = np.array([0] * 23 + [1] * 11 + [2] * 3 + [3])
    fold = stratified_folds(labels, 5, np.random.default_rng(0))
    assert np.ptp(np.bincount(fold, minlength=5)) <= 1
    for number in range(4):
        assert np.ptp(np.bincount(fold[labels == number], minlength=5)) <= 1
    assert (fold != stratified_folds(labels, 5, np.random.default_rng(1))).any()


def test_a_class_that_a_training_part_lacks_has_a_small_probability() -> None:
    made = evidence(30, classes=2)
    assert made.frozen is not None
    labels = made.labels.copy()
    labels[5] = 3  # of four classes, one has this row alone and one none
    found = out_of_fold(made.frozen.train, labels, 4, 0)
    assert found[5, 3] == found[5, 2] == pytest.approx(1 / (24 + 4), rel=0.1)
    np.testing.assert_allclose(found.sum(1), 1)
    single = out_of_fold(made.frozen.train[:3], np.zeros(3, dtype=np.int64), 2, 0)
    assert (single[:, 0] > 0.6).all()


def test_confident_is_what_cleanlab_says() -> None:
    rank = pytest.importorskip("cleanlab.rank")
    made = flipped(evidence(50, apart=2), 3, 8, 30)
    kept = probe.predict_held_out(made)
    of_rows = kept.mean(0)[:50]
    truth = rank.get_label_quality_scores(made.labels, of_rows, adjust_pred_probs=True)
    np.testing.assert_array_equal(detect(made)["confident"], truth)
    # The adjustment by hand: every class's probabilities less their mean over its own rows.
    means = np.array([of_rows[made.labels == k, k].mean() for k in range(3)])
    adjusted = (of_rows - means)[np.arange(50), made.labels]
    np.testing.assert_array_equal(np.argsort(adjusted), np.argsort(truth))


def test_probabilities_are_computed_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    by_splits = Probe.by_splits
    monkeypatch.setattr(Probe, "by_splits", lambda *args: calls.append(1) or by_splits(*args))
    made = evidence()
    detect(made)
    assert len(calls) == 1
    detect(flipped(made, 1))
    assert len(calls) == 2


def test_likeness_to_queries_is_the_ratio_of_densities() -> None:
    """Normal densities of one width: the log ratio is linear, and known."""
    rng, apart = np.random.default_rng(0), 1.5
    made = evidence(3000, classes=2, width=1, queries=2000)
    frozen = Features(rng.normal(size=(3000, 1)).astype(np.float32), rng.normal(apart, 1, (2000, 1)).astype(np.float32))
    found = query_likeness(replace(made, frozen=frozen))
    truth = apart * frozen.train[:, 0] - apart**2 / 2
    assert np.abs(np.log(found) - truth).mean() < 0.1
    same = replace(frozen, query=rng.normal(size=(2000, 1)).astype(np.float32))
    assert np.abs(query_likeness(replace(made, frozen=same)) - 1).mean() < 0.05
