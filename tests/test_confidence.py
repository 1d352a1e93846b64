"""How sure it is that a row is wrong, how many rows are, and what they should be: against simulations with a truth."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from thresher.calibration.candidates import Candidates
from thresher.calibration.choice import Pattern
from thresher.calibration.confidence import SURE, confidence
from thresher.calibration.error_rate import MOST, RARE, ErrorRate, Known, Posterior, Share, error_rate
from thresher.calibration.repair import error_pairs, split_relabels, suggest

CASES = [(2, 0.1), (2, 0.3), (4, 0.1), (4, 0.35), (0, 0.2)]


def delta(errors: float, classes: int) -> float:
    return errors / (classes - 1) if classes else 0.0


def known(share: float, error: float, density: Any = None) -> Known:
    """What clean queries tell of rows that are all like them, unless ``density`` says otherwise."""
    return Known(share, error, np.ones(1) if density is None else density)


def looks(row: Any, canary: Any) -> Candidates:
    """Looks without any candidates."""
    return Candidates((), np.empty((len(row), 0), np.float32), np.array(row), np.array(canary))


def drawn(rng: np.random.Generator, rows: int, canaries: int, errors: float, classes: int, apart: float) -> Any:
    """What is seen of each look, canaries last, and which are wrong: wrong ones N(apart, 1), right ones N(0, 1)."""
    wrong = np.arange(rows) < round(errors * rows)
    spoiled = rng.random(canaries) >= delta(errors, classes)
    both = np.concatenate([wrong, spoiled])
    return rng.normal(size=len(both)) + apart * both, both


def posterior(seen: Any, errors: float, apart: float) -> Any:
    wrong, right = errors * norm.pdf(seen, apart), (1 - errors) * norm.pdf(seen)
    return wrong / (wrong + right)


@pytest.mark.parametrize(("classes", "errors"), CASES)
def test_probabilities_are_the_true_posterior(classes: int, errors: float) -> None:
    """Where the log ratio is linear in what is seen, whatever its unit, as it is of normal densities of one width."""
    seen, _ = drawn(np.random.default_rng(classes), 20000, 3000, errors, classes, 2.5)
    canary = np.arange(23000) >= 20000
    for unit in (1.0, 7.0):
        suspicion = unit * seen + 3
        judged = error_rate(suspicion, canary, None, classes)
        assert judged.rate.share.estimate == pytest.approx(errors, abs=0.03)
        found = confidence(looks(np.arange(23000) % 20000, canary).merged(suspicion), judged)
        truth = posterior(seen[:20000], errors, 2.5)
        assert np.abs(found.probability - truth).max() < 0.1
        assert np.abs(found.probability - truth).mean() < 0.02
        assert found.more_likely_wrong == pytest.approx((truth > 0.5).sum(), rel=0.1)


@pytest.mark.parametrize(("classes", "errors"), CASES)
def test_q_values_are_the_share_of_right_rows_down_to_there(classes: int, errors: float) -> None:
    rng = np.random.default_rng(classes)
    seen, wrong = drawn(rng, 40000, 4000, errors, classes, 2.5)
    canary = np.arange(44000) >= 40000
    judged = error_rate(seen, canary, None, classes)
    found = confidence(looks(np.arange(44000) % 40000, canary).merged(seen), judged)
    order = np.argsort(-seen[:40000])
    for depth in (1000, 4000, 8000, 20000):
        top = order[:depth]
        assert found.q_value[top[-1]] == pytest.approx((~wrong[top]).mean(), abs=0.03)
        assert found.q_value[top].max() == found.q_value[top[-1]]


def test_a_row_seen_twice_is_judged_by_the_mean_of_both() -> None:
    rng = np.random.default_rng(0)
    row, canary = np.tile(np.arange(200), 2), np.arange(400) < 30
    share = Share(0.2, 0.1, 0.3)
    judged = Posterior(ErrorRate(share, share, None), np.array([0.2]), np.ones(1), np.array([[1.5, -1.0]]))
    each = rng.normal(size=400)
    mean = np.where(canary, each, (each + np.roll(each, 200)) / 2)
    mean[200:230] = each[200:230]  # the rows that were canaries once are seen once
    found, same = (confidence(looks(row, canary).merged(values), judged) for values in (each, mean))
    np.testing.assert_allclose(found.probability, same.probability)
    assert np.ptp(found.probability) > 0.1


def test_spoiled_rows_are_surely_wrong_and_change_no_other() -> None:
    share = Share(0.2, 0.1, 0.3)
    judged = Posterior(ErrorRate(share, share, None), np.array([0.2]), np.ones(1), np.array([[1.5, -1.0]]))
    suspicion, spoiled = np.linspace(-3, 3, 50), np.arange(50) >= 45
    found, before = confidence(suspicion, judged, spoiled), confidence(suspicion, judged)
    assert (found.probability[spoiled] == SURE).all()
    np.testing.assert_array_equal(found.probability[~spoiled], before.probability[~spoiled])
    assert found.q_value[45] == pytest.approx(1 - SURE)


SOURCES = {"canaries": (False, 3.0), "queries": (True, 0.0), "both": (True, 3.0)}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("classes", "errors"), [(2, 0.1), (2, 0.3), (4, 0.25), (7, 0.05)])
def test_intervals_hold_the_share_of_errors(classes: int, errors: float, source: str) -> None:
    """By canaries that can be told from other rows, by queries where they cannot, and closest by both.

    What queries tell is off by what it says that it is off by.
    """
    asks, apart = SOURCES[source]
    rng = np.random.default_rng(1)
    canary = np.arange(660) >= 600
    found: list[ErrorRate] = []
    for _ in range(40):
        told = known(rng.normal(errors, 0.04), 0.04) if asks else None
        seen, _ = drawn(rng, 600, 60, errors, classes, apart)
        found.append(error_rate(seen, canary, told, classes).rate)
    shares = [one.share for one in found]
    assert np.mean([share.low <= errors <= share.high for share in shares]) >= 0.9
    widest = {"canaries": 0.35, "queries": 0.17, "both": 0.14}[source]
    assert np.mean([share.high - share.low for share in shares]) < widest
    assert np.mean([share.estimate for share in shares]) == pytest.approx(errors, abs=0.06)
    assert np.mean([one.plausible is not False for one in found]) > 0.9


@pytest.mark.parametrize(("share", "error"), [(0.1, 0.03), (0.3, 0.05), (0.02, 0.05), (-0.05, 0.04)])
def test_an_interval_by_queries_is_that_of_a_normal_likelihood_and_the_prior(share: float, error: float) -> None:
    """Whatever the canaries are: here they look like every other row, and many classes make every share possible."""
    canary = np.arange(1100) >= 1000
    found = error_rate(np.zeros(1100), canary, known(share, error), 100).rate.queries
    assert found is not None
    pi = (np.arange(100_000) + 0.5) / 100_000 * MOST * 0.99
    weights = norm.pdf(pi, share, error) * (1 - pi) ** RARE
    below = np.cumsum(weights) / weights.sum()
    low, high = (float(pi[np.searchsorted(below, at)]) for at in (0.025, 0.975))
    assert found.estimate == pytest.approx(weights @ pi / weights.sum(), abs=0.003)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))


def test_the_less_queries_tell_the_more_canaries_count() -> None:
    rng = np.random.default_rng(4)
    canary = np.arange(1100) >= 1000
    seen, _ = drawn(rng, 1000, 100, 0.2, 4, 3.0)
    alone = error_rate(seen, canary, None, 4).rate.share
    found = [error_rate(seen, canary, known(alone.estimate + 0.05, error), 4).rate for error in (0.01, 0.05, 10.0)]
    assert all(one.plausible for one in found)
    assert found[0].share.estimate > found[1].share.estimate > found[2].share.estimate
    assert found[0].share.estimate == pytest.approx(alone.estimate + 0.05, abs=0.02)
    assert found[2].share.estimate == pytest.approx(alone.estimate, abs=1e-3)
    widths = [one.share.high - one.share.low for one in found]
    assert widths[0] < widths[1] < widths[2]
    assert widths[1] < min(found[1].canaries.high - found[1].canaries.low, 2 * 1.96 * 0.05)


def test_canaries_that_are_easier_to_find_than_the_errors_are_not_believed() -> None:
    rng = np.random.default_rng(1)
    wrong, canary = np.arange(1000) < 300, np.arange(1100) >= 1000
    seen = rng.normal(size=1100) + np.where(canary, 6.0, np.arange(1100) < 300)
    found = error_rate(seen, canary, known(0.28, 0.03), 4).rate
    assert found.plausible is False
    assert found.canaries.high < 0.1
    assert found.queries is not None and found.share.estimate == found.queries.estimate
    assert 0.2 < found.share.estimate < 0.35
    assert (found.share.low, found.share.high) == (found.canaries.low, found.queries.high)
    alike = error_rate(seen + 5 * (np.arange(1100) < 300), canary, known(0.28, 0.03), 4).rate
    assert alike.plausible is True
    assert alike.canaries.estimate == pytest.approx(wrong.mean(), abs=0.07)


def test_where_the_two_contradict_one_another_probabilities_add_up_to_what_queries_tell() -> None:
    rng = np.random.default_rng(5)
    canary = np.arange(1100) >= 1000
    seen = rng.normal(size=1100) + np.where(canary, 6.0, 3.0 * (np.arange(1100) < 300))
    judged = error_rate(seen, canary, known(0.3, 0.02), 4)
    assert judged.rate.plausible is False
    assert judged.weights @ judged.pi == pytest.approx(0.3, abs=0.02)
    by_canaries = error_rate(seen, canary, None, 4)
    assert judged.wrong(seen[:1000]).mean() > 2 * by_canaries.wrong(seen[:1000]).mean()


def test_queries_that_tell_nothing_leave_it_to_the_canaries() -> None:
    seen, _ = drawn(np.random.default_rng(2), 600, 60, 0.1, 2, 3.0)
    alone = error_rate(seen, np.arange(660) >= 600, None, 2).rate
    assert alone.queries is alone.plausible is alone.alike is None
    assert alone.share == alone.canaries


@pytest.mark.parametrize("classes", [2, 4, 0])
def test_where_nothing_is_known_no_row_is_called_wrong(classes: int) -> None:
    canary = np.arange(500) < 50
    found = error_rate(np.random.default_rng(0).normal(size=500), canary, None, classes)
    assert found.rate.share.high - found.rate.share.low > 0.3
    assert (found.wrong(np.linspace(-3, 3, 50)) < 0.5).all()


def test_looks_by_themselves_give_the_likeliest_line() -> None:
    """At pi = 0 and with no classes the odds are L itself: a plain logistic regression."""
    rng = np.random.default_rng(3)
    canary = np.arange(3000) < 600
    seen = rng.normal(size=3000) + 1.5 * canary
    found = error_rate(seen, canary, None, 0)
    assert found.pi[0] < 0.01
    fitted = LogisticRegression(C=np.inf).fit(seen[:, None], canary)
    expected = [fitted.coef_[0, 0], fitted.intercept_[0] - np.log(600 / 2400)]
    np.testing.assert_allclose(found.links[0], expected, rtol=0.05)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_suggestions_equal_a_loop(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels, wrong = rng.integers(0, classes, 50), rng.random(50)
    said = rng.dirichlet(np.ones(classes), 50)
    best, sure = suggest(labels, said, wrong)
    for row in range(50):
        others = {k: said[row, k] for k in range(classes) if k != labels[row]}
        assert best[row] == max(others, key=lambda k: others[k])
        assert sure[row] == pytest.approx(wrong[row] * max(others.values()) / sum(others.values()))
    if classes == 2:
        np.testing.assert_array_equal(best, 1 - labels)
        np.testing.assert_allclose(sure, wrong)


@pytest.mark.parametrize("classes", [2, 4])
def test_an_opinion_that_is_certain_of_the_label_still_suggests_another(classes: int) -> None:
    labels = np.arange(12) % classes
    best, sure = suggest(labels, np.eye(classes)[labels], np.full(12, 0.9))
    assert (best != labels).all()
    np.testing.assert_allclose(sure, 0.9 / (classes - 1))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_pairs_of_labels_equal_a_loop(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels, wrong = rng.integers(0, classes, 60), rng.random(60) * 0.6
    said = rng.dirichlet(np.ones(classes), 60)
    expected = dict.fromkeys(itertools.permutations(range(classes), 2), 0.0)
    for label, opinion, chance in zip(labels.tolist(), said.tolist(), wrong.tolist(), strict=True):
        for other in set(range(classes)) - {label}:
            expected[label, other] += chance * opinion[other] / (sum(opinion) - opinion[label])
    found = error_pairs(labels, said, wrong)
    assert len(found) > 1 and len(found) == sum(count >= 1 for count in expected.values())
    for pair in found:
        assert pair.wrong == pytest.approx(expected[pair.label, pair.likely]) and pair.wrong >= 1
        assert pair.rows == (labels == pair.label).sum()
        assert pair.alike == ((labels == pair.label) & (said.argmax(axis=1) == pair.likely)).sum()
    assert [pair.wrong for pair in found] == sorted((pair.wrong for pair in found), reverse=True)


def test_pairs_are_of_rows_that_are_likely_wrong_and_of_classes_that_are_likely() -> None:
    labels = np.repeat([0, 1, 2], 20)
    said = np.eye(3)[np.where(np.arange(60) < 6, 1, labels)]  # six rows labelled 0 are of class 1
    wrong = np.where(np.arange(60) < 6, 0.9, 0.0)
    (only,) = error_pairs(labels, said, wrong)
    assert only.alike == 6
    assert (only.label, only.likely, only.rows, only.wrong) == (0, 1, 20, pytest.approx(6 * 0.9))
    assert error_pairs(labels, said, wrong / 6) == ()  # 0.9 of a row
    even = error_pairs(labels, np.eye(3)[labels], np.full(60, 0.3))  # certain of each label, and yet some are wrong
    assert {(pair.label, pair.likely): round(pair.wrong, 6) for pair in even} == dict.fromkeys(
        itertools.permutations(range(3), 2), 3.0
    )


def test_rows_are_relabelled_where_the_suggestion_is_more_likely_right_than_not() -> None:
    table = pd.DataFrame({"suggestion_confidence": [0.9, 0.5, 0.1, 0.51, 0.7]})
    relabelled, dropped = split_relabels(table, np.array([3, 1, 0, 2]))
    assert relabelled.tolist() == [3, 0]
    assert dropped.tolist() == [1, 2]


def test_how_many_rows_queries_tell_of_is_said_beside_the_share() -> None:
    canary = np.arange(1100) >= 1000
    seen = np.random.default_rng(3).normal(size=1100)
    for density, alike in ((np.ones(1000), 1.0), (np.where(np.arange(1000) < 600, 0.0, 2.5), 0.4)):
        said = known(0.2, 0.05, density)
        found = error_rate(seen, canary, said, 2).rate
        assert found.alike == said.alike == pytest.approx(alike)
        assert found.share == error_rate(seen, canary, known(0.2, 0.05), 2).rate.share


@pytest.mark.parametrize("likely", [0.0, 0.4, 1.0])
def test_who_ranks_higher_is_no_less_likely_wrong_whatever_the_pattern_says(likely: float) -> None:
    rng = np.random.default_rng(0)
    share = Share(0.2, 0.1, 0.3)
    judged = Posterior(ErrorRate(share, share, None), np.array([0.2]), np.ones(1), np.array([[1.5, -1.0]]))
    suspicion, odds = rng.normal(size=200), rng.normal(size=200)
    found = confidence(suspicion, judged, pattern=Pattern(odds, likely)).probability
    order = np.argsort(-suspicion)
    assert (np.diff(found[order]) <= 0).all()
    mixed = likely / (1 + np.exp(-odds)) + (1 - likely) * judged.wrong(suspicion)
    np.testing.assert_allclose(np.sort(found), np.sort(mixed))  # as many are as likely wrong as before
