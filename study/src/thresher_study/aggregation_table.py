"""T3 of method.md 7: Rank and Vote against Mean, task by task."""

from __future__ import annotations

import pandas as pd

from thresher.evaluate.ranking import holm, wilcoxon_holm
from thresher_study.frames import Line, lines, only, parts, seen
from thresher_study.grid import differences, disjoint, measured_by, ranked_on, title
from thresher_study.intervals import crossed_bootstrap
from thresher_study.pieces import Absent, Table, decimal, interval, listed
from thresher_study.results import Results

NAME, TITLE = "T3", "Rank and Vote against Mean by task"
SIGNIFICANT = 0.05
NOTES = (
    "Mean difference of pairs of the same run and layer group, [95 % by the bootstrap, seeds and groups drawn again].",
    "*: p < .05 by Wilcoxon's signed-rank test over these pairs, by Holm's correction over the tasks of one model, "
    "influence function and aggregation. Layer groups of one run are not independent, so p is rather too low.",
    "The paper finds that Vote lifts poor configurations to the top and can hurt Cosine.",
)


def aggregation_table(results: Results, grid: pd.DataFrame) -> Table | Absent:
    """Mean differences over groups and seeds, larger = better than Mean, with intervals and Wilcoxon's p."""
    del results  # the grid has all that is needed
    found: list[Line] = []
    for how in ("rank", "vote"):
        for _, part in parts(only(disjoint(grid), aggregation=["mean", how]), "model", "column"):
            found += _compared(part, how)
    if not found:
        return Absent(NAME, TITLE, "no run has Mean and Rank or Vote of the same layer group")
    numbers = pd.DataFrame(found)
    return Table(NAME, TITLE, _sentence(numbers), numbers, _shown(numbers), NOTES)


def _compared(part: pd.DataFrame, how: str) -> list[Line]:
    measure = measured_by(part)
    about = {"model": seen(part, "model")[0], "influence": seen(part, "column")[0], "aggregation": how}
    pairs_of = dict(parts(differences(part, how, measure), "task"))
    found: list[Line] = []
    for task in (task for task in seen(part, "task") if task in pairs_of):
        pairs = pairs_of[task]
        test = lines(wilcoxon_holm(pairs.filter(["mean", how]), "mean"))[0]
        low, high = crossed_bootstrap(pairs.pivot(index="seed", columns="place", values="difference"))
        line = {"difference": test["difference"], "low": low, "high": high, "p": test["p"]}
        found.append(about | {"task": task, "measure": measure, "pairs": len(pairs)} | line)
    corrected = holm([line["p"] for line in found])
    return [line | {"p_holm": float(p)} for line, p in zip(found, corrected, strict=True)]


def _sentence(numbers: pd.DataFrame) -> str:
    counts: list[str] = []
    for how, part in parts(numbers, "aggregation"):
        sure = [line["difference"] for line in lines(part) if line["p_holm"] < SIGNIFICANT]
        better, worse = sum(one > 0 for one in sure), sum(one < 0 for one in sure)
        counts.append(f"{how.capitalize()} in {better} of {len(part)} cases better, in {worse} worse")
    return f"Significantly different from Mean, {ranked_on(numbers)}: {listed(counts)}."


def _shown(numbers: pd.DataFrame) -> pd.DataFrame:
    names = list(dict.fromkeys(map(_column, lines(numbers))))
    shown: list[dict[str, str]] = []
    for (model, task), part in parts(numbers, "model", "task"):
        cells = {_column(line): _cell(line) for line in lines(part)}
        shown.append({"model": model, "task": task} | {name: cells.get(name, "-") for name in names})
    return pd.DataFrame(shown)


def _column(line: Line) -> str:
    return f"{title(line['influence'])} {line['aggregation'].capitalize()}"


def _cell(line: Line) -> str:
    star = "*" if line["p_holm"] < SIGNIFICANT else ""
    between = interval(line["low"], line["high"], 3, sign=True)
    return f"{decimal(line['difference'], 3, sign=True)}{star} {between}".rstrip()
