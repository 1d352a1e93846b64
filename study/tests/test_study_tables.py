"""T1 to T4 against values worked out by hand and by plain loops, and what is said where accuracy is lacking."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import isnan, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studied import studied
from thresher_study import paper
from thresher_study.aggregation_table import aggregation_table
from thresher_study.cancellation_table import cancellation_table
from thresher_study.front_table import front_table
from thresher_study.grid import called, grid, usual_k
from thresher_study.intervals import crossed_bootstrap, spearman_bootstrap, task_means
from thresher_study.pieces import Absent, Table, decimal, markdown
from thresher_study.prediction_table import prediction_table
from thresher_study.results import Results

NOTHING = pd.DataFrame()


def by_hand(
    lines: list[dict[str, Any]], *, accuracy: bool = True, cancellation: pd.DataFrame = NOTHING, model: str = "m"
) -> Results:
    """Results of lines with task, seed, place, value (accuracy) and, unless it is that, aggregation and ndr30."""
    whole = {"model": model, "influence": "cosine", "k": nan, "aggregation": "mean", "auc_ndr": 0.5}
    frame = pd.DataFrame([whole | {"ndr30": line.get("value")} | line for line in lines])
    frame["score"] = frame["influence"] + "/" + frame["group"] + "/" + frame["aggregation"]
    told = ["model", "task", "seed", "score", "influence", "group", "aggregation", "k"]
    retrained = frame[[*told, "value"]].rename(columns={"value": "accuracy"})
    return Results(
        detection=frame.drop(columns="value"),
        accuracy=retrained if accuracy else retrained.head(0),
        cancellation=cancellation,
        modules=NOTHING,
        moves=NOTHING,
        scores=lambda *_: NOTHING,
        model_names=(model,),
        task_names=tuple(dict.fromkeys(frame["task"])),
    )


def made(build: Any, results: Results) -> Table:
    found = build(results, grid(results))
    assert isinstance(found, Table)
    return found


RACE = {"WE": [0.7, 0.7, 0.8, 0.6], "1": [0.8, 0.8, 0.7, 0.9], "2": [0.9, 0.75, 0.9, 0.7]}


def race(**more: Any) -> list[dict[str, Any]]:
    return [
        {"task": "t", "seed": seed, "group": group, "value": value} | more
        for group, values in RACE.items()
        for seed, value in enumerate(values)
    ]


def test_fronts_and_win_rates_by_hand() -> None:
    table = made(front_table, by_hand(race()))
    found = table.numbers.set_index("place")
    # WE wins a quarter against 1; 1 wins three quarters against WE, half against 2; 2 wins all and half.
    assert found["win_rate"].to_dict() == pytest.approx({"WE": 0.25 / 3, "1": 1.25 / 3, "2": 0.5})
    assert found["front"].to_dict() == {"WE": 3, "1": 2, "2": 1}
    assert set(found["measure"]) == {"accuracy"}
    assert list(table.shown["Cosine"]) == ["3 (.08)", "2 (.42)", "1 (.50)"]
    assert table.sentence == "Highest win rates, by accuracy after filtering: m: Cosine 2 (.50)."


def test_a_configuration_that_was_not_retrained_leaves_the_ranking_to_ndr() -> None:
    # NDR@30 has the order turned around, so that it shows which of the two was used.
    results = by_hand([line | {"ndr30": 1 - line["value"]} for line in race()])
    lacking = replace(results, accuracy=results.accuracy.iloc[1:])
    table = made(front_table, lacking)
    assert set(table.numbers["measure"]) == {"ndr30"}
    assert table.numbers.set_index("place")["front"]["WE"] == 1
    assert "NDR@30, for not every configuration was retrained" in table.sentence
    assert made(front_table, results).numbers.set_index("place")["front"]["WE"] == 3


def test_two_models_are_ranked_on_what_each_has() -> None:
    whole, lacking = by_hand(race(), model="a"), by_hand(race(), model="b", accuracy=False)
    both = replace(whole, detection=pd.concat([whole.detection, lacking.detection]), model_names=("a", "b"))
    table = made(front_table, both)
    assert table.numbers.groupby("model")["measure"].first().to_dict() == {"a": "accuracy", "b": "ndr30"}
    assert "by accuracy after filtering (a) or by NDR@30" in table.sentence


def test_functions_of_the_embedding_compete_with_tracin() -> None:
    lines = [line | {"influence": "tracin"} for line in race()]
    lines += [{"task": "t", "seed": s, "group": "WE", "influence": "tracin_we", "value": 0.95} for s in range(4)]
    table = made(front_table, by_hand(lines))
    assert set(table.numbers["influence"]) == {"tracin"}
    assert list(table.numbers["place"]) == ["TracIn_we", "WE", "1", "2"]
    assert table.numbers.set_index("place").loc["TracIn_we", "win_rate"] == pytest.approx(0.75)


def pairs(differences: dict[str, list[list[float]]]) -> list[dict[str, Any]]:
    """Mean and Rank by task, seed and group, Rank above Mean by the differences [seed][group]."""
    lines: list[dict[str, Any]] = []
    for task, seeds in differences.items():
        for (seed, values), (place, group) in itertools.product(enumerate(seeds), enumerate("123")):
            about = {"task": task, "seed": seed, "group": group}
            lines.append(about | {"value": 0.5})
            lines.append(about | {"value": 0.5 + values[place], "aggregation": "rank"})
    return lines


def test_rank_against_mean_by_hand() -> None:
    better = [[0.01, 0.02, 0.03], [0.04, 0.05, 0.06]]
    mixed = [[0.01, -0.02, 0.03], [-0.04, 0.05, -0.06]]
    table = made(aggregation_table, by_hand(pairs({"up": better, "both": mixed})))
    found = table.numbers.set_index("task")
    assert found["difference"].to_dict() == pytest.approx({"up": 0.035, "both": -0.005})
    # All six positive: 2 of 64 signs are as extreme. Positive ranks 1, 3, 5 of 21: as stats.wilcoxon counts.
    assert found["p"].to_dict() == pytest.approx({"up": 2 / 64, "both": stats.wilcoxon(np.ravel(mixed)).pvalue})
    assert found["p_holm"]["up"] == pytest.approx(4 / 64)
    assert found["p_holm"]["both"] == found["p"]["both"]
    assert (found["low"] < found["difference"]).all() and (found["difference"] < found["high"]).all()
    assert "*" not in table.shown.loc[0, "Cosine Rank"]
    assert table.sentence.endswith("Rank in 0 of 2 cases better, in 0 worse.")


def test_functions_of_the_embedding_that_only_mean_retrains_do_not_keep_the_others_from_accuracy() -> None:
    lines = [line | {"influence": "tracin"} for line in pairs({"t": [[0.01, 0.02, 0.03], [0.04, 0.05, 0.06]]})]
    of_embedding = {"task": "t", "group": "WE", "influence": "tracin_we"}
    lines += [of_embedding | {"seed": seed, "value": 0.5} for seed in (0, 1)]
    lines += [of_embedding | {"seed": seed, "value": nan, "ndr30": 0.9, "aggregation": "rank"} for seed in (0, 1)]
    numbers = made(aggregation_table, by_hand(lines)).numbers
    assert numbers["measure"].tolist() == ["accuracy"] and numbers["pairs"].tolist() == [6]
    assert numbers["difference"].tolist() == pytest.approx([0.035])
    lines[1] |= {"value": nan, "ndr30": 0.51}  # Rank of a layer group
    numbers = made(aggregation_table, by_hand(lines)).numbers
    assert numbers["measure"].tolist() == ["ndr30"] and numbers["pairs"].tolist() == [8]


def test_significance_is_marked() -> None:
    steps = np.arange(1, 13).reshape(4, 3) / 1000
    table = made(aggregation_table, by_hand(pairs({"up": steps.tolist(), "down": (-steps).tolist()})))
    assert table.shown["Cosine Rank"].tolist()[0].startswith("+.006* [")
    assert table.shown["Cosine Rank"].tolist()[1].startswith("-.006* [")
    assert table.sentence.endswith("Rank in 1 of 2 cases better, in 1 worse.")


def crossed(values: np.ndarray[Any, Any]) -> list[float]:
    """The mean of every draw of lines and of columns, each as often as it is drawn."""
    lines, columns = values.shape
    drawn = itertools.product(
        itertools.product(range(lines), repeat=lines), itertools.product(range(columns), repeat=columns)
    )
    return [values[np.ix_(some, others)].mean() for some, others in drawn]


def test_the_crossed_bootstrap_draws_lines_and_columns() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3))
    low, high = crossed_bootstrap(pd.DataFrame(values))
    expected = np.quantile(crossed(values), [0.025, 0.975])
    assert [low, high] == pytest.approx(expected, abs=0.1)
    assert all(isnan(end) for end in crossed_bootstrap(pd.DataFrame(values[:1])))
    same = pd.DataFrame(np.full((4, 3), 0.2)).mask(np.eye(4, 3, dtype=bool))
    assert crossed_bootstrap(same) == pytest.approx((0.2, 0.2))


def test_means_over_tasks_have_student_and_welch_intervals() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=5), rng.normal(3, 4, size=4)
    frame = pd.DataFrame(
        [{"task": task, "seed": s, "of": "x", "v": v} for task, of in (("a", a), ("b", b)) for s, v in enumerate(of)]
    )
    one = task_means(frame[frame["task"] == "a"], ["of"], "v").iloc[0]
    student = stats.t.interval(0.95, 4, a.mean(), a.std(ddof=1) / sqrt(5))
    assert [one["mean"] - one["margin_95"], one["mean"] + one["margin_95"]] == pytest.approx(list(student))
    two = task_means(frame, ["of"], "v").iloc[0]
    welch = stats.ttest_ind(a, -b, equal_var=False).confidence_interval()
    assert two["mean"] == pytest.approx((a.mean() + b.mean()) / 2)
    assert two["margin_95"] == pytest.approx((welch.high - welch.low) / 4)
    lone = task_means(frame[(frame["task"] == "a") | (frame["seed"] == 0)], ["of"], "v").iloc[0]
    assert isnan(lone["margin_95"]) and lone["runs"] == 6
    by_task = task_means(frame, ["of", "task"], "v")
    assert by_task["mean"].tolist() == pytest.approx([a.mean(), b.mean()])


def hard_and_easy() -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Within each task, accuracy falls as C rises; the task of larger C is the easier one."""
    lines = [
        {
            "task": task,
            "seed": seed,
            "group": group,
            "value": base - 0.01 * (seed + 2 * place),
            "ndr30": 0.3 + base / 10,
        }
        for task, base in (("hard", 0.6), ("easy", 0.9))
        for seed in (0, 1)
        for place, group in enumerate("12")
    ]
    cancelled = [
        {"model": "m", "task": line["task"], "seed": line["seed"], "group": line["group"]}
        | {"cancellation": 2 - line["value"] + 1.5 * (line["task"] == "easy"), "median": 2.0, "min": 1.0, "max": 9.0}
        for line in lines
    ]
    return lines, pd.DataFrame(cancelled)


