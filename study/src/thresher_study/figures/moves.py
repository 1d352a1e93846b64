"""F8 of method.md 7: how a row's rank moves over the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from thresher_study.figures.style import finish, panel_title, panels, some
from thresher_study.frames import only, parts, seen
from thresher_study.grid import in_order, title
from thresher_study.pieces import Absent, Drawing, listed
from thresher_study.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "F8", "How a row's rank moves over the layers"
KINDS = {True: ("planted", "#D55E00", "-"), False: ("not planted", "#0072B2", "--")}
SINGLE_ROWS = 3
NOTES = ("A percentile of 0: the most detrimental of the rows at that layer alone. Quartiles over rows and seeds.",)


def move_figure(results: Results, grid: pd.DataFrame) -> Drawing | Absent:
    """A panel a task and influence function: quartiles of ranks by layer, and some rows; a picture a model."""
    del grid  # single layers are no configurations of it
    found = percentiles(results.moves) if len(results.moves) else results.moves
    if found.empty:
        return Absent(NAME, TITLE, "ranks by layer were not measured in these runs")
    numbers = in_order(quartiles(found), results)
    figures = {model: _picture(model, part, only(found, model=model)) for model, part in parts(numbers, "model")}
    return Drawing(NAME, TITLE, _sentence(found), numbers, figures, NOTES)


def percentiles(moves: pd.DataFrame) -> pd.DataFrame:
    """``moves`` with ``percentile``, 0 to 100, of influence functions that have more than one layer to move over."""
    moving = [influence for influence, part in parts(moves, "influence") if len(seen(part, "layer")) > 1]
    found = only(moves, influence=moving)
    return found.assign(percentile=100 * found["rank"].astype(float) / found["rows"])


def quartiles(found: pd.DataFrame) -> pd.DataFrame:
    """``low``, ``median``, ``high`` of ``percentile`` over rows and seeds, by all other columns."""
    groups: Any = found.groupby(["model", "task", "influence", "planted", "layer"], sort=False)["percentile"]
    table = groups.quantile([0.25, 0.5, 0.75]).unstack()
    return table.set_axis(["low", "median", "high"], axis=1).reset_index()


def _in_passing(found: pd.DataFrame) -> list[str]:
    """The layers as a text passes them: WE, 0, 1, ..., CL."""
    layers = seen(found, "layer")
    numbered = sorted((layer for layer in layers if layer.isdigit()), key=int)
    return [layer for layer in ("WE", *numbered, "CL", "other") if layer in layers]


def _sentence(found: pd.DataFrame) -> str:
    told: list[str] = []
    for model, part in parts(found, "model"):
        medians: Any = part.groupby(["layer", "planted"])["percentile"].median().unstack()
        if {True, False} <= set(medians.columns):
            gap = (medians[False] - medians[True]).reindex(_in_passing(part))
            planted, others = (f"{medians.loc[gap.idxmax(), kind]:.0f}" for kind in (True, False))
            told.append(f"{gap.idxmax()} of {model} (median percentile {planted}, others {others})")
    if not told:
        return "The rows are all planted errors, or none is."
    return f"Over tasks and influence functions, planted errors lie farthest below other rows at layer {listed(told)}."


def _picture(model: str, part: pd.DataFrame, found: pd.DataFrame) -> Figure:
    tasks, influences, layers = seen(part, "task"), seen(part, "influence"), _in_passing(part)
    width = max(2.6, min(4.2, 0.14 * len(layers)))
    figure, array = panels(len(tasks), len(influences), width, 1.8, sharex=True, sharey=True)
    for row, task in zip(array, tasks, strict=True):
        row[0].set_ylabel(f"{task}\nrank (percentile)", fontsize=9, parse_math=False)
        for axes, influence in zip(row, influences, strict=True):
            _bands(axes, only(part, task=task, influence=influence), layers)
            _rows(axes, only(found, task=task, influence=influence, planted=True), layers)
    for axes, influence in zip(array[0], influences, strict=True):
        panel_title(axes, title(influence))
    for axes in array[-1]:
        axes.set_xticks(*_labels(layers))
        axes.set_xlabel("layer", fontsize=9)
    caption = "Thick: median; band: quartiles over rows and seeds. Thin: the first planted rows of one seed."
    return finish(figure, f"{TITLE}, {model}", caption, array[0, 0].get_legend_handles_labels()[0])


def _bands(axes: Axes, part: pd.DataFrame, layers: Sequence[str]) -> None:
    for planted, of_kind in parts(part, "planted"):
        name, colour, style = KINDS[bool(planted)]
        band = of_kind.set_index("layer").reindex(layers)
        axes.plot(range(len(layers)), band["median"], color=colour, linestyle=style, linewidth=2, label=name)
        axes.fill_between(range(len(layers)), band["low"], band["high"], color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(0, 100)


def _rows(axes: Axes, planted: pd.DataFrame, layers: Sequence[str]) -> None:
    first = only(planted, seed=planted["seed"].min())
    for row in sorted(seen(first, "row"))[:SINGLE_ROWS]:
        line = only(first, row=row).set_index("layer")["percentile"].reindex(layers)
        axes.plot(range(len(layers)), line, color="0.35", linewidth=0.6)


def _labels(layers: Sequence[str]) -> tuple[list[int], list[str]]:
    """Labels of WE, CL and some of the layers between, where there are many none next to WE or CL."""
    _, numbered = some([layer for layer in layers if layer.isdigit()], 8)
    close = [layers[1], layers[-2]] if len(layers) > 10 else []
    kept = [place for place, layer in enumerate(layers) if not layer.isdigit() or layer in numbered]
    kept = [place for place in kept if layers[place] not in close]
    return kept, [layers[place] for place in kept]
