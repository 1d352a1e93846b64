"""Which scores there are (influence x layer group x aggregation x k), the lowest rows, and whom a row hurts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from thresher.arrays import Floats
from thresher.decisions import fingerprints
from thresher.influences.registry import INFLUENCE
from thresher.influences.tensor import reference_rows
from thresher.model.names import ModuleName, groups_in, in_group
from thresher.scores.aggregate import AGGREGATIONS
from thresher.scores.names import Configuration


def said_of(table: pd.DataFrame, row: int) -> dict[str, Any]:
    """What scores.parquet says of a row beside its text; None where there is nothing. Values are those of JSON."""
    values = {str(name): table.at[row, name] for name in table if name != "text"}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: None if value != value else value for name, value in plain.items()}  # noqa: PLR0124 (no number)


def known_by(table: pd.DataFrame) -> list[str]:
    """What each row of scores.parquet is known by to decisions: its text and its label as trained on, [n]."""
    labels = table["label"].astype(str) if "label" in table else [""] * len(table)
    return fingerprints(zip(table["text"], labels, strict=True))


def available(modules: Sequence[ModuleName], methods: Iterable[str], ks: Sequence[float]) -> list[Configuration]:
    """Every score that a tensor of these modules and methods has; where it votes, one for each of ``ks``."""
    return [
        Configuration(method, group, how, k)
        for method in methods
        for group in groups_of(modules, method)
        for how, function in AGGREGATIONS.items()
        for k in (ks if function.votes else (None,))
    ]


def lowest(table: pd.DataFrame, share: float) -> npt.NDArray[np.int64]:
    """The floor(share n) rows of lowest score in scores.parquet, most detrimental first."""
    return lowest_of(table["rank"].to_numpy(), share)


def lowest_of(scores: npt.NDArray[Any], share: float) -> npt.NDArray[np.int64]:
    """The floor(share n) lowest of ``scores`` [n], the lowest first; of those that tie the first of the file."""
    order = np.argsort(scores, kind="stable")
    return order[: math.floor(share * len(order) + 1e-9)]


def rank_of(scores: Floats) -> npt.NDArray[np.int64]:
    """The rank of each row by its score, [n]: 1 = most detrimental, as people count; of ties the first of the file."""
    order = np.argsort(scores, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return rank


def hurt_queries(
    influence: xr.DataArray, modules: Sequence[ModuleName], group: str, rows: Sequence[int], count: int
) -> list[list[int]]:
    """For each of the rows, the ``count`` query rows it hurts most; see :func:`query_influence`."""
    mean = query_influence(influence, modules, group, rows)
    return np.argsort(mean, axis=0, kind="stable")[:count].T.tolist()


def query_influence(influence: xr.DataArray, modules: Sequence[ModuleName], group: str, rows: Sequence[int]) -> Floats:
    """What the rows do to every query, [Q, rows]: the mean over the group's modules, so scaled that all count alike.

    Each module is divided by its root mean square over all pairs, so 1 is the size of a typical influence.
    """
    reference = reference_rows(influence)
    total = np.zeros((influence.sizes["query"], len(rows)))
    telling = 0
    for number, module in enumerate(modules):
        counts = in_group(module, group) and INFLUENCE[str(influence.name)].defined_on(module)
        matrix = np.asarray(influence[number].values, dtype=np.float64) if counts else np.zeros((1, len(rows)))
        scale = typical_size(matrix[:, reference]) if counts else 0.0
        if scale > 0:
            total += matrix[:, list(rows)] / scale
            telling += 1
    return total / max(telling, 1)


def typical_size(matrix: npt.NDArray[np.floating[Any]]) -> float:
    """The root mean square of a module's influences; 0 of none."""
    return float(np.sqrt(np.mean(matrix.astype(np.float64, copy=False) ** 2)))


def groups_of(modules: Sequence[ModuleName], method: str) -> list[str]:
    """The layer groups of which a function has scores."""
    function = INFLUENCE[method]
    defined = [module for module in modules if function.defined_on(module)]
    groups = groups_in(defined) if defined else []
    # A function of one group has no other score over all.
    return groups[:-1] if function.where in ("word embedding", "head") else groups
