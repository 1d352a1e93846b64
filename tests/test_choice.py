"""What ranks the rows: places, the combination and the choice, on looks whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from simulated import MANY, NAMES, simulated
from thresher.auditing.looks import rounds_as_given
from thresher.auditing.run import RunDirectory
from thresher.calibration.candidates import Candidates, ScoredRound, normal, side_by_side
from thresher.calibration.choice import FOLDS, STRENGTHS, WITNESSES, Pattern, auroc_error, choose, folds
from thresher.calibration.stack import (
    Stack,
    family_of,
    fit_stack,
    found_canaries,
    of_frozen_features,
    witnesses,
)
from thresher.detectors.families import ORDER, OWN
from thresher.scores.names import Configuration, DetectorScore, ScoreName, score_called

FAMILIES = {family.name: family for family in ORDER if family != OWN}
WEAK = 1e-9
RIVAL = Configuration("cosine", "CL", "rank")


def scored(rows: Any, canary: Any, **scores: Any) -> ScoredRound:
    named: dict[ScoreName, Any] = {DetectorScore(name): values for name, values in scores.items()}
    return ScoredRound(np.array(rows), np.array(canary, dtype=bool), named)


def everything(candidates: Candidates) -> Any:
    return np.ones(len(candidates.row), dtype=bool)


def features(candidates: Candidates, stack: Stack) -> dict[str, Any]:
    """Each family's mean normal deviate, larger = more suspicious, by a loop over its members."""
    return {
        family: -sum(ndtri(candidates.column(name)) for name in names) / len(names)
        for family, names in stack.members.items()
    }


def test_places_are_ranks_within_the_round_and_ties_share_the_middle() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.integers(0, 9, size=20).astype(float), rng.integers(0, 9, size=30).astype(float) + 100]
    found = side_by_side([scored(np.arange(len(one)) % 20, np.arange(len(one)) == 2, mine=one) for one in scores])
    truth = [(rankdata(one, method="average") - 0.5) / len(one) for one in scores]
    np.testing.assert_allclose(found.column(DetectorScore("mine")), np.concatenate(truth), rtol=1e-6)
    np.testing.assert_allclose(normal(found.places[:, 0]), ndtri(np.concatenate(truth)), rtol=1e-5)
    assert found.row.tolist() == [*range(20), *range(20), *range(10)]
    assert found.canary.sum() == 2
    assert found.rows == 20


def test_candidates_that_say_nothing_in_a_round_are_left_out() -> None:
    changes, constant = np.arange(4.0), np.ones(4)
    both = [
        scored(range(4), [1, 0, 0, 0], x=changes, y=changes, z=changes, random=changes),
        scored(range(4), [0, 1, 0, 0], x=changes, y=constant, random=changes),
    ]
    assert side_by_side(both).names == (DetectorScore("x"),)


def test_merged_is_the_mean_over_looks_at_the_row_as_given() -> None:
    candidates, _ = simulated(0, rows=40, share=0.1, rounds=3)
    values = np.random.default_rng(1).normal(size=120)
    truth = [
        np.mean(
            [
                v
                for v, row, canary in zip(values, candidates.row, candidates.canary, strict=True)
                if row == i and not canary
            ]
        )
        for i in range(40)
    ]
    np.testing.assert_allclose(candidates.merged(values), truth)
    copies = replace(candidates, row=candidates.row % 20, canary=np.arange(120) >= 20)
    np.testing.assert_allclose(copies.merged(values), values[:20])


def test_rows_are_looked_up_in_the_first_round_in_which_they_are_as_given(tmp_path: Path) -> None:
    run_dir = RunDirectory(tmp_path)
    for number, canaries in enumerate([(1, 4), (0, 2), (3, 5)]):
        run_dir.round(number).path.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame({"row": range(6), "canary": np.isin(np.arange(6), canaries)})
        frame.to_parquet(run_dir.round(number).candidates)
    assert rounds_as_given(run_dir, [4, 0, 3, 1]) == {0: [0, 3], 1: [4, 1]}
    assert rounds_as_given(run_dir, [5, 2]) == {0: [5, 2]}
    assert rounds_as_given(run_dir, []) == {}


def test_a_strong_prior_is_kept_and_families_without_candidates_are_skipped() -> None:
    candidates, _ = simulated(0, classes=3)
    found = fit_stack(candidates, everything(candidates), 1e9)
    assert found.weights == pytest.approx({name: family.prior for name, family in FAMILIES.items()}, abs=1e-4)
    few, _ = simulated(0, names=("detector/loss", "tracin/all/mean"))
    assert set(fit_stack(few, everything(few), 10).members) == {"training", "influence"}


