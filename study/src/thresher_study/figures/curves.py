"""F5 and F6 of method.md 7: where along a score the planted errors are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from thresher.evaluate.detection import detection_curve
from thresher_study.figures.style import AGGREGATION_STYLES, GREY, finish, panel_title, panels
from thresher_study.frames import Line, largest, lines, only, parts, seen
from thresher_study.grid import RUN, title
from thresher_study.intervals import Floats, task_means
from thresher_study.pieces import Absent, Drawing, around, listed
from thresher_study.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES, DECILES = "Detection curves", "Planted errors by tenths of the score"
NOTHING = "no run has scores over all layers"
POINTS = 100
COLOURS = ("#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
DASHES = {"mean": ":", "rank": "--", "vote": "-"}


def curves(results: Results, grid: pd.DataFrame) -> pd.DataFrame:
    """D at every hundredth of the rows, by run, influence, group and aggregation: ``inspected``, ``found``, ``ideal``.

    Of each influence function the scores over all layers, or over everything where no layer is audited. ``inspected``
    is in hundredths; at f the lowest floor(f n / 100) rows are inspected, as in NDR@f.
    """
    found = [pd.DataFrame()]
    for (model, task, seed), of_run in parts(only(grid, group=["layers", "all"]), *RUN):
        scores = results.scores(model, task, int(seed))
        planted = scores["planted"].to_numpy(dtype=bool)
        ideal = _at_hundredths(detection_curve(~planted, planted))
        for line in _over_layers(of_run):
            about = {name: line[name] for name in (*RUN, "influence", "group", "aggregation")}
            drawn = _at_hundredths(detection_curve(scores[line["score"]], planted))
            found.append(pd.DataFrame(about | {"inspected": np.arange(POINTS + 1), "found": drawn, "ideal": ideal}))
    return pd.concat(found, ignore_index=True)


def decile_figure(found: pd.DataFrame) -> Drawing | Absent:
    """F5: a panel a model and influence function, the share of the planted errors in each tenth of the rows.

    ``found`` is of :func:`curves`.
    """
    if found.empty:
        return Absent("F5", DECILES, NOTHING)
    numbers = task_means(deciles(found), ["model", "influence", "group", "aggregation", "decile"], "share")
    best = _best(only(numbers, decile=1))
    sentence = f"The tenth of the rows with the lowest scores holds most planted errors with {best}; chance .10."
    notes = ("Bars: mean over tasks and seeds, with 95 % over seeds by Student's t.",)
    return Drawing("F5", DECILES, sentence, numbers, {"": _decile_picture(numbers)}, notes)


def curve_figure(found: pd.DataFrame) -> Drawing | Absent:
    """F6: a panel a task, a line an influence function and aggregation; a picture a model.

    ``found`` is of :func:`curves`.
    """
    if found.empty:
        return Absent("F6", CURVES, NOTHING)
    by = ["model", "task", "influence", "group", "aggregation", "inspected"]
    numbers = task_means(found, by, "found").assign(ideal=task_means(found, by, "ideal")["mean"])
    figures = {model: _curve_picture(model, part) for model, part in parts(numbers, "model")}
    best = _best(task_means(only(found, inspected=30), ["model", "influence", "aggregation"], "found"))
    sentence = f"Over tasks and seeds, the lowest 30 % hold most planted errors with {best}; chance .30."
    notes = ("Lines: mean over seeds. Ideal: all planted errors first. Random: rows in any order.",)
    return Drawing("F6", CURVES, sentence, numbers, figures, notes)


def deciles(found: pd.DataFrame) -> pd.DataFrame:
    """``share`` of the planted errors in each ``decile`` (1 = lowest scores), by run, influence and aggregation."""
    tenth = POINTS // 10
    ends: Any = found[found["inspected"] % tenth == 0]
    share = ends.groupby([*RUN, "influence", "group", "aggregation"], sort=False)["found"].diff()
    return ends.assign(share=share, decile=ends["inspected"] // tenth).dropna(subset=["share"])


def _over_layers(of_run: pd.DataFrame) -> Iterator[Line]:
    for _, part in parts(of_run, "influence"):
        groups = seen(part, "group")
        yield from lines(only(part, group="layers" if "layers" in groups else "all"))


def _at_hundredths(curve: Floats) -> Floats:
    return np.concatenate([[0.0], curve])[np.arange(POINTS + 1) * len(curve) // POINTS]


def _best(means: pd.DataFrame) -> str:
    tops = (largest(part, "mean") for _, part in parts(means, "model"))
    return listed(f"{t['model']}: {title(t['influence'])} {t['aggregation'].capitalize()} {around(t)}" for t in tops)


def _decile_picture(numbers: pd.DataFrame) -> Figure:
    models, influences, hows = (seen(numbers, name) for name in ("model", "influence", "aggregation"))
    figure, array = panels(len(models), len(influences), 3.0, 1.9, sharex=True, sharey=True)
    for row, model in zip(array, models, strict=True):
        row[0].set_ylabel("share of planted errors", fontsize=9)
        for axes, influence in zip(row, influences, strict=True):
            _bars(axes, only(numbers, model=model, influence=influence), hows)
            panel_title(axes, f"{model}: {title(influence)}")
    for axes in array[-1]:
        axes.set_xlabel("tenth of the rows, lowest scores first", fontsize=9)
    caption = "Scores over all layers, mean over tasks and seeds. Bars: 95 % over seeds. Grey: chance."
    return finish(figure, DECILES, caption, array[0, 0].get_legend_handles_labels()[0])


def _bars(axes: Axes, part: pd.DataFrame, hows: Sequence[str]) -> None:
    axes.axhline(0.1, color=GREY, linewidth=0.8, linestyle="--")
    for number, how in enumerate(hows):
        bars = only(part, aggregation=how)
        at = bars["decile"] + (number - (len(hows) - 1) / 2) * 0.27
        margin, errors = bars["margin_95"].fillna(0), {"elinewidth": 0.7, "ecolor": "0.2"}
        colour = AGGREGATION_STYLES[how][0]
        axes.bar(at, bars["mean"], 0.26, yerr=margin, color=colour, label=how.capitalize(), error_kw=errors)
    axes.set_xticks(range(1, 11))
    axes.set_ylim(bottom=0)


def _curve_picture(model: str, part: pd.DataFrame) -> Figure:
    tasks, influences = seen(part, "task"), seen(part, "influence")
    across = min(4, len(tasks))
    figure, array = panels(-(-len(tasks) // across), across, 2.9, 2.6, sharex=True, sharey=True)
    for axes, task in zip(array.flat, tasks, strict=False):
        _curves(axes, only(part, task=task), influences)
        panel_title(axes, task)
        axes.set_xlabel("share of rows inspected", fontsize=9)
    for axes in array.flat[len(tasks) :]:
        axes.set_visible(False)
    for axes in array[:, 0]:
        axes.set_ylabel("share of errors found", fontsize=9)
    caption = "Scores over all layers, lowest first, mean over seeds."
    return finish(figure, f"{CURVES}, {model}", caption, array[0, 0].get_legend_handles_labels()[0])


def _curves(axes: Axes, part: pd.DataFrame, influences: Sequence[str]) -> None:
    shares = np.arange(POINTS + 1) / POINTS
    first = next(line for _, line in parts(part, "influence", "aggregation"))
    axes.plot(shares, first["ideal"], color="black", linewidth=0.8, label="ideal")
    axes.plot(shares, shares, color=GREY, linewidth=0.8, linestyle="-.", label="random")
    for (influence, how), line in parts(part, "influence", "aggregation"):
        look: Any = {"color": COLOURS[influences.index(influence) % len(COLOURS)], "linestyle": DASHES[how]}
        axes.plot(shares, line["mean"], linewidth=1.2, label=f"{title(influence)} {how.capitalize()}", **look)
