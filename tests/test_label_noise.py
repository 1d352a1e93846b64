"""How labels go wrong, learned along with the task: against simulated classes of which everything is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from thresher.detectors import label_noise
from thresher.detectors.error_law import Law, even_law, posterior
from thresher.detectors.evidence import Evidence, Features
from thresher.detectors.label_noise import LabelNoise, ShareTold, estimate_share, learn_label_noise, noise, noise_of
from thresher.detectors.probe import FOLDS, Probe, out_of_fold, standardise

Kind = Literal["none", "uniform", "one-way", "circular"]
ROWS, QUERIES, WIDTH = 400, 100, 10
SEEDS = (0, 1)
CASES: tuple[tuple[int, Kind], ...] = (
    (2, "none"), (2, "uniform"), (2, "one-way"), (4, "none"), (4, "uniform"), (4, "one-way"), (4, "circular"),
    (8, "uniform"), (8, "one-way"), (8, "circular"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class World:
    """Rows in clusters, one a class, and labels drawn by a law T."""

    found: Features
    labels: Any
    query_labels: Any
    truth: Any
    law: Any
    classes: int

    @property
    def wrong(self) -> Any:
        return self.labels != self.truth

    @property
    def as_it_came_out(self) -> Any:
        """Of the rows of each class the share that got each label, [C, C]."""
        return np.array([np.bincount(self.labels[self.truth == k], minlength=self.classes) for k in range(self.classes)
                         ]) / np.bincount(self.truth)[:, None]  # fmt: skip

    def learned(self, seed: int = 0, rows: Any = None) -> LabelNoise:
        return learn_label_noise(self.found, self.labels, self.query_labels, self.classes, seed, rows)


def law_of(kind: Kind, classes: int, share: float = 0.2) -> Any:
    """A share of all rows is wrong: of every class, to any other or to the next one; or of one class, all to one."""
    if kind in ("none", "uniform"):
        return even_law(share * (kind != "none"), classes)
    law, moved = np.eye(classes), share if kind == "circular" else min(share * classes, 0.45)
    for number in range(classes if kind == "circular" else 1):
        law[number, number] -= moved
        law[number, (number + 1) % classes] += moved
    return law


def world(
    seed: int, kind: Kind, classes: int, *, rows: int = ROWS, queries: int = QUERIES, apart: float = 2.5
) -> World:
    rng, law = np.random.default_rng(seed), law_of(kind, classes)
    centres = apart * np.eye(classes, WIDTH)
    truth, query_labels = np.arange(rows) % classes, np.arange(queries) % classes
    sides = [(centres[of] + rng.normal(size=(len(of), WIDTH))).astype(np.float32) for of in (truth, query_labels)]
    labels = np.array([rng.choice(classes, p=law[number]) for number in truth])
    return World(Features(*sides), labels, query_labels, truth, law, classes)


@cache
def simulated(seed: int, kind: Kind, classes: int) -> tuple[World, LabelNoise]:
    made = world(seed, kind, classes)
    return made, made.learned(seed)


def by_probe(made: World, seed: int) -> Any:
    """What a probe that takes labels as they are says of each row's label, without the row, [n]."""
    features = np.concatenate([made.found.train, made.found.query])
    said = out_of_fold(features, np.concatenate([made.labels, made.query_labels]), made.classes, seed)
    return said[np.arange(len(made.labels)), made.labels]


@pytest.mark.parametrize(("classes", "kind"), CASES)
def test_the_law_that_labels_were_drawn_by_is_learned(classes: int, kind: Kind) -> None:
    for seed in SEEDS:
        made, found = simulated(seed, kind, classes)
        law = found.law.transition
        for each in (law, found.law.even, found.law.pattern):
            np.testing.assert_allclose(each.sum(axis=1), 1)
            assert each.min() >= 0
        drawn_by = made.law if kind in ("none", "uniform") else made.as_it_came_out  # few rows a class: not the same
        away = np.abs(law - drawn_by).sum(axis=1) / 2  # total variation, class by class
        assert away.mean() < 0.08
        assert away.max() < 0.16
        assert found.wrong.mean() == pytest.approx(made.wrong.mean(), abs=0.04)


@pytest.mark.parametrize(("classes", "kind"), [case for case in CASES if case[1] != "none"])
def test_wrong_rows_are_found_whatever_the_law(classes: int, kind: Kind) -> None:
    """A probe that believes its labels is as good where errors have no pattern, and far behind where they have one."""
    margin = {"uniform": -0.03, "one-way": 0.3, "circular": 0.1}[kind]
    for seed in SEEDS:
        made, found = simulated(seed, kind, classes)
        precision = average_precision_score(made.wrong, found.wrong)
        assert precision > 0.8
        assert precision > average_precision_score(made.wrong, -by_probe(made, seed)) + margin


