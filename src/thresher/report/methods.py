"""``thresher methods``: influence functions and detectors with formula, cost and where they come from."""

from __future__ import annotations

from rich.styled import Styled
from rich.table import Table

from thresher.detectors.registry import DETECTORS
from thresher.influences.registry import INFLUENCE
from thresher.influences.tensor import SIGN
from thresher.terminal import PlainConsole

LEGEND = (
    "v: gradient of a query, g: of a training row, in one module. Cost beside the gradients (one forward and backward "
    "pass over all rows), a module: Q queries, n training rows, p numbers in the module. Where nothing else is said a "
    f"function is defined on every weight. Values: {SIGN}."
)


def show_methods(console: PlainConsole) -> None:
    """One line each."""
    table = Table(title="Influence functions", title_justify="left")
    for title in ("name", "influence of a training row on a query", "defined on", "cost", "source"):
        table.add_column(title, overflow="fold")
    for name, function in INFLUENCE.items():
        table.add_row(name, function.formula, function.where, function.cost, function.source)
    console.print(table)
    console.print(Styled(LEGEND, "dim"))
    console.print()
    console.print(_detectors())
    console.print(Styled("z: logits, p: probabilities, of classes. --detector takes each name.", "dim"))


def _detectors() -> Table:
    table = Table(title="Detectors without influence", title_justify="left")
    for title in ("name", "score of a training row", "needs", "cost", "source"):
        table.add_column(title, overflow="fold")
    for name, detector in DETECTORS.items():
        needs = ", ".join([*sorted(detector.needs), *([detector.package] if detector.package else [])])
        table.add_row(name, detector.formula, needs, detector.cost, detector.source)
    return table
