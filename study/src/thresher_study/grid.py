"""The grid of method.md 6: which scores of a study are compared with each other, on what, and how they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from thresher.extend import AGGREGATIONS, INFLUENCE
from thresher_study.frames import Line, only, parts, seen
from thresher_study.results import Results

RUN = ["model", "task", "seed"]
ACCURACY, NDR = "accuracy", "ndr30"
MEASURE_TITLES = {ACCURACY: "accuracy", NDR: "NDR@30"}
# The paper lists the two functions of the word embedding as rows of TracIn's column.
WORD_EMBEDDING = {name: INFLUENCE[name].title or name for name in ("tracin_we_topk", "tracin_we")}
COLUMN_TITLES = {name: INFLUENCE[name].title or name for name in ("datainf", "tracin", "cosine")}
DISJOINT = [*WORD_EMBEDDING.values(), "WE", "1", "2", "3", "4", "CL"]
PLACES = [*DISJOINT, "layers", "all"]
CHANCE = 0.3  # of NDR@30
USUAL_K = 0.3


def grid(results: Results) -> pd.DataFrame:
    """One line a run and influence score: those of ``detection``, and what retraining without its lowest rows gave.

    ``column`` is the influence function, ``place`` the layer group or a function of the word embedding alone;
    ``accuracy`` is NaN where that score was not retrained. Of the shares that Vote was given, only one is kept: .3,
    or else the smallest. In the study's order of models and tasks, and the paper's of everything else.
    """
    found: Any = results.detection[results.detection["influence"].notna()]
    voted = found["aggregation"] == "vote"
    found = found[~voted | np.isclose(found["k"].astype(float), usual_k(found.loc[voted, "k"]))]
    found = beside(found, results.accuracy, ACCURACY, "score")
    names = found["influence"]
    found["column"] = names.where(~names.isin(list(WORD_EMBEDDING)), "tracin")
    found["place"] = names.map(WORD_EMBEDDING).fillna(found["group"])
    return in_order(found, results)


def usual_k(ks: Iterable[float]) -> float:
    """Of the shares that columns vote against, the one that tables show: .3, or else the smallest."""
    given = sorted({float(k) for k in ks})
    return next((k for k in given if np.isclose(k, USUAL_K)), given[0] if given else USUAL_K)


def beside(found: pd.DataFrame, other: pd.DataFrame, value: str, key: str) -> pd.DataFrame:
    """``found`` with the column ``value`` of ``other``'s line of the same run and ``key``, NaN where there is none."""
    if other.empty:
        return found.assign(**{value: np.nan})
    return found.merge(other[[*RUN, key, value]], how="left", on=[*RUN, key])


def disjoint(found: pd.DataFrame) -> pd.DataFrame:
    """Without the groups that hold others: all layers, everything."""
    return only(found, place=DISJOINT)


def alone(found: pd.DataFrame) -> Any:
    """Which lines, [n], are of a function of the word embedding alone."""
    return found["place"].isin(list(WORD_EMBEDDING.values()))


def measured_by(part: pd.DataFrame) -> str:
    """``accuracy`` where every line of ``part`` was retrained, else ``ndr30``.

    Rank and Vote of the word embedding's own functions may lack it: the paper has their Mean only, without a pair.
    """
    asked: Any = part[~alone(part) | (part["aggregation"] == "mean")]
    return ACCURACY if len(asked) and bool(asked[ACCURACY].notna().all()) else NDR


def ranked_on(numbers: pd.DataFrame) -> str:
    """What was compared, by the columns ``measure`` and ``model``, as words of a sentence."""
    models = {measure: seen(part, "model") for measure, part in parts(numbers, "measure")}
    if list(models) == [ACCURACY]:
        return "by accuracy after filtering"
    why = "by NDR@30, for not every configuration was retrained"
    return why if list(models) == [NDR] else f"by accuracy after filtering ({', '.join(models[ACCURACY])}) or {why}"


def differences(part: pd.DataFrame, how: str, measure: str) -> pd.DataFrame:
    """Pairs of one model and influence function: ``task``, ``seed``, ``place``, ``mean``, ``how``'s, ``difference``."""
    pairs: Any = part.pivot(index=["task", "seed", "place"], columns="aggregation", values=measure)
    pairs = pairs.reindex(columns=["mean", how]).dropna()
    return pairs.assign(difference=pairs[how] - pairs["mean"]).reset_index()


def in_order(found: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Lines in the study's order of models and tasks, and the paper's of influences, aggregations and places."""
    orders: Mapping[str, Sequence[str]] = {
        "model": results.model_names,
        "task": results.task_names,
        "column": tuple(COLUMN_TITLES),
        "influence": (*COLUMN_TITLES, *WORD_EMBEDDING),
        "aggregation": tuple(AGGREGATIONS),
        "place": PLACES,
        "group": PLACES,
    }

    def position(values: Any) -> Any:
        known = {name: number for number, name in enumerate(orders[values.name])}
        return values.map(lambda name: known.get(name, len(known)))

    by = [name for name in orders if name in found.columns and not (name == "influence" and "column" in found.columns)]
    return found.sort_values(by, key=position, kind="stable", ignore_index=True)


def title(column: str) -> str:
    """What an influence function is called in front of people."""
    return (COLUMN_TITLES | WORD_EMBEDDING).get(column, column)


def called(line: Line) -> str:
    """``Cosine 3 Vote``: what a configuration of the grid is called in front of people."""
    where = line["place"] if line["place"] in WORD_EMBEDDING.values() else f"{title(line['column'])} {line['place']}"
    return f"{where} {line['aggregation'].capitalize()}"
