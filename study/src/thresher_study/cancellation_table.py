"""T1 of method.md 7: how far gradients cancel in each layer group, and whether that tells which groups are good."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from thresher.evaluate.ranking import spearman_within
from thresher_study import paper
from thresher_study.frames import Line, largest, lines, only, parts, smallest
from thresher_study.grid import MEASURE_TITLES, beside, in_order, measured_by
from thresher_study.intervals import task_means
from thresher_study.pieces import Absent, Table, decimal, listed, ratio
from thresher_study.results import Results

NAME, TITLE = "T1", "Cancellation of the training rows' gradients by layer group (1 = none)"
NOTES = (
    "95 %: of the mean over tasks and seeds, by Student's t over seeds; std: over runs.",
    "median, min, max: over single weights; the mean over runs of the median, the least min, the largest max.",
    "Spearman: of C with accuracy after filtering (else NDR@30) by Mean over that group, pooled over runs and "
    "influence functions, and as the mean within each task and influence function.",
    f"{paper.NOTE} It finds |Spearman| of at most .3 everywhere.",
)


def cancellation_table(results: Results, grid: pd.DataFrame) -> Table | Absent:
    """One line a model and group: C over runs, and its Spearman's correlation with what filtering gives."""
    if results.cancellation.empty:
        return Absent(NAME, TITLE, "cancellation was not measured in these runs")
    found = in_order(results.cancellation, results)
    numbers = _over_runs(found).merge(_correlations(found, grid), how="left", on=["model", "group"])
    own = [_of_same_model(line["model"], line["group"]) for line in lines(numbers)]
    numbers = numbers.assign(paper=own)
    return Table(NAME, TITLE, _sentence(numbers), numbers, pd.DataFrame(map(_shown, lines(numbers))), NOTES)


def _over_runs(found: pd.DataFrame) -> pd.DataFrame:
    by = ["model", "group"]
    means = task_means(found, by, "cancellation").rename(columns={"mean": "cancellation"})
    groups: Any = found.groupby(by, sort=False)
    more = groups.agg(
        std=("cancellation", "std"), median=("median", "mean"), min=("min", "min"), max=("max", "max")
    ).reset_index()
    return means.merge(more, on=by)


def _correlations(found: pd.DataFrame, grid: pd.DataFrame) -> pd.DataFrame:
    mean = beside(only(grid, aggregation="mean"), found, "cancellation", "group")
    told: list[Line] = []
    for model, of_model in parts(mean, "model"):
        measure = measured_by(of_model)
        for group, part in parts(of_model, "group"):
            one = spearman_within(part, "cancellation", measure, ["task", "influence"])
            line = {"measure": measure, "spearman": one.pooled, "spearman_within": one.within, "points": one.rows}
            told.append({"model": model, "group": group} | line)
    return pd.DataFrame(told, columns=["model", "group", "measure", "spearman", "spearman_within", "points"])


def _of_same_model(model: str, group: str) -> float:
    return paper.cancellation(group).get(paper.same_model(model) or "", np.nan)


def _sentence(numbers: pd.DataFrame) -> str:
    ends: list[str] = []
    for model, part in parts(numbers, "model"):
        low, high = smallest(part, "cancellation"), largest(part, "cancellation")
        least, most = (f"{line['group']} (C {ratio(line['cancellation'])})" for line in (low, high))
        ends.append(f"least in {least} and most in {most} of {model}")
    told = numbers.dropna(subset=["spearman_within"])
    if told.empty:
        return f"Gradients cancel {listed(ends)}; there are too few runs to correlate C with what filtering gives."
    most = largest(told.assign(size=told["spearman_within"].abs()), "size")
    return (
        f"Gradients cancel {listed(ends)}; within tasks the largest |Spearman| of C with "
        f"{MEASURE_TITLES[most['measure']]} is {decimal(most['size'])} ({most['model']}, {most['group']})."
    )


def _shown(line: Line) -> dict[str, str]:
    low, high = (ratio(line["cancellation"] + sign * line["margin_95"]) for sign in (-1, 1))
    std = "" if isnan(line["std"]) else f" ± {ratio(line['std'])}"
    return {
        "model": line["model"],
        "group": line["group"],
        "C (mean ± std)": ratio(line["cancellation"]) + std,
        "95 %": "" if isnan(line["margin_95"]) else f"[{low}, {high}]",
        "median": ratio(line["median"]),
        "min": ratio(line["min"]),
        "max": ratio(line["max"]),
        "Spearman with": MEASURE_TITLES.get(line["measure"], "-"),
        "pooled": decimal(line["spearman"]),
        "within tasks": decimal(line["spearman_within"]),
        "paper's C": _paper(line),
    }


def _paper(line: Line) -> str:
    published = paper.cancellation(line["group"]).values()
    if not published or not isnan(line["paper"]):
        return ratio(line["paper"])
    return f"{ratio(min(published))} to {ratio(max(published))}"
