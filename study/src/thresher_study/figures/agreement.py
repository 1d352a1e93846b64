"""F7 of method.md 7: how far configurations give the rows the same order."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from thresher.extend import AGGREGATIONS
from thresher_study.figures.style import HEAT, finish, panels
from thresher_study.frames import lines, only, parts, seen
from thresher_study.grid import RUN, called, disjoint
from thresher_study.intervals import Floats, task_means
from thresher_study.pieces import Absent, Drawing, around, listed
from thresher_study.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, TITLE = "F7", "Spearman's correlation between the scores of configurations"
NOTES = ("Mean over tasks and seeds of the correlation over rows; 1: the same order of rows.",)


def agreement_figure(results: Results, grid: pd.DataFrame) -> Drawing | Absent:
    """A heat map a model: configurations by aggregation, influence function and layer group, mean over runs."""
    single = disjoint(grid)
    found = correlations(results, single)
    if found.empty:
        return Absent(NAME, TITLE, "no run has scores of single layer groups")
    numbers = task_means(found, ["model", "score", "other"], "spearman")
    known = single.drop_duplicates(["model", "score"])
    figures = {model: _picture(model, only(known, model=model), part) for model, part in parts(numbers, "model")}
    return Drawing(NAME, TITLE, _sentence(found, known), numbers, figures, NOTES)


def correlations(results: Results, configurations: pd.DataFrame) -> pd.DataFrame:
    """``spearman`` of two scores, ``score`` and ``other``, over the rows of each run; NaN where one is constant."""
    found = [pd.DataFrame()]
    for (model, task, seed), of_run in parts(configurations, *RUN):
        names = np.array(seen(of_run, "score"))
        matrix = _spearman(results.scores(model, task, int(seed))[list(names)].to_numpy(dtype=np.float64))
        left, right = np.triu_indices(len(names))
        pairs = {"score": names[left], "other": names[right], "spearman": matrix[left, right]}
        found.append(pd.DataFrame({"model": model, "task": task, "seed": seed, **pairs}))
    return pd.concat(found, ignore_index=True)


def _spearman(scores: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.atleast_2d(np.corrcoef(rankdata(scores, axis=0), rowvar=False))


def _sentence(found: pd.DataFrame, known: pd.DataFrame) -> str:
    about = {line["score"]: (line["aggregation"], line["column"], line["place"]) for line in lines(known)}
    sides = ([about[score] for score in found[side]] for side in ("score", "other"))
    ways = [
        f"{one[0].capitalize()} and {other[0].capitalize()}" if one != other and one[1:] == other[1:] else None
        for one, other in zip(*sides, strict=True)
    ]
    pairs: Any = found.assign(ways=ways).dropna(subset=["ways"])
    runs = pairs.groupby([*RUN, "ways"], sort=False)["spearman"].mean().reset_index()
    told = [
        f"{line['ways']} {around(line)} ({line['model']})"
        for line in lines(task_means(runs, ["ways", "model"], "spearman"))
    ]
    if not told:
        return "No two scores differ in their aggregation alone."
    return f"Correlation within the same influence function and layer group, mean over groups and runs: {listed(told)}."


def _picture(model: str, known: pd.DataFrame, part: pd.DataFrame) -> Figure:
    ordered = [line for how in AGGREGATIONS for line in lines(only(known, aggregation=how))]
    matrix = _square(part, [line["score"] for line in ordered])
    size = max(2.6, 0.16 * len(ordered))
    figure, array = panels(1, 1, size + 1.6, size + 0.6)
    axes, names = array[0, 0], [called(line) for line in ordered]
    image = axes.imshow(matrix, vmax=1, cmap=HEAT, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=7, length=0)
    for edge, (before, line) in enumerate(pairwise(ordered)):
        width = 2.0 if before["aggregation"] != line["aggregation"] else 0.7 * (before["column"] != line["column"])
        for draw in (axes.axhline, axes.axvline) if width else ():
            draw(edge + 0.5, color="white", linewidth=width)
    figure.colorbar(image, ax=axes, label="Spearman", fraction=0.04, pad=0.02)
    return finish(figure, f"{TITLE}, {model}", "Mean over runs; 1: the same order of rows.")


def _square(part: pd.DataFrame, names: list[str]) -> Floats:
    half = part.pivot(index="score", columns="other", values="mean").reindex(index=names, columns=names)
    matrix: Floats = half.to_numpy(dtype=np.float64)
    return np.where(np.isnan(matrix), matrix.T, matrix)
