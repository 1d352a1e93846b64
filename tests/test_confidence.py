"""How sure it is that a row is wrong, how many rows are, and what they should be: against simulations with a truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from simulated import simulated
from thresher.calibrate.candidates import Candidates
from thresher.calibrate.choice import choose
from thresher.calibrate.confidence import ErrorRate, confidence, error_rate, upper_bound
from thresher.calibrate.repair import mended, suggest

CASES = [(2, 0.1), (2, 0.3), (4, 0.1), (4, 0.35), (0, 0.2)]


def delta(errors: float, classes: int) -> float:
    return errors / (classes - 1) if classes else 0.0


def rate(estimate: float) -> ErrorRate:
    return ErrorRate(estimate, 0.0, 1.0, "queries", (1.0, 1.0), None)


def looks(row: Any, canary: Any) -> Candidates:
    """Looks without any candidates."""
    nothing = np.zeros(len(row), dtype=np.int64)
    return Candidates((), np.empty((len(row), 0), np.float32), np.array(row), nothing, np.array(canary), nothing)


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
        found = confidence(looks(np.arange(23000) % 20000, canary), suspicion, suspicion, rate(errors), classes)
        truth = posterior(seen[:20000], errors, 2.5)
        assert np.abs(found.probability - truth).max() < 0.05
        assert found.more_likely_wrong == pytest.approx((truth > 0.5).sum(), rel=0.05)


@pytest.mark.parametrize(("classes", "errors"), CASES)
def test_q_values_are_the_share_of_right_rows_down_to_there(classes: int, errors: float) -> None:
    rng = np.random.default_rng(classes)
    seen, wrong = drawn(rng, 40000, 4000, errors, classes, 2.5)
    canary = np.arange(44000) >= 40000
    found = confidence(looks(np.arange(44000) % 40000, canary), seen, seen, rate(errors), classes)
    order = np.argsort(-seen[:40000])
    for depth in (1000, 4000, 8000, 20000):
        top = order[:depth]
        assert found.q_value[top[-1]] == pytest.approx((~wrong[top]).mean(), abs=0.015)
        assert found.q_value[top].max() == found.q_value[top[-1]]


def test_a_row_seen_twice_is_judged_by_the_mean_of_both() -> None:
    rng = np.random.default_rng(0)
    row, canary = np.tile(np.arange(200), 2), np.arange(400) < 30
    held_out = rng.normal(size=400) + 2 * canary
    each = rng.normal(size=400)
    mean = np.where(canary, each, (each + np.roll(each, 200)) / 2)
    mean[200:230] = each[200:230]  # the rows that were canaries once are seen once
    found, same = (confidence(looks(row, canary), values, held_out, rate(0.2), 4) for values in (each, mean))
    np.testing.assert_allclose(found.probability, same.probability)
    assert np.ptp(found.probability) > 0.1


def opinions(rng: np.random.Generator, wrong: Any, classes: int, right: float) -> Any:
    """A model's probability of each label: ``right`` on average of the right class, the rest of others."""
    of_right = rng.beta(3 * right, 3 * (1 - right), len(wrong))
    shares = rng.dirichlet(np.ones(classes - 1), len(wrong))[:, 0]
    return np.where(wrong, (1 - of_right) * shares, of_right)


@pytest.mark.parametrize(("classes", "errors"), [(2, 0.1), (4, 0.25), (7, 0.05)])
def test_clean_queries_tell_how_many_rows_are_wrong(classes: int, errors: float) -> None:
    rng = np.random.default_rng(0)
    wrong = np.arange(600) < 600 * errors
    found: list[ErrorRate] = []
    for seed in range(300):
        given, clean = opinions(rng, wrong, classes, 0.7), opinions(rng, np.zeros(150, bool), classes, 0.7)
        seen, _ = drawn(rng, 600, 60, errors, classes, 2.0)
        candidates = looks(np.arange(660) % 600, np.arange(660) >= 600)
        found.append(error_rate(candidates, seen, given, clean, classes, seed))
    assert {one.source for one in found} == {"queries"}
    assert 0.9 <= np.mean([one.low <= errors <= one.high for one in found]) <= 0.99
    unclipped = [one.estimate for one in found if one.estimate > 0]
    assert np.mean(unclipped) == pytest.approx(errors, abs=0.015)
    assert np.mean([bool(one.plausible) for one in found]) > 0.97