def test_without_a_prior_the_weights_are_those_of_plain_logistic_regression() -> None:
    candidates, _ = simulated(1, rows=3000, errors=0, apart=0.8)
    found = fit_stack(candidates, everything(candidates), WEAK)
    matrix = np.stack(list(features(candidates, found).values()), axis=1)
    truth = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(matrix, candidates.canary)
    assert truth.coef_.min() > 0.1
    np.testing.assert_allclose(list(found.weights.values()), truth.coef_[0], rtol=2e-3)
    assert found.intercept == pytest.approx(truth.intercept_[0], rel=2e-3)


def test_suspicion_is_the_weighted_sum_of_the_families() -> None:
    candidates, _ = simulated(2, names=MANY)
    found = fit_stack(candidates, everything(candidates), 10)
    by_hand = found.intercept + sum(found.weights[family] * one for family, one in features(candidates, found).items())
    np.testing.assert_allclose(found.suspicion(candidates), by_hand)
    assert np.ptp(by_hand) > 1


def test_the_law_of_the_errors_by_features_before_training_weighs_most_and_none_weighs_less_than_nothing() -> None:
    priors = {name: family.prior for name, family in FAMILIES.items()}
    assert max(priors, key=lambda name: priors[name]) == "frozen law"
    assert priors["frozen law"] > priors["tuned law"] > 0
    assert min(priors.values()) > 0


def test_families_by_the_model_as_it_came_are_of_frozen_features_alone() -> None:
    kept = [name for name in NAMES if of_frozen_features(name)]
    assert kept == [DetectorScore(name) for name in ("probe_frozen", "knn_frozen", "noise_frozen")]


def test_no_weight_is_negative_even_where_a_family_speaks_against_itself() -> None:
    candidates, _ = simulated(3, apart_by_name={"detector/knn_frozen": -2, "detector/knn_tuned": -2})
    for strength in (WEAK, 10):
        found = fit_stack(candidates, everything(candidates), strength)
        assert found.weights["frozen neighbours"] == found.weights["tuned neighbours"] == 0
        assert min(found.weights.values()) >= 0


@pytest.mark.parametrize("strength", [1.0, 30.0])
def test_the_fit_is_where_the_penalised_cost_is_least(strength: float) -> None:
    candidates, _ = simulated(4, classes=3, apart_by_name={"detector/knn_frozen": -1})
    used = np.arange(len(candidates.row)) % 4 > 0
    found = fit_stack(candidates, used, strength)
    prior = np.array([FAMILIES[family].prior for family in found.members])
    columns = np.stack(list(features(candidates, found).values()), axis=1)[used]

    def cost(point: Any) -> float:
        odds = columns @ point[:-1] + point[-1]
        away = point[:-1] - prior
        loss = np.logaddexp(0, odds).sum() - odds[candidates.canary[used]].sum()
        return float(loss + strength / 2 * (away @ away))

    best = np.array([*found.weights.values(), found.intercept])
    slopes = np.array([(cost(best + step) - cost(best - step)) / 2e-4 for step in 1e-4 * np.eye(len(best))])
    at_bound = best == 0
    assert [name for name, bound in zip(found.members, at_bound, strict=False) if bound] == ["frozen neighbours"]
    assert slopes[~at_bound] == pytest.approx(0, abs=0.02)
    assert slopes[at_bound].min() > 0


def test_members_are_those_that_find_the_canaries_best() -> None:
    candidates, _ = simulated(5, names=MANY)
    used = np.random.default_rng(0).random(len(candidates.row)) < 0.7
    truth = [1 - np.mean(candidates.column(name)[used & candidates.canary]) for name in MANY]
    np.testing.assert_allclose(found_canaries(candidates, used), truth, rtol=1e-6)
    best = sorted(range(len(MANY)), key=lambda place: -truth[place])
    members = fit_stack(candidates, used, 10).members
    for family, names in members.items():
        known = [MANY[place] for place in best if family_of(MANY[place]) == FAMILIES[family]]
        assert list(names) == known[: FAMILIES[family].most]
    assert len(members["influence"]) == 5


def test_all_looks_at_a_row_are_in_one_fold_and_canaries_are_spread() -> None:
    candidates, _ = simulated(6, rows=103, rounds=4)
    fold = folds(candidates, 3)
    assert all(len(set(fold[candidates.row == row])) == 1 for row in range(103))
    assert np.ptp(np.bincount(fold[candidates.canary], minlength=FOLDS)) <= 1
    assert np.ptp(np.bincount(fold)) <= 4
    assert (fold != folds(candidates, 4)).any()


def test_where_nothing_finds_canaries_nothing_seems_to() -> None:
    drawn = [simulated(seed, apart=0, names=MANY)[0] for seed in range(12)]
    found = [choose(candidates, seed) for seed, candidates in enumerate(drawn)]
    for name in ("combination", "single"):
        assert np.mean([chosen.auroc[name] for chosen in found]) == pytest.approx(0.5, abs=0.05)
    fitted = [roc_auc_score(one.canary, chosen.stack.suspicion(one)) for one, chosen in zip(drawn, found, strict=True)]
    assert np.mean(fitted) > np.mean([chosen.auroc["combination"] for chosen in found]) + 0.05


