"""Mean, Rank and Vote-k (method.md 4): the columns of the influence tensor become one score a training row.

A column is one (module, query) pair. ``r[i, c]``, the ascending rank of row i within column c, is the number of rows
with a strictly smaller influence in it, so 0 is the most detrimental and ties share a rank. Scores add up over columns,
hence over modules: a group's score is the sum of its modules', ranked once for Rank and every Vote-k.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import rankdata

from thresher.arrays import Floats
from thresher.config import Aggregation
from thresher.errors import ConfigError, DataError
from thresher.progress import Advance

DEFAULT_K = 0.3
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """Sums over the columns of one module (or of several, added): the parts that every aggregation is made of.

    ``total`` [N] sums the influence over all ``count`` columns; ``ranks`` [N] and ``votes[k]`` [N] sum over the ranked
    columns, which are those of the chosen queries.
    """

    total: Floats
    count: int
    ranks: Floats
    votes: dict[int, Floats]

    def __add__(self, other: Columns) -> Columns:
        votes = {k: self.votes[k] + other.votes[k] for k in self.votes}
        return Columns(self.total + other.total, self.count + other.count, self.ranks + other.ranks, votes)

    def score(self, how: Aggregation, k: int | None = None) -> Floats:
        """One score a row, [N]; larger = helpful.

        Mean: the average influence. Rank: the sum of ranks. Vote: minus the sum of max(k - r, 0).
        """
        if how == "mean":
            return self.total / self.count
        return self.ranks if how == "rank" else self.votes[-1 if k is None else k]


def column_sums(
    matrix: npt.NDArray[np.float32],
    ranked: npt.NDArray[np.bool_],
    ks: Sequence[int],
    averaged: npt.NDArray[np.bool_] | None = None,
) -> Columns:
    """Sums over one module's columns. ``matrix`` [Q, N]; ``ranked``, ``averaged`` [Q] choose queries.

    A column in which all rows are equal says nothing about any row and is left out of ranks and votes.
    """
    mean_of = matrix if averaged is None else matrix[averaged]
    telling = ranked & (matrix.max(axis=1) > matrix.min(axis=1))
    r = column_ranks(matrix[telling])
    votes = {k: -np.maximum(k - r, 0).sum(axis=0, dtype=np.float64) for k in ks}
    return Columns(mean_of.sum(axis=0, dtype=np.float64), len(mean_of), r.sum(axis=0, dtype=np.float64), votes)


def column_ranks(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Ascending ranks within each column of the tensor, that is each row of ``matrix`` [columns, N]; ties share one."""
    if matrix.size == 0:
        return np.zeros(matrix.shape, np.int64)
    return rankdata(matrix, method="min", axis=1).astype(np.int64) - 1


def votes_against(k: float | None, rows: int) -> int:
    """How many rows each column votes against: a fraction of the rows if ``k`` is a float, a count if an int."""
    if k is None:
        k = DEFAULT_K
    if isinstance(k, float):
        if not 0 < k <= 1:
            raise ConfigError(f"k = {k}: write a fraction of the rows between 0 and 1, or a whole number of rows.")
        return max(1, math.floor(k * rows + 1e-9))
    if not 1 <= k <= rows:
        raise ConfigError(f"k = {k}: a column can vote against 1 to {rows} rows.")
    return int(k)


def aggregate(
    tensor: xr.DataArray, how: Aggregation = "mean", *, k: float | None = None, queries: Any = None
) -> xr.DataArray:
    """One score a training row from an influence tensor with dims ("module", "query", "train").

    ``how``: "mean", "rank" or "vote"; select layers beforehand with ``tensor.sel(...)``. ``k``: rows that each column
    votes against, a float for a fraction of the rows (default 0.3), an int for a count. ``queries`` restricts the query
    rows: "all", "correct" (those the model predicts correctly), a boolean mask or positions. By default Mean takes all,
    Rank and Vote the correct ones where the tensor's coordinate ``correct`` marks any. Modules where the influence is
    not defined (NaN) are left out.

    Returns float64 over "train"; larger = helpful, lower = detrimental. Raises :class:`DataError` where single values
    are NaN, :class:`ConfigError` for an unknown ``how``, a ``k`` out of range or no query left.
    """
    if how not in ("mean", "rank", "vote"):
        raise ConfigError(f"There is no aggregation '{how}'; choose mean, rank or vote.")
    if "module" not in tensor.dims:
        tensor = tensor.expand_dims("module")
    tensor = tensor.transpose("module", "query", "train")
    chosen = _chosen_queries(tensor, how, queries)
    count = votes_against(k, tensor.sizes["train"]) if how == "vote" else 1
    total: Columns | None = None
    for module in range(tensor.sizes["module"]):
        matrix = np.asarray(tensor[module].values)
        if not np.isnan(matrix).all():
            refuse_nan(matrix)
            sums = column_sums(matrix, chosen, [count], averaged=chosen)
            total = sums if total is None else total + sums
    if total is None:
        raise DataError("The influence is not defined (NaN) for any of these modules; choose others or another method.")
    score = total.score(how, count)
    return xr.DataArray(
        score,
        dims=("train",),
        coords={"train": tensor["train"]} if "train" in tensor.coords else None,
        name=how,
        attrs={"sign": "larger = helpful, lower = detrimental"},
    )


def sums_by_place(
    influence: xr.DataArray,
    places: Sequence[Sequence[str]],
    ranked: npt.NDArray[np.bool_],
    votes: Sequence[int],
    advance: Advance,
) -> dict[str, Columns]:
    """Sums over the columns of each place, that is a group, a layer or any other set of modules.

    ``influence`` ("module", "query", "train") is read a module at a time; module l is ranked once and added into each
    of ``places[l]``. Modules where the influence is not defined (NaN) are left out.
    """
    sums: dict[str, Columns] = {}
    for number, here in enumerate(places):
        matrix = np.asarray(influence[number].values) if here else None
        if matrix is not None and not np.isnan(matrix).all():
            refuse_nan(matrix)
            columns = column_sums(matrix, ranked, votes)
            for place in here:
                sums[place] = sums[place] + columns if place in sums else columns
        advance(1)
    return sums


def refuse_nan(matrix: npt.NDArray[np.float32]) -> None:
    """Raise :class:`DataError` where a value is NaN: it would sort as the most helpful."""
    if np.isnan(matrix).any():
        raise DataError("Some influence values are NaN, which has no rank; recompute the tensor.")


def _chosen_queries(tensor: xr.DataArray, how: Aggregation, queries: Any) -> npt.NDArray[np.bool_]:
    everything = np.ones(tensor.sizes["query"], dtype=bool)
    if queries is None:
        if how == "mean" or "correct" not in tensor.coords:
            return everything
        correct = np.asarray(tensor["correct"].values, dtype=bool)
        return correct_or_all(correct)
    if isinstance(queries, str):
        if queries == "all":
            return everything
        if queries != "correct" or "correct" not in tensor.coords:
            raise ConfigError(
                f"queries = '{queries}': say 'all', 'correct' (if the tensor knows), a mask or positions."
            )
        queries = tensor["correct"].values
    chosen = np.zeros(tensor.sizes["query"], dtype=bool)
    if np.size(queries):
        chosen[np.asarray(queries)] = True
    if not chosen.any():
        raise ConfigError("No query row is chosen, or the model predicts none of them correctly; choose others.")
    return chosen


def correct_or_all(correct: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The queries that Rank and Vote use: those predicted correctly, or all where the model gets every one wrong."""
    if correct.any():
        return correct
    log.warning("the model predicts no query row correctly; ranking by all of them")
    return np.ones_like(correct)