def test_cancellation_by_hand() -> None:
    lines, cancelled = hard_and_easy()
    cancelled.loc[0, ["median", "min", "max"]] = [6.0, 1.5, np.inf]
    table = made(cancellation_table, by_hand(lines, cancellation=cancelled))
    found = table.numbers.set_index("group")
    ours = cancelled[cancelled["group"] == "1"]["cancellation"]
    assert found.loc["1", "cancellation"] == pytest.approx(ours.mean())
    assert found.loc["1", "std"] == pytest.approx(ours.std())
    assert found.loc["1", ["median", "min", "max"]].tolist() == [3.0, 1.0, np.inf]
    assert found["spearman_within"].tolist() == pytest.approx([-1, -1])
    values = [line["value"] for line in lines if line["group"] == "1"]
    assert found.loc["1", "spearman"] == pytest.approx(stats.spearmanr(ours, values).statistic)
    assert set(table.shown["Spearman with"]) == {"accuracy"}
    without = made(cancellation_table, by_hand(lines, cancellation=cancelled, accuracy=False))
    assert set(without.shown["Spearman with"]) == {"NDR@30"}
    assert isinstance(cancellation_table(by_hand(lines), grid(by_hand(lines))), Absent)


def test_prediction_within_tasks_is_not_fooled_by_how_hard_they_are() -> None:
    lines, cancelled = hard_and_easy()
    table = made(prediction_table, by_hand(lines, cancellation=cancelled))
    found = table.numbers.set_index("predictor")
    c, accuracy = cancelled["cancellation"], [line["value"] for line in lines]
    assert found.loc["cancellation", "spearman"] == pytest.approx(stats.spearmanr(c, accuracy).statistic)
    assert found.loc["cancellation", "spearman"] > 0 > found.loc["cancellation", "spearman_within"]
    assert found.loc["cancellation", "spearman_within"] == pytest.approx(-1)
    assert found.loc["ndr30", "spearman"] > 0.8 and isnan(found.loc["ndr30", "spearman_within"])  # constant in a task
    assert table.shown.loc[0, "NDR@30"].endswith("/ -")


