"""F2 of method.md 7: what Rank and Vote add to Mean, by task and layer group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from thresher_study.figures.style import GREY, PLACE_STYLES, finish, panel_title, panels
from thresher_study.frames import largest, only, parts, seen, smallest
from thresher_study.grid import MEASURE_TITLES, called, differences, disjoint, in_order, measured_by, ranked_on, title
from thresher_study.intervals import task_means
from thresher_study.pieces import Absent, Drawing, around, listed
from thresher_study.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "F2", "What Rank and Vote add to Mean"
NOTES = ("Bars: 95 % over seeds by Student's t, of the mean difference in pairs of the same run and layer group.",)


def difference_figure(results: Results, grid: pd.DataFrame) -> Drawing | Absent:
    """A panel an influence function and aggregation: the mean difference over seeds by task, colour = layer group."""
    pairs = paired(grid)
    if pairs.empty:
        return Absent(NAME, TITLE, "no run has Mean and Rank or Vote of the same layer group")
    by = ["model", "column", "aggregation", "place", "task", "measure"]
    numbers = in_order(task_means(pairs, by, "difference"), results)
    figures = {model: _picture(model, part) for model, part in parts(numbers, "model")}
    return Drawing(NAME, TITLE, _sentence(pairs), numbers, figures, NOTES)


def paired(grid: pd.DataFrame) -> pd.DataFrame:
    """Each run's ``difference`` to Mean by model, column, aggregation and place, on accuracy or NDR@30 (``measure``).

    All of a model is measured alike, so that its panels can be compared.
    """
    found = [pd.DataFrame()]
    for model, of_model in parts(disjoint(grid), "model"):
        measure = measured_by(of_model)
        for column, of_column in parts(of_model, "column"):
            for how in ("rank", "vote"):
                pairs = differences(of_column, how, measure).drop(columns=["mean", how])
                found.append(pairs.assign(model=model, column=column, aggregation=how, measure=measure))
    return pd.concat(found, ignore_index=True)


def _sentence(pairs: pd.DataFrame) -> str:
    means = task_means(pairs, ["model", "column", "aggregation", "place"], "difference")
    told: list[str] = []
    for model, part in parts(means, "model"):
        ends = (
            f"{called(line)} {around(line, 3, sign=True)}" for line in (largest(part, "mean"), smallest(part, "mean"))
        )
        told.append(f"{model}: {' and '.join(ends)}")
    return f"Largest and smallest mean difference to Mean over tasks, {ranked_on(pairs)}: {listed(told)}."


def _picture(model: str, part: pd.DataFrame) -> Figure:
    columns, hows, tasks = seen(part, "column"), seen(part, "aggregation"), seen(part, "task")
    places = [place for place in PLACE_STYLES if place in seen(part, "place")]
    width = max(2.6, 0.1 * len(places) * len(tasks) + 0.6)
    figure, array = panels(len(columns), len(hows), width, 2.0, sharex=True, sharey=True)
    for row, column in zip(array, columns, strict=True):
        row[0].set_ylabel(f"difference in\n{MEASURE_TITLES[seen(part, 'measure')[0]]}", fontsize=9)
        for axes, how in zip(row, hows, strict=True):
            _points(axes, only(part, column=column, aggregation=how), tasks, places)
            panel_title(axes, f"{title(column)}: {how.capitalize()} - Mean")
    caption = "Above 0: better than Mean. Bars: 95 % over seeds."
    return finish(figure, f"{TITLE}, {model}", caption, _legend(places))


def _points(axes: Axes, part: pd.DataFrame, tasks: list[str], places: list[str]) -> None:
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    for place, of_place in parts(part, "place"):
        colour, marker = PLACE_STYLES[place]
        shift = (places.index(place) - (len(places) - 1) / 2) * 0.8 / len(places)
        at = np.array([tasks.index(task) for task in of_place["task"]]) + shift
        style: Any = {"fmt": marker, "markersize": 4, "elinewidth": 0.8, "color": colour, "label": place}
        axes.errorbar(at, of_place["mean"], of_place["margin_95"].fillna(0), **style)
    axes.set_xticks(range(len(tasks)), tasks, parse_math=False)
    axes.set_xticks([number - 0.5 for number in range(1, len(tasks))], minor=True)
    axes.grid(axis="x", which="minor", color="0.9")
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_xlim(-0.5, len(tasks) - 0.5)


def _legend(places: list[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    styles = {place: PLACE_STYLES[place] for place in places}
    return [Line2D([], [], color=c, marker=m, linestyle="", label=place) for place, (c, m) in styles.items()]
