"""T2 of method.md 7: which layer groups win, by influence function and model, with Mean."""

from __future__ import annotations

from typing import Any

import pandas as pd

from thresher.evaluate.ranking import fronts, win_rate
from thresher_study import paper
from thresher_study.frames import Line, largest, lines, only, parts, seen
from thresher_study.grid import PLACES, disjoint, measured_by, ranked_on, title
from thresher_study.pieces import Absent, Table, decimal, listed
from thresher_study.results import Results

NAME, TITLE = "T2", "Front and win rate of each layer group, Mean"
NOTES = (
    "1 (.60): in the first front, with a win rate of .60; the groups of one influence function are compared with each "
    "other, over tasks and seeds. TracIn_we and TracIn_we^10 compete with TracIn. 1 to 4: quarters of the layers.",
    f"{paper.NOTE} Its DataInf has no WE, so ours may have one competitor more.",
)


def front_table(results: Results, grid: pd.DataFrame) -> Table | Absent:
    """Fronts and win rates by accuracy where all of a column's configurations were retrained, else by NDR@30."""
    del results  # the grid has all that is needed
    mean = disjoint(only(grid, aggregation="mean"))
    found = [line for _, part in parts(mean, "model", "column") for line in _ranked(part)]
    if not found:
        return Absent(NAME, TITLE, "no run has two layer groups to compare")
    numbers = pd.DataFrame(found)
    return Table(NAME, TITLE, _sentence(numbers), numbers, _shown(numbers), NOTES)


def _ranked(part: pd.DataFrame) -> list[Line]:
    measure = measured_by(part)
    outcomes: Any = part.pivot(index=["task", "seed"], columns="place", values=measure)[seen(part, "place")].dropna()
    if outcomes.empty or outcomes.shape[1] < 2:
        return []
    model, column = seen(part, "model")[0], seen(part, "column")[0]
    found: list[Line] = []
    for place, front, rate in zip(outcomes.columns, fronts(outcomes), win_rate(outcomes), strict=True):
        ours = {"place": place, "front": int(front), "win_rate": float(rate)}
        published = paper.fronts(column, place).get(paper.same_model(model) or "", (None, None))
        theirs = {"paper_front": published[0], "paper_win_rate": published[1]}
        about = {"model": model, "influence": column, "measure": measure, "runs": len(outcomes)}
        found.append(about | ours | theirs)
    return found


def _sentence(numbers: pd.DataFrame) -> str:
    best: dict[str, list[str]] = {}
    for (model, column), part in parts(numbers, "model", "influence"):
        top = largest(part, "win_rate")
        best.setdefault(model, []).append(f"{title(column)} {top['place']} ({decimal(top['win_rate'])})")
    found = (f"{model}: {', '.join(tops)}" for model, tops in best.items())
    return f"Highest win rates, {ranked_on(numbers)}: {listed(found)}."


def _shown(numbers: pd.DataFrame) -> pd.DataFrame:
    columns = seen(numbers, "influence")
    shown: list[dict[str, str]] = []
    for model, of_model in parts(numbers, "model"):
        for place in sorted(seen(of_model, "place"), key=PLACES.index):
            ours = lines(only(of_model, place=place))
            cells = {line["influence"]: _cell(line["front"], line["win_rate"]) for line in ours}
            line = {"model": model, "group": place}
            for column in columns:
                line[title(column)] = cells.get(column, "-")
                line[f"{title(column)}, paper"] = _paper(model, column, place)
            shown.append(line)
    return pd.DataFrame(shown)


def _cell(front: int, rate: float) -> str:
    return f"{front} ({decimal(rate)})"


def _paper(model: str, column: str, place: str) -> str:
    published = paper.fronts(column, place)
    if not published:
        return "-"
    if found := published.get(paper.same_model(model) or ""):
        return _cell(*found)
    places, rates = zip(*published.values(), strict=True)
    return f"{min(places)} to {max(places)} ({decimal(min(rates))} to {decimal(max(rates))})"
