"""The pictures of a report, each a function of what it shows. Texts from data are never taken for formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from thresher.arrays import Floats
from thresher.lines import one_line, plain
from thresher.report.facts import LEVELS, Planted, RowMap
from thresher.report.svg import BAD, CELL, FOURTH, GOOD, LINE, PAPER, SOFT, THIRD, WELL
from thresher.summary import Reliable, Share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.4
"""Inches: what a narrow screen shows without making letters small."""

LINES = (BAD, GOOD, THIRD, FOURTH, SOFT)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
NAME = 24
"""Letters of a class's name on a picture."""

MOST_NAMES = 20
"""On a map."""

MOST_POINTS = 600
"""Of a line: no screen shows more."""


def intervals_picture(lines: Sequence[tuple[str, Share]], about: str, *, share: bool = True) -> Figure:
    """Each value as a point with its 95 % interval, ``about`` what they are of."""
    figure, axes = _new(0.75 + 0.34 * len(lines), left=min(0.45, 0.04 + 0.0125 * max(len(title) for title, _ in lines)))
    places = np.arange(len(lines))[::-1]
    for place, (_, one) in zip(places, lines, strict=True):
        colour = GOOD if place == len(lines) - 1 else SOFT
        axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([one.estimate], [place], "o", color=colour, markersize=6)
    axes.set_yticks(places, [title for title, _ in lines], parse_math=False)
    axes.set_ylim(-0.6, len(lines) - 0.4)
    if share:
        axes.set_xlim(0, min(1.0, 1.15 * max(one.high for _, one in lines)))
    axes.xaxis.set_major_formatter(_percent)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(about)
    return figure


def ranking_picture(values: Floats, dropped: int, planted: Sequence[int], score: str | None = None) -> Figure:
    """A line over the ranks, of ``values`` in their order: probabilities, or a ``score``; and what was ``planted``."""
    figure, axes = _new(2.7, left=0.13 if score is None else 0.2)
    count = len(values)
    shown = np.unique(np.linspace(0, count - 1, MOST_POINTS).astype(int))
    axes.axvspan(0.5, dropped + 0.5, color=WELL, zorder=0, linewidth=0)
    axes.axvline(dropped + 0.5, color=SOFT, linewidth=0.8, linestyle="--")
    axes.plot(shown + 1, values[shown], color=GOOD, linewidth=1.8)
    side: Any = axes.get_xaxis_transform()
    axes.text(dropped + 0.5, 0.93, f"  {dropped:,} dropped", transform=side, va="top", fontsize=8, color=SOFT)
    if len(planted):
        marks = np.unique(np.round(np.array(planted) / count * MOST_POINTS) * count / MOST_POINTS)
        across = np.repeat(marks, 3)
        up = np.tile([1.02, 1.06, np.nan], len(marks))
        axes.plot(across, up, color=BAD, linewidth=0.7, transform=side, clip_on=False)
        axes.text(1.0, 1.08, "planted errors", transform=axes.transAxes, ha="right", fontsize=8, color=BAD)
    axes.set_xlim(0.5, count + 0.5)
    axes.set_xlabel("rank (1 = most detrimental)")
    if score is None:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(_percent)
    axes.set_ylabel("how likely wrong" if score is None else one_line(score, 40), parse_math=False)
    return figure


def reliability_picture(bins: Sequence[Reliable], planted: Sequence[Planted]) -> Figure:
    """What is said beside what is so: by canaries with 95 % intervals, and by errors that the audit planted."""
    figure, axes = _new(3.6)
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle="--", zorder=1)
    if bins:
        x, y = np.array([one.probability for one in bins]), np.array([one.wrong for one in bins])
        reach = [y - [one.low for one in bins], [one.high for one in bins] - y]
        reach = np.maximum(reach, 0)
        axes.errorbar(x, y, reach, fmt="o", color=GOOD, linewidth=1.4, capsize=3, label="as canaries tell it")
    if planted:
        x, y = [one.probability for one in planted], [one.planted / one.rows for one in planted]
        axes.plot(x, y, "x", color=BAD, markersize=7, markeredgewidth=1.8, label="planted errors")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter(_percent)
    axes.set_xlabel("how likely wrong the audit says they are")
    axes.set_ylabel("how many of them are wrong")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.11), ncols=2, frameon=False)
    return figure


def detection_picture(curves: Mapping[str, Floats]) -> Figure:
    """The share of the planted errors among the rows of lowest score, [n] each, beside chance."""
    figure, axes = _new(3.4)
    for number, (title, found) in enumerate(curves.items()):
        looked = np.unique(np.linspace(0, len(found) - 1, MOST_POINTS).astype(int))
        shares = np.append(0, (looked + 1) / len(found))
        style = ("-", "--", "-.", ":")[number % 4]
        axes.plot(
            shares,
            np.append(0, found[looked]),
            style,
            color=LINES[number % len(LINES)],
            linewidth=1.8,
            label=plain(title),
        )
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1, label="chance")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter(_percent)
    axes.set_xlabel("share of the rows looked at, worst first")
    axes.set_ylabel("share of the planted errors found")
    axes.legend(loc="lower right", frameon=False)
    return figure


