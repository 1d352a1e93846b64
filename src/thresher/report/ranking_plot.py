"""The ranking as a picture: how likely each row is wrong, and where the audit would cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from thresher.report.figures import for_notebooks
from thresher.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ranking_figure(scores: pd.DataFrame, summary: Summary) -> Figure:
    """A line over the ranks: the probability that a row is wrong, or its score where none was estimated.

    The dropped rows are shaded, and planted errors marked at the top.
    """
    from matplotlib.figure import Figure

    ordered = scores.sort_values("rank")
    known = "probability_wrong" in ordered
    ranks = np.arange(1, len(ordered) + 1)
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes: Any = figure.subplots()
    axes.axvspan(
        0.5, summary.dropped_rows + 0.5, color="0.92", zorder=0, label=f"dropped: {summary.dropped_rows:,} rows"
    )
    axes.plot(ranks, ordered["probability_wrong" if known else "score"], color="#0072B2", drawstyle="steps-mid")
    if "planted" in ordered:
        planted = ranks[ordered["planted"].to_numpy()]
        axes.plot(
            planted,
            np.full(len(planted), 1.03),
            "|",
            color="#D55E00",
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label=f"planted errors: {len(planted):,}",
        )
    axes.set_xlabel("rank (1 = most detrimental)")
    axes.set_ylabel("probability that the row is wrong" if known else f"score: {summary.score}", parse_math=False)
    axes.set_xlim(0.5, len(ordered) + 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return for_notebooks(figure)