def test_canaries_that_are_easier_to_find_than_the_errors_are_not_believed() -> None:
    rng = np.random.default_rng(1)
    wrong = np.arange(1000) < 300
    canary = np.arange(1100) >= 1000
    candidates = looks(np.arange(1100) % 1000, canary)
    seen = rng.normal(size=1100) + np.where(canary, 6.0, np.arange(1100) < 300)
    given, clean = opinions(rng, wrong, 4, 0.8), opinions(rng, np.zeros(200, bool), 4, 0.8)
    found = error_rate(candidates, seen, given, clean, 4, 0)
    assert found.plausible is False
    assert found.bound[1] < 0.1 < found.low < 0.3 < found.high
    alike = error_rate(candidates, seen + 5 * (np.arange(1100) < 300), given, clean, 4, 0)
    assert alike.plausible is True
    assert alike.bound[0] == pytest.approx(0.3, abs=0.05)


def test_queries_that_tell_nothing_leave_it_to_the_canaries() -> None:
    rng = np.random.default_rng(2)
    seen, _ = drawn(rng, 600, 60, 0.1, 2, 3.0)
    candidates = looks(np.arange(660) % 600, np.arange(660) >= 600)
    by_chance = error_rate(candidates, seen, rng.normal(0.5, 0.05, 600), rng.normal(0.5, 0.05, 150), 2, 0)
    assert by_chance == error_rate(candidates, seen, None, None, 2, 0)
    assert (by_chance.source, by_chance.plausible, by_chance.low) == ("canaries", None, 0.0)
    assert (by_chance.estimate, by_chance.high) == by_chance.bound


@pytest.mark.parametrize("apart", [8.0, 2.5, 0.5])
@pytest.mark.parametrize(("classes", "errors", "canaries"), [(2, 0.2, 60), (4, 0.05, 100), (0, 0.1, 300), (2, 0.3, 8)])
def test_the_upper_bound_holds(classes: int, errors: float, canaries: int, apart: float) -> None:
    rng = np.random.default_rng(3)
    rows = 20 * canaries
    canary = np.arange(rows + canaries) >= rows
    bounds = [upper_bound(drawn(rng, rows, canaries, errors, classes, apart)[0], canary, classes) for _ in range(200)]
    assert np.mean([high >= errors for _, high in bounds]) > 0.95
    assert all(0 <= estimate <= high <= 1 for estimate, high in bounds)
    if apart == 8 and canaries > 8:  # canaries and errors are all there is above
        assert np.mean([estimate for estimate, _ in bounds]) == pytest.approx(errors, rel=0.1)
        assert np.mean([high for _, high in bounds]) < 1.5 * errors


def test_the_upper_bound_of_what_was_fitted_to_the_canaries_needs_folds() -> None:
    held = fitted = 0
    for seed in range(12):
        candidates, wrong = simulated(seed, rows=600, errors=0.2, apart=2, names=[f"a{k}/all/mean" for k in range(60)])
        chosen = choose(candidates, seed)
        held += upper_bound(chosen.held_out, candidates.canary, 2)[1] >= wrong.mean()
        fitted += upper_bound(chosen.suspicion, candidates.canary, 2)[1] >= wrong.mean()
    assert held >= 10
    assert fitted < held


def test_an_upper_bound_is_never_that_there_are_no_errors() -> None:
    canary = np.arange(1050) >= 1000
    estimate, high = upper_bound(np.where(canary, 5.0, 0.0) + np.linspace(0, 1, 1050), canary, 4)
    assert estimate == 0
    assert 3 / 1000 < high < 15 / 1000  # the rule of three says 3 of 1000 at least


@pytest.mark.parametrize(("classes", "most"), [(2, 0.5), (4, 0.75), (0, 1.0)])
def test_looks_that_tie_bound_nothing(classes: int, most: float) -> None:
    canary = np.arange(500) < 50
    assert most <= upper_bound(np.zeros(500), canary, classes)[0] < most + 0.02


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