def test_the_spearman_bootstrap_draws_the_seeds_of_each_task() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 6, 4))
    y = x + rng.normal(size=x.shape)
    frame = pd.DataFrame(
        [
            {"task": t, "seed": s, "place": p, "x": x[t, s, p], "y": y[t, s, p]}
            for t, s, p in itertools.product(range(2), range(6), range(4))
        ]
    )
    draws: list[float] = []
    for _ in range(600):
        seeds = rng.integers(6, size=(2, 6))
        both = [stats.spearmanr(x[t, seeds[t]].ravel(), y[t, seeds[t]].ravel()).statistic for t in range(2)]
        draws.append(float(np.mean(both)))
    assert spearman_bootstrap(frame, "x", "y") == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.06)
    assert all(isnan(end) for end in spearman_bootstrap(frame[frame["seed"] == 0], "x", "y"))


def test_prediction_needs_accuracy_and_says_what_it_leaves_out() -> None:
    lines, cancelled = hard_and_easy()
    none = by_hand(lines, cancellation=cancelled, accuracy=False)
    absent = prediction_table(none, grid(none))
    assert isinstance(absent, Absent) and "no configuration was retrained" in absent.reason
    both = by_hand([*lines, *(line | {"aggregation": "rank"} for line in lines)], cancellation=cancelled)
    part = replace(both, accuracy=both.accuracy[both.accuracy["aggregation"] == "mean"])
    table = made(prediction_table, part)
    assert set(table.numbers["aggregation"]) == {"mean"}
    assert "Left out: 1 of 2 lines, not retrained in full." in table.notes
    first = part.accuracy["seed"] == part.accuracy["seed"].min()
    fewer = made(prediction_table, replace(part, accuracy=part.accuracy[first]))
    assert (fewer.numbers["points"] < table.numbers["points"].min()).all()
    runs = part.detection[["model", "task", "seed"]].drop_duplicates()
    expected = f"{(runs['seed'] == runs['seed'].min()).sum()} of {len(runs)} runs were retrained; the rest is left out."
    assert expected in fewer.notes
    some = replace(both, accuracy=both.accuracy.iloc[:1])
    absent = prediction_table(some, grid(some))
    assert isinstance(absent, Absent) and "only some" in absent.reason