@pytest.mark.parametrize(("classes", "kind"), CASES)
def test_a_pattern_is_seen_where_there_is_one(classes: int, kind: Kind) -> None:
    likely = [simulated(seed, kind, classes)[1].law.patterned for seed in SEEDS]
    if kind in ("one-way", "circular"):
        assert min(likely) > 0.95
    else:
        assert max(likely) < 0.15


@pytest.mark.parametrize("kind", ["uniform", "one-way"])
def test_a_pattern_of_many_small_sets_is_seldom_mistaken(kind: Kind) -> None:
    likely = [world(seed, kind, 2, rows=120, queries=40).learned(seed).law.patterned for seed in range(10)]
    assert (np.array(likely) > 0.5).sum() >= 8 if kind == "one-way" else (np.array(likely) > 0.5).sum() <= 2


def test_errors_are_what_the_truth_leaves_and_odds_go_with_them() -> None:
    made, found = simulated(0, "one-way", 4)
    rows = np.arange(ROWS)
    assert found.classes.shape == (ROWS + QUERIES, 4) and found.truth.shape == (ROWS, 4)
    np.testing.assert_allclose(found.truth.sum(axis=1), 1)
    np.testing.assert_allclose(found.classes.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(found.wrong, 1 - found.truth[rows, made.labels])
    np.testing.assert_allclose(found.truth, found.law.truth(found.classes[:ROWS], made.labels))
    chance = found.wrong.clip(1e-6, 1 - 1e-6)
    np.testing.assert_allclose(found.log_odds, np.log((1 - chance) / chance), rtol=1e-9)
    of_moved = made.truth[made.wrong]
    assert (found.truth[made.wrong].argmax(axis=1) == of_moved).mean() > 0.8


def looped(chances: Any, law: Any, labels: Any) -> Any:
    """Bayes' rule, row by row and class by class."""
    found = np.zeros(chances.shape, dtype=np.float64)
    for row, label in enumerate(labels.tolist()):
        joint = [float(chances[row, of]) * float(law[of, label]) for of in range(len(law))]
        found[row] = [one / sum(joint) for one in joint]
    return found


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_probabilities_given_a_label_follow_from_bayes_rule(classes: int) -> None:
    rng = np.random.default_rng(classes)
    chances, labels = rng.dirichlet(np.ones(classes), 40), rng.integers(0, classes, 40)
    even, pattern = even_law(0.3, classes), rng.dirichlet(np.ones(classes), classes)
    np.testing.assert_allclose(posterior(chances, pattern, labels), looped(chances, pattern, labels))
    for likely in (0.0, 0.3, 1.0):
        law = Law(even, pattern, likely)
        by_both = likely * looped(chances, pattern, labels) + (1 - likely) * looped(chances, even, labels)
        np.testing.assert_allclose(law.truth(chances, labels), by_both)
        by_hand = [[likely * pattern[j, k] + (1 - likely) * even[j, k] for k in range(classes)] for j in range(classes)]
        np.testing.assert_allclose(law.transition, by_hand)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_even_law_spares_a_class_as_much_as_any_other(classes: int) -> None:
    law = even_law(0.3, classes)
    for of in range(classes):
        for label in range(classes):
            assert law[of, label] == pytest.approx(0.7 if of == label else 0.3 / (classes - 1))


def test_where_classes_are_known_the_laws_are_counts() -> None:
    """With the prior's rows for the pattern, and one share of errors for the even law."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [500, 300, 200])
    labels = np.where(rng.random(1000) < 0.3 * (truth == 0), 2, truth)
    start = Law(even_law(0.1, 3), even_law(0.1, 3), 0.4)
    found = start.fitted(np.eye(3)[truth].clip(1e-9), labels)
    share = (labels != truth).mean()
    np.testing.assert_allclose(found.even, even_law(share, 3), atol=1e-6)
    seen = np.zeros((3, 3))
    for of, label in zip(truth, labels, strict=True):
        seen[of, label] += 1
    np.testing.assert_allclose(found.pattern, seen / seen.sum(axis=1, keepdims=True), atol=0.01)
    assert found.pattern[1, 0] > 0 and found.patterned == 0.4
    assert start.learned(np.eye(3)[truth].clip(1e-9), labels, np.arange(1000) % 5).patterned > 0.999


def dealt(monkeypatch: pytest.MonkeyPatch, fold: Any) -> None:
    """Rows and queries in these folds, and as strongly regularised every time."""
    monkeypatch.setattr(label_noise, "stratified_folds", lambda *_: fold.copy())
    monkeypatch.setattr(Probe, "choose_regularisation", lambda *_: (0.1, np.empty(0)))


def folds_of(rows: int, queries: int) -> Any:
    return np.random.default_rng(5).permutation(rows + queries) % FOLDS


@pytest.mark.parametrize("kind", ["uniform", "one-way"])
def test_classes_that_change_their_numbers_are_judged_alike(monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    dealt(monkeypatch, folds_of(ROWS, QUERIES))
    made, number = world(3, kind, 4), np.array([2, 0, 3, 1])
    here = made.learned()
    there = learn_label_noise(made.found, number[made.labels], number[made.query_labels], 4, 0)
    np.testing.assert_allclose(there.law.transition[np.ix_(number, number)], here.law.transition, atol=0.01)
    np.testing.assert_allclose(there.truth[:, number], here.truth, atol=0.05)
    assert there.law.patterned == pytest.approx(here.law.patterned, abs=0.02)


def test_the_order_of_rows_does_not_matter_but_for_how_folds_are_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fold = world(4, "one-way", 4), folds_of(ROWS, QUERIES)
    dealt(monkeypatch, fold)
    here = made.learned()
    order = np.random.default_rng(0).permutation(ROWS)
    dealt(monkeypatch, np.concatenate([fold[:ROWS][order], fold[ROWS:]]))
    moved = Features(made.found.train[order], made.found.query)
    there = learn_label_noise(moved, made.labels[order], made.query_labels, 4, 0)
    np.testing.assert_allclose(there.wrong, here.wrong[order], atol=0.05)
    np.testing.assert_allclose(there.law.transition, here.law.transition, atol=0.01)


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_folds() -> None:
    made = world(5, "one-way", 3, rows=150, queries=60)
    here, same, other = (made.learned(seed) for seed in (1, 1, 2))
    assert here.truth.tobytes() == same.truth.tobytes() and here.classes.tobytes() == same.classes.tobytes()
    assert here.law.transition.tobytes() == same.law.transition.tobytes()
    assert here.truth.tobytes() != other.truth.tobytes()
    assert np.corrcoef(here.wrong, other.wrong)[0, 1] > 0.9


def test_a_label_does_not_speak_for_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is learned of the law, by which rows of other folds hear of it."""
    monkeypatch.setattr(label_noise, "TURNS", 0)
    made, fold = world(6, "uniform", 3, rows=90, queries=30), folds_of(90, 30)
    dealt(monkeypatch, fold)
    labels = made.labels.copy()
    labels[7] = (labels[7] + 1) % 3
    before = made.learned().classes
    after = learn_label_noise(made.found, labels, made.query_labels, 3, 0).classes
    beside = fold == fold[7]
    np.testing.assert_array_equal(after[beside], before[beside])
    assert (np.abs(after - before).max(axis=1) > 1e-6)[~beside].all()


def test_a_row_that_is_there_twice_does_not_speak_for_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the copies of rows that are canaries beside a model that was trained elsewhere."""
    monkeypatch.setattr(label_noise, "TURNS", 0)
    made, fold = world(6, "uniform", 3, rows=90, queries=30), folds_of(90, 30)
    rows = np.append(np.arange(89), 7)
    fold[89] = (fold[7] + 1) % FOLDS
    dealt(monkeypatch, fold)
    labels = made.labels.copy()
    labels[89] = (labels[89] + 1) % 3

    def moved(rows: Any) -> float:
        """How much is said otherwise of row 7 when its copy has another label."""
        after = learn_label_noise(made.found, labels, made.query_labels, 3, 0, rows).classes
        return float(np.abs(after - made.learned(0, rows).classes)[7].max())

    assert moved(rows) == 0
    assert moved(None) > 1e-6


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_of_labels_as_given_the_probabilities_are_those_of_logistic_regression(
    monkeypatch: pytest.MonkeyPatch, classes: int, weight: float
) -> None:
    """One vector a class is penalised; with two classes scikit-learn has one for both, and half of the penalty."""
    for name, value in (("TURNS", 0), ("QUERY_WEIGHT", weight), ("LOOSER", 1.0), ("STEPS", 1000)):
        monkeypatch.setattr(label_noise, name, value)
    made, fold = world(7, "uniform", classes, rows=120, queries=40, apart=1.5), folds_of(120, 40)
    dealt(monkeypatch, fold)
    inputs = standardise(np.concatenate([made.found.train, made.found.query]))
    labels, counts = np.concatenate([made.labels, made.query_labels]), np.repeat([1.0, weight], [120, 40])
    found = made.learned().classes
    for number in range(FOLDS):
        there = fold != number
        fitted = LogisticRegression(C=0.2 if classes == 2 else 0.1, tol=1e-8, max_iter=2000)
        fitted.fit(inputs[there], labels[there], sample_weight=counts[there])
        np.testing.assert_allclose(found[~there], fitted.predict_proba(inputs[~there]), atol=3e-3)


def unrelated(seed: int) -> World:
    """The features say nothing of the classes."""
    made, rng = world(seed, ("uniform", "one-way")[seed % 2], 2 + seed % 3, rows=150, queries=60), np.random.default_rng
    sides = [rng([seed, 1]).normal(size=side.shape).astype(np.float32) for side in (made.found.train, made.found.query)]
    return World(Features(*sides), made.labels, made.query_labels, made.truth, made.law, made.classes)


def told(made: World, found: LabelNoise, seed: int) -> ShareTold | None:
    return estimate_share(found, made.labels, made.query_labels, seed, np.ones(len(made.labels), bool))


def test_queries_tell_no_share_where_features_say_nothing() -> None:
    made = [unrelated(seed) for seed in range(10)]
    assert sum(told(one, one.learned(seed), seed) is not None for seed, one in enumerate(made)) <= 1


@pytest.mark.parametrize("kind", ["uniform", "one-way"])
def test_the_share_of_errors_lies_within_what_queries_tell(kind: Kind) -> None:
    inside: list[bool] = []
    for classes in (2, 4, 8):
        for seed in SEEDS:
            made, found = simulated(seed, kind, classes)
            said = told(made, found, seed)
            assert said is not None and said.error < 0.06
            inside.append(abs(said.share - made.wrong.mean()) < 1.96 * said.error)
    for seed in range(4):
        made = world(seed, kind, 2, rows=200, queries=60, apart=1.5)  # which overlap
        said = told(made, made.learned(seed), seed)
        assert said is not None
        inside.append(abs(said.share - made.wrong.mean()) < 1.96 * said.error)
    assert sum(inside) >= 9


def test_a_probe_tells_the_share_of_errors_that_hit_all_classes_alike_however_sure_it_is() -> None:
    """The mean probability of labels lies between that of right and of wrong ones, by what is true of the queries."""
    for classes in (2, 4):
        made, found = simulated(0, "uniform", classes)
        right = np.concatenate([made.truth, made.query_labels])
        for sure in (0.6, 0.7, 0.99):
            probe = np.where(np.eye(classes)[right] == 1, sure, (1 - sure) / (classes - 1))
            every = np.ones(ROWS, bool)
            even = replace(found, law=replace(found.law, patterned=0.0))
            said = estimate_share(even, made.labels, made.query_labels, 0, every, probe)
            assert said is not None and said.share == pytest.approx(made.wrong.mean())
            pattern = replace(found, law=replace(found.law, patterned=1.0))
            said = estimate_share(pattern, made.labels, made.query_labels, 0, every, probe)
            assert said is not None and said.share == pytest.approx(found.wrong.mean())


def test_only_rows_that_count_are_counted() -> None:
    made, found = simulated(0, "uniform", 4)
    for counted in (made.wrong, ~made.wrong):
        said = estimate_share(found, made.labels, made.query_labels, 0, counted)
        assert said is not None and said.share == pytest.approx(found.wrong[counted].mean())
    assert found.wrong[made.wrong].mean() > found.wrong[~made.wrong].mean() + 0.4


def test_the_detector_is_the_log_odds_of_a_right_label_and_learned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world(8, "one-way", 3, rows=90, queries=30)
    nothing = np.zeros((0, 90), np.float32)
    tuned = Features(made.found.train[:, ::-1].copy(), made.found.query[:, ::-1].copy())
    evidence = Evidence(
        made.labels, 3, nothing, nothing, np.zeros(90, np.float32), np.zeros((90, 3), np.float32), made.query_labels,
        made.found, tuned, 4, np.arange(90),
    )  # fmt: skip
    np.testing.assert_array_equal(noise(evidence, "frozen"), made.learned(4, np.arange(90)).log_odds)
    monkeypatch.setattr(label_noise, "learn_label_noise", lambda *_: pytest.fail("learned again"))
    assert noise_of(evidence, "frozen") is noise_of(evidence, "frozen")
    monkeypatch.undo()
    assert noise_of(evidence, "tuned") is not noise_of(evidence, "frozen")
