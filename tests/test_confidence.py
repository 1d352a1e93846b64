"""How sure it is that a row is wrong, how many rows are, and what they should be: against simulations with a truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from thresher.calibrate.candidates import Candidates
from thresher.calibrate.confidence import SURE, confidence
from thresher.calibrate.error_rate import ErrorRate, Known, Posterior, Share, error_rate
from thresher.calibrate.repair import mended, suggest

CASES = [(2, 0.1), (2, 0.3), (4, 0.1), (4, 0.35), (0, 0.2)]


def delta(errors: float, classes: int) -> float:
    return errors / (classes - 1) if classes else 0.0


def known(given: Any, clean: Any) -> Known:
    """What a probe says of rows like the queries."""
    return Known(given, clean, np.ones(len(given)))


def looks(row: Any, canary: Any) -> Candidates:
    """Looks without any candidates."""
    nothing = np.zeros(len(row), dtype=np.int64)
    return Candidates((), np.empty((len(row), 0), np.float32), np.array(row), np.array(canary), nothing)


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


def opinions(rng: np.random.Generator, wrong: Any, classes: int, right: float) -> Any:
    """A model's probability of each label: ``right`` on average of the right class, the rest of others."""
    of_right = rng.beta(3 * right, 3 * (1 - right), len(wrong))
    shares = rng.dirichlet(np.ones(classes - 1), len(wrong))[:, 0]
    return np.where(wrong, (1 - of_right) * shares, of_right)


SOURCES = {"canaries": (False, 3.0), "queries": (True, 0.0), "both": (True, 3.0)}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("classes", "errors"), [(2, 0.1), (2, 0.3), (4, 0.25), (7, 0.05)])
def test_intervals_hold_the_share_of_errors(classes: int, errors: float, source: str) -> None:
    """By canaries that can be told from other rows, by queries where they cannot, and closest by both."""
    asks, apart = SOURCES[source]
    rng = np.random.default_rng(0)
    wrong, canary = np.arange(600) < round(600 * errors), np.arange(660) >= 600
    found: list[ErrorRate] = []
    for _ in range(40):
        given, clean = opinions(rng, wrong, classes, 0.8), opinions(rng, np.zeros(200, bool), classes, 0.8)
        seen, _ = drawn(rng, 600, 60, errors, classes, apart)
        found.append(error_rate(seen, canary, known(given, clean) if asks else None, classes).rate)
    shares = [one.share for one in found]
    assert np.mean([share.low <= errors <= share.high for share in shares]) >= 0.9
    widest = {"canaries": 0.35, "queries": 0.25, "both": 0.2}[source]
    assert np.mean([share.high - share.low for share in shares]) < widest
    assert np.mean([share.estimate for share in shares]) == pytest.approx(errors, abs=0.06)
    assert np.mean([one.plausible is not False for one in found]) > 0.9


def test_canaries_that_are_easier_to_find_than_the_errors_are_not_believed() -> None:
    rng = np.random.default_rng(1)
    wrong, canary = np.arange(1000) < 300, np.arange(1100) >= 1000
    seen = rng.normal(size=1100) + np.where(canary, 6.0, np.arange(1100) < 300)
    given, clean = opinions(rng, wrong, 4, 0.8), opinions(rng, np.zeros(200, bool), 4, 0.8)
    found = error_rate(seen, canary, known(given, clean), 4).rate
    assert found.plausible is False
    assert found.canaries.high < 0.1
    assert 0.2 < found.share.estimate < 0.4
    assert found.share.low == found.canaries.low
    alike = error_rate(seen + 5 * (np.arange(1100) < 300), canary, known(given, clean), 4).rate
    assert alike.plausible is True
    assert alike.canaries.estimate == pytest.approx(0.3, abs=0.07)


def test_queries_that_tell_nothing_leave_it_to_the_canaries() -> None:
    rng = np.random.default_rng(2)
    seen, _ = drawn(rng, 600, 60, 0.1, 2, 3.0)
    canary = np.arange(660) >= 600
    by_chance = error_rate(seen, canary, known(rng.normal(0.5, 0.05, 600), rng.normal(0.5, 0.05, 150)), 2).rate
    assert by_chance == error_rate(seen, canary, None, 2).rate
    assert by_chance.plausible is None
    assert by_chance.share == by_chance.canaries


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


def test_rows_are_relabelled_where_the_suggestion_is_more_likely_right_than_not() -> None:
    table = pd.DataFrame({"suggestion_confidence": [0.9, 0.5, 0.1, 0.51, 0.7]})
    relabelled, dropped = mended(table, np.array([3, 1, 0, 2]))
    assert relabelled.tolist() == [3, 0]
    assert dropped.tolist() == [1, 2]


def test_rows_unlike_the_queries_do_not_count() -> None:
    """Most rows are of a kind that the probe is surer of, and no query is: taken alike, they seem to hold no errors."""
    rng, errors = np.random.default_rng(3), 0.2
    canary = np.arange(1100) >= 1000
    like, alone = [], []
    for _ in range(20):
        wrong, unlike = rng.random(1000) < errors, np.arange(1000) < 600
        given = np.where(unlike, opinions(rng, wrong, 2, 0.95), opinions(rng, wrong, 2, 0.75))
        said = Known(given, opinions(rng, np.zeros(200, bool), 2, 0.75), np.where(unlike, 0.0, 2.5))
        assert said.alike == pytest.approx(0.4)
        seen, _ = drawn(rng, 1000, 100, errors, 2, 0.0)
        found = error_rate(seen, canary, said, 2).rate
        assert found.alike == said.alike
        like.append(found.share)
        alone.append(error_rate(seen, canary, known(given, said.clean), 2).rate.share)
    assert np.mean([share.estimate for share in like]) == pytest.approx(errors, abs=0.06)
    assert np.mean([share.low <= errors <= share.high for share in like]) >= 0.9
    assert np.mean([share.estimate for share in alone]) < 0.1