def test_held_out_suspicion_is_what_the_reported_auroc_is_of() -> None:
    candidates, _ = simulated(10, names=MANY)
    chosen = choose(candidates, 0)
    assert chosen.combined
    assert roc_auc_score(candidates.canary, chosen.held_out) == pytest.approx(chosen.auroc["combination"])
    assert roc_auc_score(candidates.canary, chosen.suspicion) > chosen.auroc["combination"]


@pytest.mark.parametrize("seed", range(3))
def test_the_strength_is_the_largest_that_is_about_as_good_as_the_best(seed: int) -> None:
    candidates, _ = simulated(seed, rows=1500, apart=0.4 * seed)
    fold = folds(candidates, seed)
    losses: dict[float, Any] = {}
    for strength in STRENGTHS:
        odds = np.empty(len(fold))
        for number in range(FOLDS):
            without = fit_stack(candidates, fold != number, strength)
            odds[fold == number] = without.suspicion(candidates)[fold == number]
        chance = 1 / (1 + np.exp(-odds))
        losses[strength] = -np.log(np.where(candidates.canary, chance, 1 - chance))
    best = min(STRENGTHS, key=lambda strength: losses[strength].mean())
    more = {strength: losses[strength] - losses[best] for strength in STRENGTHS}
    close = [strength for strength in STRENGTHS if more[strength].mean() <= more[strength].std() / np.sqrt(len(fold))]
    assert choose(candidates, seed).stack.strength == max(close)


def test_a_single_candidate_that_is_far_better_wins() -> None:
    candidates, _ = simulated(7, errors=0, apart=0, apart_by_name={"cosine/CL/rank": 6})
    chosen = choose(candidates, 0)
    assert not chosen.combined
    assert chosen.single == RIVAL and chosen.name == "cosine/CL/rank"
    assert chosen.auroc["single"] > 0.99 > chosen.auroc["combination"]
    np.testing.assert_array_equal(rankdata(-chosen.suspicion), rankdata(candidates.column(RIVAL)))
    alike, _ = simulated(7, errors=0, apart=1)
    assert choose(alike, 0).name == "auto"


@pytest.mark.parametrize("apart", [0.5, 1.5, 3.0])
def test_the_error_of_an_auroc_is_what_it_varies_by(apart: float) -> None:
    rng = np.random.default_rng(0)
    flags = np.arange(400) < 40

    def auroc(scores: Any) -> float:
        return float((rankdata(scores)[:40].mean() - 20.5) / 360)

    drawn = [auroc(rng.exponential(np.where(flags, 1 + apart, 1))) for _ in range(4000)]
    assert auroc_error(float(np.mean(drawn)), flags) == pytest.approx(np.std(drawn), rel=0.05)
    sample = rng.normal(size=400) + apart * flags
    again = [np.concatenate([rng.choice(40, 40), 40 + rng.choice(360, 360)]) for _ in range(1000)]
    bootstrap = np.std([auroc(sample[looks]) for looks in again])
    assert 0.8 < auroc_error(auroc(sample), flags) / bootstrap < 2  # too wide where nearly all are found


def test_suspicion_is_close_to_the_true_log_odds() -> None:
    rng = np.random.default_rng(8)
    names = ("tracin/all/mean", "detector/loss", "detector/probe_frozen", "detector/knn_frozen")
    rows, weights = 8000, np.array([0.4, 0.3, 0.9, 0.2])
    scores = rng.normal(size=(rows, 4))
    named = dict(zip(map(score_called, names), scores.T, strict=True))
    candidates = side_by_side([ScoredRound(np.arange(rows), np.zeros(rows, bool), named)])
    odds = -ndtri(candidates.places.astype(float)) @ weights - 3
    candidates = replace(candidates, canary=rng.random(rows) < 1 / (1 + np.exp(-odds)))
    chosen = choose(candidates, 0)
    assert chosen.combined
    for found in (chosen.suspicion, chosen.held_out):
        assert np.sqrt(np.mean((found - odds) ** 2)) < 0.25
        assert np.mean(1 / (1 + np.exp(-found))) == pytest.approx(candidates.canary.mean(), rel=0.05)