def test_only_one_share_of_votes_is_shown() -> None:
    results = studied(seeds=1, rows=20)
    voted = results.detection[results.detection["aggregation"] == "vote"]
    more = voted.assign(k=0.5, score=voted["score"].str.replace("@0.3", "@0.5"), ndr30=9.0)
    both = replace(results, detection=pd.concat([results.detection, more]))
    assert grid(both).equals(grid(results))
    assert usual_k([0.5, 0.1]) == 0.1
    assert not grid(results)["score"].str.startswith("detector/").any()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("FacebookAI/roberta-large", "RoBERTa-large"),
        ("meta-llama/Llama-3.2-1B", "Llama-3.2-1B"),
        ("Qwen/Qwen2.5-1.5B", "Qwen-2.5-1.5B"),
        ("mistralai/Mistral-7B-v0.3", "Mistral-7B"),
        ("FacebookAI/roberta-base", None),
    ],
)
def test_the_papers_models_are_known_by_their_hub_names(name: str, own: str | None) -> None:
    assert paper.same_model(name) == own


def test_what_the_paper_published() -> None:
    assert paper.fronts("tracin", "WE")["Mistral-7B"] == (2, 0.50)
    assert paper.fronts("cosine", "CL") == {
        "RoBERTa-large": (4, 0.15), "Llama-3.2-1B": (5, 0.15), "Qwen-2.5-1.5B": (3, 0.18), "Mistral-7B": (5, 0.09)
    }  # fmt: skip
    assert paper.fronts("datainf", "WE") == {} == paper.fronts("tracin", "layers") == paper.fronts("exact", "1")
    assert paper.cancellation("CL") == {"RoBERTa-large": 8.5, "Llama-3.2-1B": 3.1, "Mistral-7B": 20.5}
    assert paper.ndr_spearman("cosine", "vote") == (0.2, 0.7) != paper.ndr_spearman("tracin", "vote")
    # A win rate's mean over N configurations is at most (N - 1) / 2N, less what ties leave.
    for column, places in (("datainf", "1234"), ("cosine", "1234")):
        names = [*places, "CL", *(["WE"] if column == "cosine" else [])]
        for model in paper.MODELS.values():
            rates = [paper.fronts(column, place)[model][1] for place in names]
            assert 0 < np.mean(rates) <= (len(names) - 1) / (2 * len(names)) + 0.005


def test_the_papers_value_is_beside_ours() -> None:
    same = made(front_table, by_hand(race(), model="roberta-large"))
    assert list(same.shown["Cosine, paper"]) == ["2 (.41)", "3 (.35)", "2 (.40)"]
    assert same.numbers["paper_win_rate"].tolist() == [0.41, 0.35, 0.40]
    other = made(front_table, by_hand(race(), model="tiny"))
    assert other.shown.loc[0, "Cosine, paper"] == "1 to 3 (.19 to .58)"
    assert other.numbers["paper_front"].isna().all()


def test_numbers_as_people_read_them() -> None:
    assert [decimal(value) for value in (0.5, 1.0, 10.55, -0.123, 0.0, -0.001, nan)] == [
        ".50", "1.00", "10.55", "-.12", ".00", ".00", "-"
    ]  # fmt: skip
    assert decimal(0.0123, 3, sign=True) == "+.012"
    assert markdown(pd.DataFrame({"a|b": ["x|y"]})) == ["| a\\|b |", "| --- |", "| x\\|y |"]
    assert called({"place": "TracIn_we", "column": "tracin", "aggregation": "mean"}) == "TracIn_we Mean"
    assert called({"place": "3", "column": "exact", "aggregation": "vote"}) == "exact 3 Vote"
