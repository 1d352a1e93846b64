"""T4 of method.md 7: what, known without retraining, predicts accuracy after filtering."""

from __future__ import annotations

from math import isnan
from typing import Any

import pandas as pd

from thresher.evaluate.ranking import spearman_within
from thresher_study import paper
from thresher_study.frames import Line, lines, only, parts, seen
from thresher_study.grid import ACCURACY, RUN, alone, beside, disjoint, title
from thresher_study.intervals import NONE, spearman_bootstrap
from thresher_study.pieces import Absent, Table, decimal, interval, listed
from thresher_study.results import Results

NAME, TITLE = "T4", "Spearman of C, NDR@30 and AUC-NDR with accuracy after filtering"
BLOCK = ["model", "column", "aggregation"]
PREDICTORS = {"cancellation": "C", "ndr30": "NDR@30", "auc_ndr": "AUC-NDR"}
NOTES = (
    "Each cell: pooled over tasks, seeds and layer groups / the mean of the correlations within tasks [95 % by the "
    "bootstrap, the seeds of each task drawn again]. Pooled, it also says how hard each task is.",
    "'paper': Spearman of NDR@30, the range over its models.",
)


def prediction_table(results: Results, grid: pd.DataFrame) -> Table | Absent:
    """Correlations by model, influence function and aggregation, over the runs that retrained all these groups."""
    found = beside(disjoint(grid), results.cancellation, "cancellation", "group")
    retrained = _in_full(found)
    if retrained.empty:
        some = bool(grid[ACCURACY].notna().any())
        why = "only some configurations were retrained" if some else "no configuration was retrained"
        return Absent(NAME, TITLE, f"{why}, so there is no accuracy after filtering to correlate with")
    numbers = pd.DataFrame([line for _, part in parts(retrained, *BLOCK) for line in _correlated(part)])
    return Table(NAME, TITLE, _sentence(numbers), numbers, _shown(numbers), (*NOTES, *_left_out(found, retrained)))


def _left_out(found: pd.DataFrame, retrained: pd.DataFrame) -> list[str]:
    (shown, blocks), (used, runs) = ((len(retrained.groupby(of)), len(found.groupby(of))) for of in (BLOCK, RUN))
    notes: list[str] = []
    if shown < blocks:
        notes.append(f"Left out: {blocks - shown} of {blocks} lines, not retrained in full.")
    if used < runs:
        notes.append(f"{used} of {runs} runs were retrained; the rest is left out.")
    return notes


def _in_full(found: pd.DataFrame) -> pd.DataFrame:
    """Lines of the runs that retrained every group of their function and aggregation.

    The functions of the word embedding alone stand beside the groups, and count where they were retrained.
    """
    there = found[ACCURACY].notna() | ~alone(found)
    kept: Any = found[there]
    whole = kept.groupby([*RUN, "column", "aggregation"])[ACCURACY].transform(lambda values: values.notna().all())
    return kept[whole.astype(bool)]


def _correlated(part: pd.DataFrame) -> list[Line]:
    about = {name: seen(part, column)[0] for name, column in (("model", "model"), ("influence", "column"))}
    how = seen(part, "aggregation")[0]
    found: list[Line] = []
    for predictor in PREDICTORS:
        one = spearman_within(part, predictor, ACCURACY, "task")
        low, high = spearman_bootstrap(part, predictor, ACCURACY)
        line = {"spearman": one.pooled, "spearman_within": one.within, "low": low, "high": high}
        published = paper.ndr_spearman(about["influence"], how) if predictor == "ndr30" else None
        paper_low, paper_high = published or NONE
        more = {"points": one.rows, "tasks": one.groups, "paper_low": paper_low, "paper_high": paper_high}
        found.append(about | {"aggregation": how, "predictor": predictor} | line | more)
    return found


def _sentence(numbers: pd.DataFrame) -> str:
    found: list[str] = []
    for predictor in ("cancellation", "ndr30"):
        for how, part in parts(only(numbers, predictor=predictor), "aggregation"):
            values = [value for value in part["spearman_within"] if not isnan(value)]
            between = f"{decimal(min(values))} to {decimal(max(values))}" if values else "unknown"
            found.append(f"{PREDICTORS[predictor]} by {how.capitalize()} {between}")
    return f"Within tasks, lowest to highest over models and influence functions: {listed(found)}."


def _shown(numbers: pd.DataFrame) -> pd.DataFrame:
    shown: list[dict[str, str]] = []
    for (model, column, how), part in parts(numbers, "model", "influence", "aggregation"):
        cells = {PREDICTORS[line["predictor"]]: _cell(line) for line in lines(part)}
        published = paper.ndr_spearman(column, how)
        beside_ours = f"{decimal(published[0])} to {decimal(published[1])}" if published else "-"
        about = {"model": model, "influence": title(column), "aggregation": how.capitalize()}
        shown.append(about | cells | {"paper": beside_ours})
    return pd.DataFrame(shown)


def _cell(line: Line) -> str:
    within = f"{decimal(line['spearman_within'])} {interval(line['low'], line['high'])}".rstrip()
    return f"{decimal(line['spearman'])} / {within}"