def table_picture(table: pd.DataFrame, low: float, high: float, form: str, titles: tuple[str, str]) -> Figure:
    """A number in each cell, the darker the nearer to ``high``; ``titles`` are those of lines and columns."""
    lines, columns = ([_short(name) for name in names] for names in (table.index, table.columns))
    longest = max(map(len, columns))
    turned = len(columns) * longest > 50
    below = 0.5 + (0.04 * longest if turned else 0)
    high_enough = 0.25 + 0.34 * len(lines) + below
    figure, axes = _new(high_enough, left=min(0.4, 0.11 + 0.0125 * max(map(len, lines))), bottom=below / high_enough)
    for (line, column), value in np.ndenumerate(table.to_numpy(dtype=np.float64)):
        if np.isfinite(value):
            strength = float(np.clip((value - low) / max(high - low, 1e-12), 0, 1))
            axes.add_patch(_cell(column, line, 0.06 + 0.74 * strength))
            axes.text(column, line, f"{value:{form}}", ha="center", va="center", fontsize=8.5)
    how: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(range(len(columns)), columns, parse_math=False, **how)
    axes.set_yticks(range(len(lines)), lines, parse_math=False)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_ylabel(titles[0])
    axes.set_xlabel(titles[1])
    return figure


def layers_picture(ranks: pd.DataFrame, dropped: float, about: str) -> Figure:
    """Of each row (a column) where it stands at each layer (a line), in percent of the rows; 0 = most detrimental."""
    figure, axes = _new(3.0)
    axes.axhspan(0, 100 * dropped, color=WELL, zorder=0, linewidth=0)
    for number, (row, values) in enumerate(ranks.items()):
        colour, marker = LINES[number % len(LINES)], MARKERS[number % len(MARKERS)]
        axes.plot(range(len(values)), values, color=colour, marker=marker, markersize=4.5, label=f"row {row}")
    every = -(-len(ranks) // 16)
    places = range(0, len(ranks), every)
    axes.set_xticks(places, [str(ranks.index[place]) for place in places])
    axes.set_ylim(-3, 103)
    axes.set_xlabel("layer (WE: word embedding, CL: classifier)")
    axes.set_ylabel(about, parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.12), ncols=4, frameon=False, fontsize=8)
    return figure


def map_picture(rows: RowMap) -> Figure:
    """Rows side by side as their features are alike; the warmer and larger, the more suspicious."""
    figure, axes = _new(4.2, left=0.02, bottom=0.02)
    colours = (SOFT, GOOD, THIRD, BAD)
    sizes = (2.2, 3.2, 4.2, 5.2)
    for level, title in enumerate(rows.levels):
        here = rows.level == level
        number = level + len(LEVELS) - len(rows.levels)
        style: Any = {"color": colours[number], "markersize": sizes[number], "markeredgewidth": 0}
        axes.plot(rows.x[here], rows.y[here], "o", alpha=0.55 if number == 0 else 0.85, label=title, **style)
    named: dict[str, tuple[float, float]] = {}
    for name in list(dict.fromkeys(rows.labels))[:MOST_NAMES]:
        here = np.array([label == name for label in rows.labels])
        named[name] = float(np.median(rows.x[here])), float(np.median(rows.y[here]))
    box = {"facecolor": PAPER, "edgecolor": "none", "boxstyle": "round,pad=0.15", "alpha": 0.8}
    for name, place in _apart(named, float(np.ptp(rows.x)), float(np.ptp(rows.y))).items():
        axes.text(*place, _short(name), ha="center", va="center", fontsize=8, bbox=box, parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.09), ncols=4, frameon=False, fontsize=8, handletextpad=0.1)
    return figure


def _apart(named: Mapping[str, tuple[float, float]], wide: float, high: float) -> dict[str, tuple[float, float]]:
    """Names where they were, or as little below as keeps one from hiding another; a map is so ``wide`` and ``high``."""
    found: dict[str, tuple[float, float]] = {}
    for name, (x, y) in sorted(named.items(), key=lambda one: -one[1][1]):
        down = y
        for other, (left, up) in found.items():
            near = abs(left - x) < wide * 0.008 * (len(_short(name)) + len(_short(other)))
            if near and abs(up - down) < high * 0.05:
                down = up - high * 0.05
        found[name] = x, down
    return found


def _new(height: float, left: float = 0.13, bottom: float | None = None) -> tuple[Figure, Axes]:
    """A figure of a few inches; its margins are set, for to find them takes longer than to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    axes: Any = figure.subplots()
    figure.subplots_adjust(left=left, right=0.96, bottom=bottom or min(0.45, 0.5 / height), top=1 - 0.25 / height)
    return figure, axes


def _cell(column: int, line: int, strength: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, line - 0.46), 0.94, 0.92, facecolor=CELL, alpha=strength, linewidth=0)


def _short(name: object) -> str:
    return one_line(str(name), NAME)


def _percent(value: float, _: object = None) -> str:
    return f"{value:.0%}"
