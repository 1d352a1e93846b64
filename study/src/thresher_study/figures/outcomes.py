"""F1 of method.md 7: accuracy after filtering by configuration, task by task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from thresher.scores.names import DetectorScore, score_called
from thresher_study.figures.style import AGGREGATION_STYLES, GREY, finish, panel_title, panels
from thresher_study.frames import Line, largest, lines, only, parts, seen
from thresher_study.grid import ACCURACY, CHANCE, MEASURE_TITLES, NDR, called, in_order, title
from thresher_study.intervals import task_means
from thresher_study.pieces import Absent, Drawing, around, listed
from thresher_study.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "F1", "Accuracy after filtering by task and configuration"
OTHER = "no influence"
BOUNDS = {"all_rows": ("all rows", "-"), "random": ("as many at random", "--"), "errors_removed": ("errors gone", ":")}
ENOUGH_FOR_A_BOX = 5
NOTES = (
    "Boxes over seeds: quartiles, median, whiskers to the farthest value; every value as a point where there are fewer "
    f"than {ENOUGH_FOR_A_BOX} seeds. Only what was retrained is shown; of a model of which nothing was, NDR@30.",
)


def outcome_figure(results: Results, grid: pd.DataFrame) -> Drawing | Absent:
    """A panel a task and influence function, boxes over seeds by layer group and aggregation, a picture a model."""
    numbers = outcomes(results, grid)
    if numbers.empty:
        return Absent(NAME, TITLE, "no score was measured in these runs")
    figures = {model: _picture(model, part) for model, part in parts(numbers, "model")}
    return Drawing(NAME, TITLE, _sentence(numbers), numbers, figures, NOTES)


def outcomes(results: Results, grid: pd.DataFrame) -> pd.DataFrame:
    """What is drawn: ``value`` and ``measure``, of a model one, by run, score, column, place and aggregation.

    Accuracy of whatever was retrained, or NDR@30 of every score of a model of which nothing was. Scores that are not
    made of influence are in the column ``no influence``.
    """
    accuracy = results.accuracy.assign(measure=ACCURACY).rename(columns={ACCURACY: "value"})
    found: Any = results.detection.assign(measure=NDR).rename(columns={NDR: "value"})
    if len(accuracy):
        found = pd.concat([accuracy, found[~found["model"].isin(seen(accuracy, "model"))]], ignore_index=True)
    known = grid[["score", "column", "place"]].drop_duplicates()
    found = found.merge(known, how="left", on="score")
    found = found[found["column"].notna() | found["influence"].isna()]
    found = found.assign(place=found["place"].fillna(found["score"].map(_title)))
    kept = ["model", "task", "seed", "score", "column", "place", "aggregation", "measure", "value"]
    return in_order(found[kept].fillna({"column": OTHER, "aggregation": ""}), results)


def _title(score: str) -> str:
    one = score_called(score)
    return one.detector if isinstance(one, DetectorScore) else score


def _sentence(numbers: pd.DataFrame) -> str:
    told: list[str] = []
    for model, part in parts(numbers, "model"):
        means = task_means(part, ["score", "column", "place", "aggregation"], "value")
        tried = _scored(means)
        if tried.empty:
            continue
        best = largest(tried, "mean")
        bounds = lines(only(means, score=list(BOUNDS)))
        others = ", ".join(f"{BOUNDS[line['score']][0]} {around(line, 3)}" for line in bounds)
        measure = MEASURE_TITLES[seen(part, "measure")[0]]
        told.append(f"{model}: {_called(best)} {around(best, 3)} {measure}, of {len(tried)}{others and f' ({others})'}")
    return f"Highest mean over tasks and seeds, in hindsight: {listed(told)}."


def _scored(part: pd.DataFrame) -> pd.DataFrame:
    return only(part, score=[score for score in seen(part, "score") if score not in BOUNDS])


def _called(line: Line) -> str:
    return line["place"] if line["column"] == OTHER else called(line)


def _picture(model: str, part: pd.DataFrame) -> Figure:
    drawn = _scored(part)
    tasks = seen(part, "task")
    places = {column: seen(of_column, "place") for column, of_column in parts(drawn, "column")} or {OTHER: []}
    widths = [max(2, len(some)) for some in places.values()]
    size = 0.38 * sum(widths) / len(widths) + 0.2
    figure, array = panels(len(tasks), len(widths), size, 1.9, sharey="row", sharex="col", width_ratios=widths)
    measure = MEASURE_TITLES[seen(part, "measure")[0]]
    for row, task in zip(array, tasks, strict=True):
        row[0].set_ylabel(f"{task}\n{measure}", fontsize=9, parse_math=False)
        for axes, column in zip(row, places, strict=True):
            _boxes(axes, only(drawn, task=task, column=column), places[column])
            for level, style, _ in _levels(only(part, task=task)):
                axes.axhline(level, color=GREY, linewidth=0.9, linestyle=style, zorder=0)
    for axes, column in zip(array[0], places, strict=True):
        panel_title(axes, title(column))
    caption = "WE, 1 to 4, CL: layer groups. Points or boxes: over seeds."
    heading = TITLE if measure == MEASURE_TITLES[ACCURACY] else f"{measure} by task and configuration"
    return finish(figure, f"{heading}, {model}", caption, _legend(part))


def _boxes(axes: Axes, part: pd.DataFrame, places: list[str]) -> None:
    hows = [how for how in AGGREGATION_STYLES if how in seen(part, "aggregation")]
    thin: Any = {"color": "0.2", "linewidth": 0.8}
    for (place, how), of_one in parts(part, "place", "aggregation"):
        colour, marker = AGGREGATION_STYLES[how]
        at = places.index(place) + (hows.index(how) - (len(hows) - 1) / 2) * 0.26
        values = of_one["value"].to_numpy()
        if len(values) < ENOUGH_FOR_A_BOX:
            axes.plot([at] * len(values), values, marker, color=colour, markersize=3.5, alpha=0.8)
            continue
        axes.boxplot(
            values, positions=[at], widths=0.22, whis=(0, 100), manage_ticks=False, showfliers=False, patch_artist=True,
            boxprops={"facecolor": colour, "edgecolor": "0.2", "linewidth": 0.8}, whiskerprops=thin, capprops=thin,
            medianprops={"color": "black", "linewidth": 1.5},
        )  # fmt: skip
    axes.set_xticks(range(len(places)), places, rotation=90 if max(map(len, places), default=0) > 3 else 0)
    axes.set_xlim(-0.6, len(places) - 0.4)


def _levels(part: pd.DataFrame) -> list[tuple[float, str, str]]:
    """Height, line style and title of what needs no score: other training sets, or chance."""
    if seen(part, "measure") == [NDR]:
        return [(CHANCE, "--", "chance")]
    means = {
        score: float(of_one["value"].to_numpy().mean()) for score, of_one in parts(part, "score") if score in BOUNDS
    }
    return [(means[score], style, name) for score, (name, style) in BOUNDS.items() if score in means]


def _legend(part: pd.DataFrame) -> list[Any]:
    from matplotlib.lines import Line2D

    styles = {how: AGGREGATION_STYLES[how] for how in ("mean", "rank", "vote") if how in seen(part, "aggregation")}
    points = [Line2D([], [], color=c, marker=m, linestyle="", label=how.capitalize()) for how, (c, m) in styles.items()]
    levels: list[Any] = [{"linestyle": style, "label": name} for _, style, name in _levels(part)]
    return points + [Line2D([], [], color=GREY, **level) for level in levels]
