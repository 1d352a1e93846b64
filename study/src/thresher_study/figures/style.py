"""How every figure looks: panels, colours that any eye and a grey print can tell apart, the line on signs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from thresher import SIGN
from thresher.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")
# Okabe and Ito's colours, each with a marker. Aggregations go from light to dark.
AGGREGATION_STYLES = {"mean": ("#E69F00", "o"), "rank": ("#009E73", "s"), "vote": ("#0072B2", "^"), "": ("0.35", "D")}
PLACE_STYLES = {
    "TracIn_we^10": ("#999999", "*"),
    "TracIn_we": ("#666666", "P"),
    "WE": ("#000000", "X"),
    "1": ("#E69F00", "o"),
    "2": ("#56B4E9", "s"),
    "3": ("#009E73", "^"),
    "4": ("#CC79A7", "D"),
    "CL": ("#D55E00", "v"),
}
LINE_STYLES = (
    ("#E69F00", "o", "--"),
    ("#56B4E9", "s", "-."),
    ("#D55E00", "^", ":"),
    ("#0072B2", "D", "-"),
    ("#009E73", "v", "--"),
    ("#CC79A7", "P", "-."),
    ("#000000", "X", ":"),
)
GREY = "0.45"
HEAT = "cividis"  # as light as it is large, in colour and in grey


def panels(rows: int, columns: int, width: float, height: float, **sharing: Any) -> tuple[Figure, Any]:
    """A figure of rows x columns panels of ``width`` x ``height`` inches, and the array of them [rows, columns]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.0, width * columns + 0.9), height * rows + 1.3), layout="constrained")
    array: Any = figure.subplots(rows, columns, squeeze=False, **sharing)
    for axes in array.flat:
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, array


def panel_title(axes: Axes, text: str) -> None:
    """The panel's title; names come from the user, where $ is a dollar."""
    axes.set_title(text, fontsize=9, loc="left", parse_math=False)


def finish(figure: Figure, title: str, caption: str, labels: Sequence[Any] = ()) -> Figure:
    """Title, one legend for all panels (``labels``: handles that know their labels), caption and the line on signs."""
    width = figure.get_figwidth()
    names = [str(handle.get_label()) for handle in labels]
    across = max(2, min(len(names), int(width / 1.5)))
    # The title is the legend's: constrained layout would lay one over the other.
    legend = figure.legend(labels, names, loc="outside upper left", ncols=across, frameon=False, fontsize=8)
    legend.set_title(fill(title, int(11 * width)))
    legend.set_alignment("left")
    legend.get_title().set(fontsize=11, parse_math=False)
    figure.supxlabel(fill(f"{caption} Scores: {SIGN}.", int(15 * width)), fontsize=8, color="0.35", parse_math=False)
    return figure


def some(names: Sequence[Any], most: int) -> tuple[list[int], list[str]]:
    """Places and texts of at most ``most`` labels for so many evenly spaced things."""
    every = -(-len(names) // most)
    return list(range(0, len(names), every)), [str(name) for name in names[::every]]


def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Write the figure as SVG and PNG; the same figure gives the same bytes."""
    from matplotlib import rc_context

    targets = [folder / f"{stem}.{suffix}" for suffix in FORMATS]
    for target in targets:
        with atomic_write(target) as temporary, rc_context({"svg.hashsalt": stem}):
            about = {"Date": None} if target.suffix == ".svg" else {}
            figure.savefig(temporary, format=target.suffix[1:], dpi=130, metadata=about)
        figure.set_layout_engine("none")  # laid out by the first format, which takes as long as to draw it
    return targets
