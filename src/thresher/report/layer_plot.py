"""F8 of method.md 7 as a picture: how the rank of a row moves over the layers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from thresher.errors import ConfigError
from thresher.files import atomic_write
from thresher.lines import one_line
from thresher.report.figures import check_matplotlib, for_notebooks
from thresher.tasks.registry import TASKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from thresher.results.explain import Explanation

FORMATS = (".svg", ".png", ".pdf")
# Okabe and Ito's colours, which people of any colour vision can tell apart; a marker each for those who print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
MOST_TICKS = 16


def check_plot(target: Path) -> None:
    """Raise :class:`ConfigError`, before anything is computed, if no plot can be written to ``target``."""
    if target.suffix.lower() not in FORMATS:
        raise ConfigError(f"--plot {target}: name a {', '.join(FORMATS)} file.")
    check_matplotlib(f"--plot {target}")


def save_plot(explanations: Sequence[Explanation], target: Path) -> None:
    """Write :func:`layer_figure` as the format that the suffix of ``target`` names."""
    figure = layer_figure(explanations)
    with atomic_write(target) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a script that the font lacks is drawn as boxes
        figure.savefig(temporary, format=target.suffix.lower()[1:], dpi=150)


def layer_figure(explanations: Sequence[Explanation]) -> Figure:
    """One panel a row: its rank as a percentile against the layers, one line a method, and what the audit drops."""
    from matplotlib.figure import Figure

    across = min(len(explanations), 2)
    down = -(-len(explanations) // across)
    width = 2 + 5 * across
    figure = Figure(figsize=(width, 1.5 + 3.1 * down), layout="constrained")
    panels: Any = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, found in zip(panels.flat, explanations, strict=False):
        _panel(axes, found)
    for axes in panels.flat[len(explanations) :]:
        axes.set_visible(False)
    first = explanations[0]
    figure.supylabel(f"rank by {first.aggregation} (percentile of {first.rows:,} rows)", fontsize=10, parse_math=False)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside upper center", ncols=3 * across + 2, frameon=False, fontsize=9, columnspacing=1.2
    )
    caption = (
        "Low = detrimental, high = helpful; in the shaded band that layer alone puts the row among the "
        f"{first.dropped / first.rows:.0%} of lowest rank, the share that the audit drops."
    )
    figure.supxlabel(fill(caption, 15 * width), fontsize=9, color="0.35")
    return for_notebooks(figure)


def _panel(axes: Axes, found: Explanation) -> None:
    layers = [str(layer) for layer in found.ranks.index]
    threshold = 100 * found.dropped / found.rows
    axes.axhspan(0, threshold, color="0.92", zorder=0)
    axes.axhline(threshold, color="0.55", linewidth=0.8, linestyle="--", zorder=1)
    side = axes.get_yaxis_transform()
    axes.text(1.01, threshold / 2, "dropped", transform=side, rotation=90, va="center", fontsize=8, color="0.45")
    for number, (method, values) in enumerate(found.percentiles.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        lone = values.count() == 1  # a ring, so that it does not hide the lines that pass through it
        style: Any = {"fillstyle": "none", "markersize": 9} if lone else {"markersize": 4.5}
        axes.plot(range(len(layers)), values, color=colour, marker=marker, label=str(method), **style)
    ticks = _ticks(layers)
    axes.set_xticks(ticks, [layers[i] for i in ticks])
    axes.set_ylim(-3, 103)
    axes.set_xlabel("layer")
    axes.spines[["top", "right"]].set_visible(False)
    # Texts come from the user's file, where $ is a dollar.
    task, planted = TASKS[found.task], " (planted)" if found.planted else ""
    title = one_line(f"row {found.row}{planted}, rank {found.rank:,}: {task.headline(found.about)}", 64)
    axes.set_title(f"{title}\n{task.format_text(found.about, 64)}", fontsize=9, loc="left", parse_math=False)


def _ticks(layers: Sequence[str]) -> list[int]:
    """Positions to label: all, or WE, CL and every so many of the layers between, none of them next to WE or CL."""
    every = -(-len(layers) // MOST_TICKS)
    numbers = [int(layer) for layer in layers if layer.isdigit()]
    named = {str(n) for n in numbers if every == 1 or (n % every == 0 and numbers[0] < n < numbers[-1])}
    return [i for i, layer in enumerate(layers) if layer in named or not layer.isdigit()]
