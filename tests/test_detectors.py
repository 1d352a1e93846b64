"""Detectors against loops and closed forms, and what must hold of all of them; the probe has a file of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import thresher
from clusters import evidence, flipped, labelled, standardised
from thresher.detectors import neighbours, registry
from thresher.detectors.baselines import oracle
from thresher.detectors.evidence import Evidence, Features
from thresher.detectors.neighbours import knn, neighbours_of, query_knn
from thresher.detectors.probe import Probe
from thresher.detectors.registry import DETECTORS, available, detect
from thresher.detectors.training import aum, el2n, loss, loss_mean, margin
from thresher.errors import ModelError

ALL = [
    *("loss", "loss_mean", "aum", "el2n", "margin", "knn_frozen", "knn_tuned", "query_knn_frozen", "query_knn_tuned"),
    *("probe_frozen", "confident", "noise_frozen", "noise_tuned", "random"),
]


def shuffled(made: Evidence, order: Any) -> Evidence:
    """The same rows in another order."""

    def of(features: Features | None) -> Features:
        assert features is not None
        return Features(features.train[order], features.query)

    return replace(
        made, labels=made.labels[order], epoch_losses=made.epoch_losses[:, order], losses=made.losses[order],
        epoch_outputs=made.epoch_outputs[:, order], outputs=made.outputs[order],
        frozen=of(made.frozen), tuned=of(made.tuned),
    )  # fmt: skip


def test_training_scores_by_hand() -> None:
    logits = np.array([[[2, 1, 0], [0, 3, 4]], [[5, 1, 2], [1, 1, 7]]], np.float32)
    made = replace(evidence(2), labels=np.array([0, 1]), epoch_outputs=logits, outputs=logits[1])
    made = replace(made, epoch_losses=np.array([[1, 2], [3, 6]], np.float32), losses=np.array([0.5, 4], np.float32))
    np.testing.assert_allclose(aum(made), [(1 + 3) / 2, (-1 - 6) / 2])
    np.testing.assert_allclose(margin(made), [3, -6])
    np.testing.assert_allclose(loss(made), [-0.5, -4])
    np.testing.assert_allclose(loss_mean(made), [-2, -4])


@pytest.mark.parametrize(("epochs", "early"), [(1, 1), (3, 1), (4, 1), (8, 2), (11, 2)])
def test_el2n_is_the_error_norm_of_the_first_quarter(epochs: int, early: int) -> None:
    made = evidence(7, epochs=epochs)
    truth = torch.zeros(7, dtype=torch.float64)
    for said in made.epoch_outputs[:early]:
        errors = torch.from_numpy(said).double().softmax(-1) - F.one_hot(torch.from_numpy(made.labels), 3)
        truth -= errors.norm(dim=-1) / early
    np.testing.assert_allclose(el2n(made), truth.numpy())


def looped_share(point: Any, label: int, others: Any, labels: Any, near: int) -> float:
    cosines = [float(point @ other / np.linalg.norm(point) / np.linalg.norm(other)) for other in others]
    nearest = sorted(range(len(others)), key=lambda i: -cosines[i])[:near]
    weights = {i: max(cosines[i], 0.0) for i in nearest}
    return sum(w for i, w in weights.items() if labels[i] == label) / sum(weights.values())


@pytest.mark.parametrize("chunk", [1, 200, 2**24])
@pytest.mark.parametrize("rows", [30, 80])
def test_neighbours_equal_a_loop_over_rows(monkeypatch: pytest.MonkeyPatch, rows: int, chunk: int) -> None:
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    made = flipped(evidence(rows, apart=1.5, queries=33), 3, 4, 11)
    assert made.tuned is not None
    mean, deviation = made.tuned.train.mean(0), made.tuned.train.std(0)
    train, query = ((side - mean) / deviation for side in (made.tuned.train, made.tuned.query))
    for i in range(rows):
        others = np.arange(rows) != i
        among = looped_share(train[i], made.labels[i], train[others], made.labels[others], neighbours_of(rows - 1))
        assert knn(made, "tuned")[i] == pytest.approx(among, abs=1e-5)
        across = looped_share(train[i], made.labels[i], query, made.query_labels, neighbours_of(33))
        assert query_knn(made, "tuned")[i] == pytest.approx(across, abs=1e-5)


def test_the_number_of_neighbours_follows_the_number_of_rows() -> None:
    assert [neighbours_of(count) for count in (0, 3, 10, 100, 1000, 2500, 10**6)] == [0, 3, 5, 10, 32, 50, 50]


def test_neighbours_that_tie_share_the_last_places() -> None:
    # Four directions, each many times over: of five neighbours, all come from a row's own direction.
    labels = np.random.default_rng(0).integers(0, 2, 36)
    directions = np.repeat(np.eye(4), 9, axis=0).astype(np.float32)
    made = replace(evidence(36), labels=labels, classes=2, frozen=Features(directions, directions[:1]))
    own = [labels[9 * (i // 9) : 9 * (i // 9) + 9] for i in range(36)]
    truth = [((own[i] == labels[i]).sum() - 1) / 8 for i in range(36)]
    np.testing.assert_allclose(knn(made, "frozen"), truth, atol=1e-6)


def test_what_is_available_follows_from_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    made = evidence()
    with_package = registry.find_spec("cleanlab") is not None
    assert available(made.has) == [name for name in ALL if with_package or name != "confident"] == list(detect(made))
    trained_elsewhere = replace(made, epoch_losses=made.epoch_losses[:0], epoch_outputs=made.epoch_outputs[:0])
    assert not {"loss_mean", "aum", "el2n"} & set(available(trained_elsewhere.has))
    assert {"loss", "margin", "knn_tuned"} < set(detect(trained_elsewhere))
    untouched = replace(made, tuned=None)
    assert set(available(made.has)) - set(available(untouched.has)) == {"knn_tuned", "query_knn_tuned", "noise_tuned"}
    ones = made.epoch_outputs[..., :1]
    generating = replace(made, labels=0 * made.labels, classes=0, epoch_outputs=ones, outputs=ones[0])
    assert available(generating.has) == list(detect(generating)) == ["loss", "loss_mean", "random"]
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    assert "confident" not in available(made.has)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 4, 7])
def test_a_wrong_label_is_found_where_clusters_are_clear(classes: int) -> None:
    made = evidence(84, classes=classes, width=8, apart=8, queries=28)
    wrong = np.array([2, 9, 33])
    before, after = detect(made), detect(flipped(made, *wrong))
    planted = np.isin(np.arange(84), wrong)
    for name in set(before) - {"random"}:
        assert (after[name][wrong] < before[name][wrong]).all(), name
        assert after[name].dtype == np.float64 and after[name].shape == (84,)
        assert after[name][planted].max() < after[name][~planted].min(), name


@given(seed=st.integers(0, 99), classes=st.sampled_from([2, 3, 5]))
@settings(deadline=None, max_examples=10)
def test_scores_go_with_their_rows(seed: int, classes: int) -> None:
    made = flipped(evidence(30, classes=classes, apart=1, seed=seed), 0, 5)
    order = np.random.default_rng(seed).permutation(30)
    moved_rows = shuffled(made, order)
    by_place = {"random", "probe_frozen", "confident", "noise_frozen", "noise_tuned"}  # by folds or numbers drawn
    for name in set(available(made.has)) - by_place:
        here, there = DETECTORS[name].compute(made), DETECTORS[name].compute(moved_rows)
        np.testing.assert_allclose(there, here[order], rtol=1e-4, atol=1e-5, err_msg=name)
    assert made.frozen is not None
    fold = np.arange(30) % 5
    train = standardised(made.frozen.train)
    probabilities = Probe(train, made.labels, classes).by_fold(fold, 0.1)
    moved = Probe(train[order], made.labels[order], classes).by_fold(fold[order], 0.1)
    np.testing.assert_allclose(moved, probabilities[order], atol=2e-3)


@pytest.mark.slow
@given(data=st.data(), rows=st.integers(2, 25), classes=st.integers(2, 7), queries=st.integers(1, 6))
@settings(deadline=None, max_examples=15)
def test_every_score_is_a_number(data: st.DataObject, rows: int, classes: int, queries: int) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)))
    made = evidence(rows, classes=classes, queries=queries, width=data.draw(st.sampled_from([2, 300])))
    assert made.frozen is not None
    if data.draw(st.booleans()):
        constant = Features(np.ones_like(made.frozen.train), np.ones_like(made.frozen.query))
        made = replace(made, frozen=constant, tuned=constant)
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        scores = detect(labelled(made, labels))
    assert all(np.isfinite(values).all() for values in scores.values())


def test_equal_rows_score_by_their_labels_alone() -> None:
    made = evidence(41, classes=2)
    assert made.frozen is not None
    equal = Features(np.ones_like(made.frozen.train), np.ones_like(made.frozen.query))
    made = replace(made, frozen=equal)
    others = [(np.delete(made.labels, i) == made.labels[i]).mean() for i in range(41)]
    np.testing.assert_allclose(knn(made, "frozen"), others, atol=1e-6)


def test_baselines() -> None:
    made = evidence(500)
    noise = detect(made)["random"]
    np.testing.assert_array_equal(noise, DETECTORS["random"].compute(made))
    assert abs(np.corrcoef(noise, DETECTORS["random"].compute(replace(made, seed=1)))[0, 1]) < 0.2
    planted = np.arange(500) % 5 == 0
    assert thresher.noise_detection_auc(oracle(planted), planted) == pytest.approx(1, abs=1e-2)


def test_outputs_that_overflow_are_refused() -> None:
    made = evidence(10)
    made.losses[4] = np.inf
    with pytest.raises(ModelError, match="loss: what the model says of training row 4 is not finite"):
        detect(made)
