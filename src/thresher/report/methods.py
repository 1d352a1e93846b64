"""``thresher methods``: every influence function with its formula, its cost and where it comes from."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thresher.influences.registry import INFLUENCE
from thresher.influences.tensor import SIGN

LEGEND = (
    "v: gradient of a query, g: of a training row, in one module. Cost beside the gradients (one forward and backward "
    "pass over all rows), a module: Q queries, n training rows, p numbers in the module. Where nothing else is said a "
    f"function is defined on every weight. Values: {SIGN}."
)


def show_methods(console: Console) -> None:
    """One line a function."""
    table = Table(title="Influence functions", title_justify="left")
    for title in ("name", "influence of a training row on a query", "defined on", "cost", "source"):
        table.add_column(title, overflow="fold")
    for name, function in INFLUENCE.items():
        cells = (name, function.formula, function.where, function.cost, function.source)
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    console.print(Text(LEGEND, style="dim"))
