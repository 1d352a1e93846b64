"""F3 and F4 of method.md 7: what single modules find, by layer, projection and LoRA factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from thresher_study.figures.style import GREY, HEAT, LINE_STYLES, finish, panel_title, panels, some
from thresher_study.frames import largest, only, parts, seen
from thresher_study.grid import CHANCE, in_order, title, usual_k
from thresher_study.intervals import task_means
from thresher_study.pieces import Absent, Drawing, around, decimal, listed
from thresher_study.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYERS = "NDR@30 by layer, query and value, A and B"
SHARES = "NDR@30 of Vote by k, layer and module"
NOTHING = "the modules of attention layers were not measured one by one"


def layer_figure(results: Results, grid: pd.DataFrame) -> Drawing | Absent:
    """F3: a panel an influence function and aggregation; a line a projection and factor, with its interval."""
    del grid  # single modules are no configurations of it
    found = by_module(results)
    if found.empty:
        return Absent("F3", LAYERS, NOTHING)
    usual = usual_k(only(found, aggregation="vote")["k"])
    numbers = only(found, k=[k for k in seen(found, "k") if k == 0 or np.isclose(k, usual)])
    figures = {model: _layer_picture(model, part) for model, part in parts(numbers, "model")}
    notes = ("Lines: mean over tasks and seeds; bands: 95 % over seeds by Student's t.",)
    return Drawing("F3", LAYERS, _sentence(numbers), numbers, figures, notes)


def share_figure(results: Results, grid: pd.DataFrame) -> Drawing | Absent:
    """F4: a heat map an influence function and module, k against layer."""
    del grid  # single modules are no configurations of it
    found = by_module(results)
    if found.empty:
        return Absent("F4", SHARES, NOTHING)
    numbers = only(found, aggregation="vote")
    if numbers.empty:
        return Absent("F4", SHARES, "no module was measured with Vote")
    figures = {model: _share_picture(model, part) for model, part in parts(numbers, "model")}
    notes = ("k: the share of rows that each column votes against. Colours: mean over tasks and seeds.",)
    return Drawing("F4", SHARES, _sentence(numbers), numbers, figures, notes)


def by_module(results: Results) -> pd.DataFrame:
    """NDR@30 over tasks and seeds by model, influence, aggregation, ``part`` (``value B``), layer and k (0: no k)."""
    if results.modules.empty:
        return results.modules
    found: Any = results.modules[results.modules["layer"] >= 0]
    part = (found["projection"] + " " + found["factor"]).str.strip()
    found = found.assign(part=part, k=found["k"].astype(float).fillna(0.0))
    means = task_means(found, ["model", "influence", "aggregation", "part", "layer", "k"], "ndr30")
    return in_order(means.sort_values(["part", "layer", "k"], ignore_index=True), results)


def _sentence(numbers: pd.DataFrame) -> str:
    told: list[str] = []
    for model, part in parts(numbers, "model"):
        best = largest(part, "mean")
        how = best["aggregation"].capitalize() + (f" of k = {decimal(best['k'], 1)}" if best["k"] else "")
        told.append(
            f"{model}: layer {best['layer']}, {best['part']}, by {title(best['influence'])} {how}, {around(best)}"
        )
    return f"Highest mean NDR@30 over tasks and seeds, in hindsight: {listed(told)}."


def _layer_picture(model: str, part: pd.DataFrame) -> Figure:
    influences, hows, names = (seen(part, column) for column in ("influence", "aggregation", "part"))
    width = max(2.4, min(4.0, 0.14 * len(seen(part, "layer"))))
    figure, array = panels(len(influences), len(hows), width, 1.9, sharex=True, sharey=True)
    for row, influence in zip(array, influences, strict=True):
        row[0].set_ylabel("NDR@30", fontsize=9)
        for axes, how in zip(row, hows, strict=True):
            _lines(axes, only(part, influence=influence, aggregation=how), names)
            panel_title(axes, f"{title(influence)} {how.capitalize()}")
    for axes in array[-1]:
        axes.set_xlabel("layer", fontsize=9)
    caption = "Planted errors among the 30 % lowest scores of one module. Bands: 95 % over seeds. Grey: chance."
    return finish(figure, f"NDR@30 by layer, {model}", caption, array[0, 0].get_legend_handles_labels()[0])


def _lines(axes: Axes, part: pd.DataFrame, names: Sequence[str]) -> None:
    axes.axhline(CHANCE, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    for name, line in parts(part, "part"):
        colour, marker, style = LINE_STYLES[names.index(name) % len(LINE_STYLES)]
        look: Any = {"color": colour, "marker": marker, "linestyle": style, "markersize": 3, "linewidth": 1.2}
        axes.plot(line["layer"], line["mean"], label=name, **look)
        low, high = line["mean"] - line["margin_95"], line["mean"] + line["margin_95"]
        axes.fill_between(line["layer"], low, high, color=colour, alpha=0.15, linewidth=0)


def _share_picture(model: str, part: pd.DataFrame) -> Figure:
    influences, names = seen(part, "influence"), seen(part, "part")
    layers, ks = sorted(seen(part, "layer")), sorted(seen(part, "k"))
    width, height = max(1.8, min(3.6, 0.13 * len(layers))), max(1.0, 0.15 * len(ks) + 0.3)
    figure, array = panels(len(influences), len(names), width, height, sharex=True, sharey=True)
    scale: Any = {"vmin": part["mean"].min(), "vmax": part["mean"].max(), "cmap": HEAT}
    for row, influence in zip(array, influences, strict=True):
        row[0].set_ylabel("k", fontsize=9)
        for axes, name in zip(row, names, strict=True):
            table = only(part, influence=influence, part=name).pivot(index="k", columns="layer", values="mean")
            axes.imshow(table.reindex(index=ks, columns=layers).to_numpy(), aspect="auto", origin="lower", **scale)
            axes.set_xticks(*some(layers, 8))
            axes.set_yticks(*some([f"{k:.0%}" for k in ks], 5))
            panel_title(axes, f"{title(influence)}, {name}")
    for axes in array[-1]:
        axes.set_xlabel("layer", fontsize=9)
    bar = figure.colorbar(array[0, 0].get_images()[0], ax=array, label="NDR@30", fraction=0.03, pad=0.01)
    bar.ax.tick_params(labelsize=8)
    return finish(figure, f"{SHARES}, {model}", f"Means over tasks and seeds; chance is {decimal(CHANCE)}.")