def test_the_choice_does_not_depend_on_the_order_of_the_looks() -> None:
    candidates, _ = simulated(9, classes=3)
    order = np.random.default_rng(0).permutation(len(candidates.row))
    parts = {name: getattr(candidates, name)[order] for name in ("places", "row", "canary")}
    here, there = choose(candidates, 5), choose(Candidates(NAMES, **parts), 5)
    assert (here.name, here.single, here.stack.members) == (there.name, there.single, there.stack.members)
    np.testing.assert_allclose(there.suspicion, here.suspicion[order], atol=1e-2)
    assert here.auroc == pytest.approx(there.auroc, abs=1e-3)
    assert choose(candidates, 5).suspicion.tolist() == here.suspicion.tolist()


def odds_of(candidates: Candidates) -> Any:
    """Log odds that have nothing to do with any candidate."""
    return np.random.default_rng(11).normal(size=len(candidates.row))


@pytest.mark.parametrize("better", [{}, {"cosine/CL/rank": 6.0}], ids=["combination", "single"])
def test_where_no_pattern_is_likely_the_law_changes_nothing(better: dict[str, float]) -> None:
    candidates, _ = simulated(7, errors=0, apart=0.0 if better else 1.0, apart_by_name=better)
    found, plain = choose(candidates, 0, Pattern(odds_of(candidates), 0.0)), choose(candidates, 0)
    assert found.combined == plain.combined == (not better)
    assert (found.name, found.single, found.stack, found.auroc) == (plain.name, plain.single, plain.stack, plain.auroc)
    np.testing.assert_array_equal(found.suspicion, plain.suspicion)
    np.testing.assert_array_equal(found.held_out, plain.held_out)
    assert found.patterned == plain.patterned == 0


@pytest.mark.parametrize("better", [{}, {"cosine/CL/rank": 6.0}], ids=["combination", "single"])
def test_where_a_pattern_is_certain_the_law_speaks_alone(better: dict[str, float]) -> None:
    candidates, _ = simulated(7, errors=0, apart=0.0 if better else 1.0, apart_by_name=better)
    odds = odds_of(candidates)
    found = choose(candidates, 0, Pattern(odds, 1.0))
    assert found.combined and found.name == "auto" and found.patterned == 1
    np.testing.assert_array_equal(found.suspicion, odds)
    np.testing.assert_array_equal(found.held_out, odds)
    assert found.auroc["combination"] == pytest.approx(roc_auc_score(candidates.canary, odds))


@pytest.mark.parametrize("likely", [0.2, 0.5, 0.9])
def test_otherwise_law_and_combination_count_by_the_probability_of_a_pattern(likely: float) -> None:
    candidates, _ = simulated(9, classes=3)
    odds, plain = odds_of(candidates), choose(candidates, 0)
    found = choose(candidates, 0, Pattern(odds, likely))
    assert plain.combined and found.combined and found.patterned == likely
    assert found.stack == plain.stack
    np.testing.assert_allclose(found.suspicion, likely * odds + (1 - likely) * plain.suspicion)
    np.testing.assert_allclose(found.held_out, likely * odds + (1 - likely) * plain.held_out)
    assert found.auroc["combination"] == pytest.approx(roc_auc_score(candidates.canary, found.held_out))
    assert found.auroc["single"] == plain.auroc["single"]


def test_a_single_candidate_never_stands_for_a_pattern_that_is_more_likely_than_not() -> None:
    candidates, _ = simulated(7, errors=0, apart=0, apart_by_name={"cosine/CL/rank": 6})
    chosen = {likely: choose(candidates, 0, Pattern(odds_of(candidates), likely)) for likely in (0.4, 0.6)}
    assert (chosen[0.4].name, chosen[0.6].name) == ("cosine/CL/rank", "auto")
    np.testing.assert_array_equal(rankdata(-chosen[0.4].suspicion), rankdata(candidates.column(RIVAL)))


def test_beside_the_law_of_a_pattern_witnesses_are_heard() -> None:
    """Mean over all layers, of influences that tell queries apart: no other group or aggregation, and no vote."""
    heard = [Configuration(influence, "layers", "mean") for influence in ("tracin", "cosine")]
    others = ("self_influence/layers/mean", "tracin/all/mean", "tracin/layers/rank", "cosine/layers/vote@0.3")
    candidates, _ = simulated(12, names=(*heard, *others, "detector/loss"))
    odds = odds_of(candidates)
    by_hand = -(ndtri(candidates.column(heard[0])) + ndtri(candidates.column(heard[1]))) / 2
    np.testing.assert_allclose(witnesses(candidates), by_hand)
    plain, found = choose(candidates, 0), choose(candidates, 0, Pattern(odds, 0.6))
    assert plain.combined
    np.testing.assert_allclose(found.suspicion, 0.6 * (odds + WITNESSES * by_hand) + 0.4 * plain.suspicion)
    np.testing.assert_allclose(found.held_out, 0.6 * (odds + WITNESSES * by_hand) + 0.4 * plain.held_out)
    assert not witnesses(candidates.only(lambda name: name not in heard)).any()
