"""Ranks of configurations against plain loops, enumeration, closed forms and published examples."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thresher.errors import ConfigError, DataError
from thresher.evaluate.ranking import (
    friedman,
    fronts,
    holm,
    means,
    nemenyi,
    spearman_within,
    wilcoxon_holm,
    win_rate,
    win_shares,
)

# Demšar (2006), table 6: AUC of four variants of C4.5 on fourteen data sets. There, ranks were taken before rounding:
# on the last but one the third variant is above the fourth.
DEMSAR = pd.DataFrame(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ],
    columns=["C4.5", "+m", "+cf", "+m+cf"],
)


def table(runs: int, configurations: int, seed: int, values: int = 6) -> Any:
    """Outcomes of few values, so that there are ties."""
    drawn = np.random.default_rng(seed).integers(0, values, (runs, configurations)) / 10
    return pd.DataFrame(drawn, columns=[f"c{number}" for number in range(configurations)])


def true_fronts(outcomes: pd.DataFrame) -> dict[str, int]:
    names, runs = list(outcomes), range(len(outcomes))
    vectors: dict[str, list[float]] = {}
    for a in names:
        shares: Any = [sum(outcomes[a][r] > outcomes[b][r] for r in runs) / len(outcomes) for b in names]
        vectors[a] = [share if share > 0.5 else 0 for share in shares]
    found: dict[str, int] = {}
    number = 1
    while left := [name for name in names if name not in found]:
        for a in left:
            dominated = any(
                all(x >= y for x, y in zip(vectors[b], vectors[a], strict=True)) and vectors[a] != vectors[b]
                for b in left
            )
            if not dominated:
                found[a] = number
        number += 1
    return found


drawn = given(runs=st.integers(1, 7), configurations=st.integers(1, 7), seed=st.integers(0, 999))


@drawn
@settings(deadline=None, max_examples=60)
def test_win_rates_and_fronts_equal_plain_loops(runs: int, configurations: int, seed: int) -> None:
    outcomes = table(runs, configurations, seed)
    shares, rates = win_shares(outcomes), win_rate(outcomes)
    for a in outcomes:
        wins = {b: sum(outcomes[a][r] > outcomes[b][r] for r in range(runs)) / runs for b in outcomes}
        assert shares.loc[a].to_dict() == pytest.approx(wins)
        assert rates[a] == pytest.approx(sum(wins.values()) / configurations)
    assert fronts(outcomes).to_dict() == true_fronts(outcomes)


@drawn
@settings(deadline=None, max_examples=30)
def test_only_the_order_within_each_run_counts(runs: int, configurations: int, seed: int) -> None:
    outcomes = table(runs, configurations, seed)
    scale: Any = np.arange(1, runs + 1)[:, None]
    harder = np.exp(scale * outcomes) + 100 * scale
    assert win_shares(harder).equals(win_shares(outcomes))
    assert fronts(harder).equals(fronts(outcomes))
    assert friedman(harder).mean_ranks.equals(friedman(outcomes).mean_ranks)
    order = list(reversed(outcomes.columns))
    again: Any = fronts(outcomes[order])
    assert again[outcomes.columns].equals(fronts(outcomes))


def test_a_ladder_has_a_front_a_step_and_a_circle_only_one() -> None:
    ladder = pd.DataFrame({"a": [3.0, 30], "b": [2, 20], "c": [1, 10]})
    assert fronts(ladder).to_dict() == {"a": 1, "b": 2, "c": 3}
    assert win_rate(ladder).to_dict() == pytest.approx({"a": 2 / 3, "b": 1 / 3, "c": 0})
    circle = pd.DataFrame({"a": [3, 1, 2], "b": [2, 3, 1], "c": [1, 2, 3]})  # each wins two of three against the next
    assert fronts(circle).to_dict() == {"a": 1, "b": 1, "c": 1}
    even = pd.DataFrame({"a": [1, 2], "b": [2, 1]})  # one half is no win
    assert fronts(even).to_dict() == {"a": 1, "b": 1}
    assert win_rate(even).to_dict() == {"a": 0.25, "b": 0.25}


def test_equal_rates_reached_by_other_sums_are_equal() -> None:
    outcomes = pd.DataFrame({"a": [0.1 + 0.2], "b": [0.3]})
    assert outcomes.at[0, "a"] != outcomes.at[0, "b"]
    assert not win_shares(outcomes).to_numpy().any()


def test_means_have_the_interval_of_students_test() -> None:
    outcomes = table(8, 3, 1)
    found = means(outcomes)
    for name, values in outcomes.items():
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        line = found.loc[str(name)]
        assert (line["mean"] - line["margin_95"], line["mean"] + line["margin_95"]) == pytest.approx(interval)
    assert means(outcomes[:1])["margin_95"].isna().all()


def test_friedman_and_nemenyi_give_the_published_example() -> None:
    found = friedman(DEMSAR)
    assert found.mean_ranks.round(3).to_dict() == {"C4.5": 3.143, "+m": 2.0, "+cf": 2.893, "+m+cf": 1.964}
    # 9.28 there is without the correction for ties: three pairs, one quadruple.
    ties = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * (4**3 - 4))
    assert found.statistic == pytest.approx(9.28 / ties, rel=1e-3)
    assert found.p == pytest.approx(stats.chi2.sf(found.statistic, 3))
    # Its critical differences are 1.25 at .05 and 1.12 at .10.
    pairs = nemenyi(DEMSAR)
    for a, b in itertools.combinations(DEMSAR, 2):
        apart = abs(found.mean_ranks[a] - found.mean_ranks[b])
        assert (pairs.at[a, b] < 0.05, pairs.at[a, b] < 0.10) == (apart > 1.25, apart > 1.12)
        assert pairs.at[a, b] == pairs.at[b, a]
    assert ((pairs < 0.10).to_numpy().sum(), (pairs < 0.05).to_numpy().sum()) == (4, 0)


@pytest.mark.parametrize(("runs", "configurations"), [(2, 3), (9, 4), (20, 8)])
def test_nemenyi_is_the_tail_of_the_studentized_range(runs: int, configurations: int) -> None:
    outcomes = table(runs, configurations, 3)
    pairs, ranks = nemenyi(outcomes), friedman(outcomes).mean_ranks
    error = np.sqrt(configurations * (configurations + 1) / (12 * runs))
    for a, b in itertools.product(outcomes, repeat=2):
        expected = stats.studentized_range.sf(abs(ranks[a] - ranks[b]) / error, configurations, np.inf)
        assert pairs.at[a, b] == pytest.approx(1.0 if a == b else expected, abs=1e-9)


def test_friedman_says_where_it_is_not_defined_and_where_nothing_differs() -> None:
    outcomes = table(5, 3, 0)
    for small in (outcomes[["c0", "c1"]], outcomes[:1]):
        found = friedman(small)
        assert (found.statistic, found.p) == (None, None)
        assert found.mean_ranks.sum() == pytest.approx(sum(range(1, small.shape[1] + 1)))
    equal = friedman(outcomes * 0)
    assert (equal.statistic, equal.p, set(equal.mean_ranks)) == (0, 1, {2})


def enumerated(differences: list[float]) -> float:
    """Two-sided signed-rank p: over all signs that the differences other than 0 could have."""
    telling = [round(d, 6) for d in differences if round(d, 6)]
    if not telling:
        return 1.0
    sizes = [abs(d) for d in telling]
    ranks = [sum(other < size for other in sizes) + (sizes.count(size) + 1) / 2 for size in sizes]
    middle = sum(ranks) / 2
    observed = abs(sum(rank for rank, d in zip(ranks, telling, strict=True) if d > 0) - middle)
    signs = list(itertools.product([0, 1], repeat=len(ranks)))
    sums = [sum(rank * sign for rank, sign in zip(ranks, one, strict=True)) for one in signs]
    return sum(abs(total - middle) >= observed - 1e-9 for total in sums) / len(signs)


@given(runs=st.integers(1, 9), seed=st.integers(0, 999), values=st.integers(1, 9))
@settings(deadline=None, max_examples=40)
def test_wilcoxon_equals_an_enumeration_of_the_signs(runs: int, seed: int, values: int) -> None:
    outcomes = table(runs, 4, seed, values)
    found = wilcoxon_holm(outcomes, "c2")
    assert list(found.index) == ["c0", "c1", "c3"]
    for name, line in found.iterrows():
        differences = [a - b for a, b in zip(outcomes[str(name)], outcomes["c2"], strict=True)]
        assert line["difference"] == pytest.approx(sum(differences) / runs, abs=1e-9)
        assert line["p"] == pytest.approx(enumerated(differences))
    assert found["p_holm"].tolist() == holm(found["p"].tolist()).tolist()


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.4]).tolist() == pytest.approx([0.9, 0.8])
    assert holm([0.6, 0.6]).tolist() == [1, 1]
    assert holm([]).tolist() == []


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8), level=st.floats(0.001, 0.999))
def test_holm_rejects_what_stepping_down_rejects(p: list[float], level: float) -> None:
    rejected: set[int] = set()
    for step, number in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[number] * (len(p) - step) > level:
            break
        rejected.add(number)
    assert {number for number, value in enumerate(holm(p)) if value <= level} == rejected


def test_within_tasks_what_pooling_hides() -> None:
    # Easier tasks have more of both; within each of them the two go against each other.
    rows = [(task, 10 * task + i, 20 * task - i) for task in range(4) for i in range(6)]
    frame = pd.DataFrame(rows, columns=["task", "x", "y"])
    constant = pd.DataFrame({"task": 9, "x": [1.0, 2.0, np.inf], "y": 5.0})
    lacking = pd.DataFrame({"task": [0, 8], "x": [np.nan, 1.0], "y": [1.0, np.nan]})
    everything = pd.concat([frame, constant, lacking], ignore_index=True)
    found = spearman_within(everything, "x", "y", "task")
    told: Any = everything.dropna()
    pooled: Any = stats.spearmanr(told["x"], told["y"])
    assert found.pooled == pytest.approx(pooled.statistic)
    assert found.pooled > 0.4
    assert (found.within, found.groups, found.rows) == (pytest.approx(-1), 4, 27)
    assert spearman_within(everything.assign(seed=0), "x", "y", ["task", "seed"]) == found
    none = spearman_within(constant, "x", "y", "task")
    assert np.isnan([none.pooled, none.within]).all()
    assert (none.rows, none.groups) == (3, 0)


def test_what_cannot_be_ranked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = table(3, 3, 0)
    outcomes.index = pd.Index(["first", "second", "third"])
    with pytest.raises(DataError, match="Run second has no value of 'c1'"):
        fronts(outcomes.mask(np.outer(outcomes.index == "second", outcomes.columns == "c1")))
    with pytest.raises(DataError, match="at least one run"):
        win_rate(outcomes[:0])
    with pytest.raises(DataError, match="same name"):
        means(pd.concat([outcomes, outcomes], axis=1))
    with pytest.raises(DataError, match="no configuration 'other'"):
        wilcoxon_holm(outcomes, "other")
    monkeypatch.setitem(sys.modules, "scikit_posthocs", None)
    with pytest.raises(ConfigError, match=r"pip install 'thresher\[compare\]'"):
        nemenyi(outcomes)
