"""Scores of several runs side by side, on the console and as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.styled import Styled
from rich.table import Table

from thresher.errors import ConfigError
from thresher.evaluate.detection import ACCURACY
from thresher.evaluate.ranking import NEMENYI_MISSING
from thresher.files import atomic_write, write_json
from thresher.report.titles import METRIC_TITLES
from thresher.terminal import PlainConsole

if TYPE_CHECKING:
    from thresher.results.compare import Comparison

FORMATS = (".csv", ".md", ".json")
LEVEL = 0.05


def show_comparison(console: PlainConsole, found: Comparison) -> None:
    """A table of the scores, what the tests say, and how to read it."""
    table = Table(title=_title(found), title_justify="left")
    for number, header in enumerate(_headers(found)):
        table.add_column(header, justify="right" if number else "left", overflow="fold")
    for cells in _cells(found):
        table.add_row(*cells)
    console.print(table)
    for line in _tests(found):
        console.print(line)
    console.print(Styled(_notes(found), "dim"))


def check_output(target: Path) -> None:
    """Raise :class:`ConfigError`, before anything is computed, if no comparison can be written to ``target``."""
    if target.suffix.lower() not in FORMATS:
        raise ConfigError(f"--output {target}: name a {', '.join(FORMATS)} file.")


def save_comparison(found: Comparison, target: Path) -> None:
    """Write the table as .csv, all that is shown as .md, or every number as .json; see :class:`Comparison`."""
    if target.suffix.lower() == ".json":
        write_json(target, comparison_json(found))
        return
    with atomic_write(target) as temporary:
        if target.suffix.lower() == ".csv":
            found.table.to_csv(temporary, index_label="score")
        else:
            temporary.write_text("\n".join(_to_markdown(found)) + "\n", encoding="utf-8")


def _title(found: Comparison) -> str:
    shown = len(found.table)
    which = f"{shown} scores" if shown == found.shared else f"{shown} of {found.shared} scores"
    of = "" if found.metric == ACCURACY else " of planted errors"
    return f"{METRIC_TITLES[found.metric]}{of} over {len(found.outcomes)} runs: {which}, best mean first"


def _headers(found: Comparison) -> list[str]:
    return ["score", METRIC_TITLES[found.metric], "front", "win rate", "mean rank", "difference", "p (Holm)"]


def _cells(found: Comparison) -> list[list[str]]:
    rows: Any = found.table.itertuples()
    return [
        [
            row.Index,
            f"{row.mean:.3f} ± {row.margin_95:.3f}",
            str(row.front),
            f"{row.win_rate:.2f}",
            f"{row.mean_rank:.2f}",
            *(["reference", ""] if row.Index == found.reference else [f"{row.difference:+.3f}", _p(row.p_holm)]),
        ]
        for row in rows
    ]


def _tests(found: Comparison) -> list[str]:
    """What Friedman's and Nemenyi's tests say, and whether there are enough runs for Wilcoxon's."""
    lines: list[str] = []
    tested, runs, others = found.friedman, len(found.outcomes), len(found.table) - 1
    if tested.p is not None:
        verdict = "differ" if tested.p < LEVEL else "may all be alike"
        lines.append(f"Friedman: the scores shown {verdict} (chi-square {tested.statistic:.2f}, p: {_p(tested.p)}).")
        lines.append(NEMENYI_MISSING if found.pairs is None else _nemenyi(found.pairs))
    least = others * 2.0 ** (1 - runs)  # all runs on one side
    if least > LEVEL:
        lines.append(f"With {runs} runs and {others} differences, no p (Holm) can be below {min(least, 1):.2g}.")
    return lines


def _nemenyi(pairs: pd.DataFrame) -> str:
    upper = np.triu_indices(len(pairs), 1)
    differ = pairs.to_numpy() < LEVEL
    best, *others = map(str, pairs.index)
    alike = [name for name, apart in zip(others, differ[0, 1:], strict=True) if not apart]
    said = f"Nemenyi: {int(differ[upper].sum())} of {len(upper[0])} pairs differ (p < {LEVEL:g})"
    if len(alike) == len(others):
        return f"{said}; none of the others can be told from the best, {best}."
    return f"{said}; not told from the best, {best}: {', '.join(alike) or 'none'}."


def _notes(found: Comparison) -> str:
    which = "the best of these same runs, so its lead looks surer than it is"
    reference = which if found.reference == found.table.index[0] else "the reference"
    return (
        "Mean ± 95 % interval over runs; larger is better. Front and mean rank: 1 = best. Win rate: share of runs in "
        "which a score is above another, the mean over all shown, itself counted as 0. Difference: mean less that of "
        f"{found.reference} ({reference}); negative = worse. p: Wilcoxon signed-rank over runs, corrected after Holm."
    )


def _to_markdown(found: Comparison) -> list[str]:
    headers = _headers(found)
    lines: Sequence[Sequence[str]] = [headers, ["---", *["---:"] * (len(headers) - 1)], *_cells(found)]
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    return [f"**{_title(found)}**", "", *table, "", *(f"{line}  " for line in _tests(found)), "", _notes(found)]


def comparison_json(found: Comparison) -> dict[str, Any]:
    """All that was found, as values of JSON."""
    table = found.table.astype(object).where(found.table.notna(), None)
    return {
        "metric": found.metric,
        "larger": "better",
        "runs": list(found.outcomes.index),
        "shared_scores": found.shared,
        "reference": found.reference,
        "scores": [{"score": name, **values} for name, values in table.to_dict("index").items()],
        "friedman": {"statistic": found.friedman.statistic, "p": found.friedman.p},
        "nemenyi": None if found.pairs is None else found.pairs.to_dict(),
        "outcomes": found.outcomes.to_dict("index"),
    }


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< .001"
