"""Mean, Rank and Vote-k against the formulas of method.md 4, written out with loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import thresher
from thresher.config import Aggregation
from thresher.errors import ConfigError, DataError
from thresher.influences.driver import Part
from thresher.influences.registry import INFLUENCE
from thresher.model.names import ModuleName
from thresher.scores.names import Configuration, DetectorScore, configuration_called, resolve, score_called
from thresher.scores.sinks import ScoreSink
from thresher.scores.table import available, lowest
from thresher.tensors import Shelf

Floats = npt.NDArray[np.float32]


def tensor(values: Floats, correct: Any = None) -> xr.DataArray:
    coords = {} if correct is None else {"correct": ("query", np.asarray(correct))}
    return xr.DataArray(values, dims=("module", "query", "train"), coords=coords)


def by_loops(values: Floats, how: str, k: int) -> npt.NDArray[np.float64]:
    modules, queries, rows = values.shape
    scores = np.zeros(rows)
    for column in values.reshape(modules * queries, rows):
        for i in range(rows):
            rank = int((column < column[i]).sum())
            scores[i] += {"mean": float(column[i]), "rank": rank, "vote": -max(k - rank, 0)}[how]
    return scores / (modules * queries) if how == "mean" else scores


# Few different values, so that ties are common.
matrices = arrays(
    np.float32, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 9)), elements=st.integers(-4, 4)
)


@given(values=matrices, how=st.sampled_from(["mean", "rank", "vote"]), share=st.floats(0.1, 1.0))
@settings(deadline=None, max_examples=60)
def test_scores_equal_the_formulas(values: Floats, how: Aggregation, share: float) -> None:
    k = max(1, int(share * values.shape[2] + 1e-9))
    found = thresher.aggregate(tensor(values), how, k=k if how == "vote" else None)
    expected = by_loops(values, how, k)
    if how == "vote":  # a column in which all rows tie does not vote: the formula gives every row the same k
        constant = sum(len(np.unique(column)) == 1 for column in values.reshape(-1, values.shape[2]))
        expected = expected + k * constant
    assert np.allclose(found.values, expected)
    assert found.dims == ("train",)


@given(values=matrices)
@settings(deadline=None, max_examples=30)
def test_rank_and_vote_see_only_the_order_within_a_column(values: Floats) -> None:
    stretched = np.sinh(values * 3).astype(np.float32) + np.float32(7)
    for how in ("rank", "vote"):
        assert np.array_equal(thresher.aggregate(tensor(values), how), thresher.aggregate(tensor(stretched), how))


@given(values=matrices, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_scores_follow_the_rows_when_they_are_reordered(values: Floats, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(values.shape[2])
    for how in ("mean", "rank", "vote"):
        plain = thresher.aggregate(tensor(values), how).values
        assert np.allclose(thresher.aggregate(tensor(values[:, :, order]), how).values, plain[order])


def test_rank_and_vote_use_only_queries_predicted_correctly() -> None:
    values = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    correct = np.array([True, False, True, False, False])
    whole = tensor(values, correct)
    for how in ("rank", "vote"):
        expected = thresher.aggregate(tensor(values[:, correct]), how)
        assert np.array_equal(thresher.aggregate(whole, how), expected)
        assert np.array_equal(thresher.aggregate(whole, how, queries=correct), expected)
        assert np.array_equal(thresher.aggregate(whole, how, queries=[0, 2]), expected)
        assert not np.array_equal(thresher.aggregate(whole, how, queries="all"), expected)
    assert np.allclose(thresher.aggregate(whole, "mean"), values.mean(axis=(0, 1)))
    assert np.allclose(thresher.aggregate(whole, "mean", queries="correct"), values[:, correct].mean(axis=(0, 1)))


def test_k_is_a_share_or_a_count() -> None:
    whole = tensor(np.random.default_rng(0).normal(size=(2, 5, 10)).astype(np.float32))
    three = thresher.aggregate(whole, "vote", k=3)
    assert np.array_equal(thresher.aggregate(whole, "vote"), three)
    assert np.array_equal(thresher.aggregate(whole, "vote", k=0.3), three)
    assert np.array_equal(thresher.aggregate(whole, "vote", k=1.0), thresher.aggregate(whole, "vote", k=10))


def test_a_module_whose_gradient_is_zero_does_not_vote() -> None:
    values = np.random.default_rng(0).normal(size=(2, 4, 12)).astype(np.float32)
    silent = np.concatenate([values, np.zeros((1, 4, 12), np.float32)])
    for how in ("rank", "vote"):
        assert np.array_equal(thresher.aggregate(tensor(silent), how), thresher.aggregate(tensor(values), how))


def test_modules_where_a_method_is_not_defined_are_left_out() -> None:
    values = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    missing = np.concatenate([values, np.full((1, 4, 6), np.nan, np.float32)])
    for how in ("mean", "rank", "vote"):
        assert np.array_equal(thresher.aggregate(tensor(missing), how), thresher.aggregate(tensor(values), how))
    values[0, 1, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        thresher.aggregate(tensor(values), "rank")


@pytest.mark.parametrize(
    "options",
    [
        {"how": "median"},
        {"how": "vote", "k": 0},
        {"how": "vote", "k": 1.5},
        {"how": "vote", "k": 11},
        {"how": "rank", "queries": "some"},
        {"how": "rank", "queries": "correct"},
        {"how": "rank", "queries": []},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        thresher.aggregate(tensor(np.ones((1, 2, 10), np.float32)), **options)


def test_the_table_of_all_scores_agrees_with_aggregating_each_group() -> None:
    groups = ["WE", "1", "1", "2", "3", "4", "CL", "other"]
    modules = [
        ModuleName(f"m{i}", "layer" if g in "1234" else "head", 0, "-", "weight", g, 1)  # pyright: ignore
        for i, g in enumerate(groups)
    ]
    values = np.random.default_rng(0).normal(size=(len(groups), 5, 20)).astype(np.float32)
    dataset = xr.Dataset(
        {"tracin": (("module", "query", "train"), values)},
        coords={"correct": ("query", np.array([True, True, False, True, False]))},
    )
    sink, every = ScoreSink(modules, ["tracin"], (0.2, 0.3), Shelf()), Part(0, np.arange(20))
    sink.open(dataset["correct"].values, [every])
    for number, matrix in enumerate(values):
        sink.add(every, number, {"tracin": matrix})
    scores = sink.close(every)["scores"].numpy().T
    configurations = available(modules, ["tracin"], (0.2, 0.3))
    assert len(scores) == len(configurations)
    assert {configuration.group for configuration in configurations} == {
        "WE",
        "1",
        "2",
        "3",
        "4",
        "CL",
        "layers",
        "all",
    }
    for configuration, found in zip(configurations, scores, strict=True):
        wanted = {"layers": groups[1:6], "all": groups}.get(configuration.group, [configuration.group])
        chosen = dataset["tracin"][[i for i, group in enumerate(groups) if group in wanted]]
        expected = thresher.aggregate(chosen, configuration.aggregation, k=configuration.k)
        assert np.allclose(found, expected), configuration.name


@given(
    influence=st.sampled_from(list(INFLUENCE)),
    group=st.sampled_from(["WE", "1", "CL", "layers", "all"]),
    how=st.sampled_from(["mean", "rank", "vote"]),
    k=st.one_of(st.sampled_from([1.0, 0.3, 0.05]), st.floats(1e-7, 1).map(lambda k: float(f"{k:g}"))),
)
def test_a_configuration_is_what_its_name_says(influence: str, group: str, how: Aggregation, k: float) -> None:
    one = Configuration(influence, group, how, k if how == "vote" else None)
    assert configuration_called(one.name) == score_called(one.name) == one


@pytest.mark.parametrize(
    "name",
    [
        "detector/loss",
        "detector/all/mean",
        "auto",
        "score",
        "tracin/all",
        "tracin/all/sum",
        "tracin/all/vote",
        "tracin/all/mean@0.3",
        "tracin/all/vote@",
        "tracin/all/vote@.",
        "tracin/all/vote@0.3@1",
        "a/b/c/mean",
        "//mean",
    ],
)
def test_other_names_are_of_no_configuration(name: str) -> None:
    assert configuration_called(name) is None
    assert isinstance(score_called(name), DetectorScore)


SCORES = [
    Configuration("tracin", "all", "mean"),
    Configuration("tracin", "all", "vote", 0.3),
    Configuration("tracin", "all", "vote", 0.2),
    Configuration("tracin", "1", "rank"),
    DetectorScore("loss"),
]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        *((one.name, one.name) for one in SCORES),
        ("loss", "detector/loss"),
        ("tracin/all/vote", "tracin/all/vote@0.3"),
        ("tracin/layers/mean", "tracin/all/mean"),  # no layer is audited
        ("tracin/layers/vote", "tracin/all/vote@0.3"),
        ("tracin/layers/vote@0.2", "tracin/all/vote@0.2"),
    ],
)
def test_a_score_is_found_by_its_name_or_its_short_one(asked: str, found: str) -> None:
    (wanted,) = [one for one in SCORES if one.name == found]
    assert resolve(asked, SCORES, 0.3) == wanted


def test_layers_are_not_all_modules_where_layers_are_audited() -> None:
    one = Configuration("tracin", "layers", "mean")
    assert resolve(one.name, [*SCORES, one], 0.3) == one


@pytest.mark.parametrize(
    "asked", ["los", "tracin", "tracin/all", "tracin/2/rank", "tracin/all/vote@0.5", "all/mean", ""]
)
def test_a_score_that_there_is_not_is_refused_with_those_that_there_are(asked: str) -> None:
    with pytest.raises(
        ConfigError, match=r"no such score here; there are auto, loss, and .* with tracin; all, 1; mean"
    ):
        resolve(asked, SCORES, 0.3)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.29, 0.3, 0.31, 1.0])
def test_the_lowest_rows_are_the_floor_of_the_share_and_the_worst_first(share: float) -> None:
    rank = np.random.default_rng(0).permutation(10)
    found = lowest(pd.DataFrame({"rank": rank}), share)
    assert rank[found].tolist() == list(range(int(share * 10 + 1e-6)))
    for count in range(1, 400):  # a count as a share is that count again
        assert len(lowest(pd.DataFrame({"rank": np.arange(399)}), count / 399)) == count
