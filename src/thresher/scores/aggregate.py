"""Mean, Rank, Vote-k (method.md 4) and others: the columns of the influence tensor become one score a training row.

A column is one (module, query) pair. ``r[i, c]``, the ascending rank of row i within column c, is the number of
reference rows (all rows, or a sample of them) with a strictly smaller influence in it, so 0 is the most detrimental and
ties share a rank. Scores add up over columns, hence over modules: a group's score is the sum of its modules', ranked
once for Rank and every Vote-k.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from thresher.arrays import Flags, Floats
from thresher.config import Aggregation
from thresher.errors import ConfigError, DataError
from thresher.influences.tensor import reference_rows
from thresher.registry import Registry

DEFAULT_K = 0.3
log = logging.getLogger(__name__)


Sums = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64], int], Floats]


@dataclass(frozen=True)
class AggregationFunction:
    """How columns of the tensor become one score a row.

    Attributes:
        compute: Gives the sum over columns, [N] float64, of influences [C, N] float32, ranks [C, N] int64 (how many
            reference rows are below: 0 = the most detrimental, ties share the lower one), and how many of these a
            column votes against, k. Larger = helpful. A row's sum hangs on its own columns of numbers alone, for rows
            may come some at a time.
        formula: In a line, of influences I, ranks r and k.
        ranked: Over the columns of the chosen queries, less those in which all rows are equal. Otherwise over every
            query's column, and ranks are empty.
        averaged: The sum is divided by how many columns there are.
        votes: It hangs on k, and has a score for each.

    Example:
        >>> worst = AggregationFunction(lambda I, r, k: -(r == 0).sum(axis=0, dtype=float), "-sum [r = 0]")
        >>> worst.votes
        False
    """

    compute: Sums
    formula: str
    ranked: bool = True
    averaged: bool = False
    votes: bool = False


def _mean(columns: npt.NDArray[np.float32], ranks: npt.NDArray[np.int64], k: int) -> Floats:
    return columns.sum(axis=0, dtype=np.float64)


def _rank(columns: npt.NDArray[np.float32], ranks: npt.NDArray[np.int64], k: int) -> Floats:
    return ranks.sum(axis=0, dtype=np.float64)


def _vote(columns: npt.NDArray[np.float32], ranks: npt.NDArray[np.int64], k: int) -> Floats:
    return -np.maximum(k - ranks, 0).sum(axis=0, dtype=np.float64)


AGGREGATIONS = Registry[AggregationFunction](
    "aggregation",
    "thresher.aggregations",
    {
        "mean": AggregationFunction(_mean, "mean I", ranked=False, averaged=True),
        "rank": AggregationFunction(_rank, "sum r"),
        "vote": AggregationFunction(_vote, "-sum max(k - r, 0)", votes=True),
    },
    kind=AggregationFunction,
)
Aggregations = Mapping[str, AggregationFunction]


@dataclass(frozen=True)
class Columns:
    """Sums over the columns of one module (or of several, added): the parts that every aggregation is made of.

    ``sums`` [N] are by aggregation and k, 0 where it takes none; ``count`` is how many columns there were, ``ranked``
    of them all.
    """

    sums: Mapping[tuple[str, int], Floats]
    count: int
    ranked: int
    how: Aggregations

    def __add__(self, other: Columns) -> Columns:
        sums = {name: self.sums[name] + other.sums[name] for name in self.sums}
        return Columns(sums, self.count + other.count, self.ranked + other.ranked, self.how)

    def score(self, how: Aggregation, k: int | None = None) -> Floats:
        """One score a row, [N]; larger = helpful. ``k`` counts for those that vote."""
        one = self.how[how]
        total = self.sums[how, (k or 0) if one.votes else 0]
        return total / max(self.ranked if one.ranked else self.count, 1) if one.averaged else total


@dataclass(frozen=True)
class Order:
    """What the ranks of one module's columns are read from: the reference rows' values [C, n] in ascending order.

    ``chosen`` [Q] are the queries whose columns these are. A column in which all rows are equal says nothing about any
    row and is left out.
    """

    chosen: Flags
    values: npt.NDArray[np.float32]

    def ranks(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """For each value of the chosen columns [C, N] how many reference rows are below it; ties share a rank."""
        ranks = np.empty(matrix.shape, np.int64)
        for column, values in enumerate(matrix):
            ranks[column] = np.searchsorted(self.values[column], values)
        return ranks


def order_columns(reference: npt.NDArray[np.float32], ranked: Flags) -> Order:
    """The order of one module's columns by its reference rows [Q, n]; ``ranked`` [Q] chooses queries."""
    chosen = ranked & (reference.max(axis=1) > reference.min(axis=1))
    return Order(chosen, np.sort(reference[chosen], axis=1))


def column_sums(
    matrix: npt.NDArray[np.float32],
    order: Order,
    ks: Sequence[int],
    averaged: Flags | None = None,
    how: Aggregations = AGGREGATIONS,
) -> Columns:
    """Sums over one module's columns. ``matrix`` [Q, N]; ``averaged`` [Q] chooses queries for what is not ranked."""
    every, chosen = matrix if averaged is None else matrix[averaged], matrix[order.chosen]
    ranks, none = order.ranks(chosen), np.zeros((0, matrix.shape[1]), np.int64)
    sums: dict[tuple[str, int], Floats] = {}
    for name, one in how.items():
        for k in ks if one.votes else (0,):
            sums[name, k] = one.compute(chosen, ranks, k) if one.ranked else one.compute(every, none, k)
            if np.shape(sums[name, k]) != (matrix.shape[1],):
                given = f"{np.shape(sums[name, k])} for {matrix.shape[1]} rows"
                raise ConfigError(f"The aggregation '{name}' gives {given}; one number a row is needed.")
    return Columns(sums, len(every), len(chosen), how)


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
    tensor: xr.DataArray,
    how: Aggregation | AggregationFunction | Sums = "mean",
    *,
    k: float | None = None,
    queries: Any = None,
) -> xr.DataArray:
    """One score a training row from an influence tensor.

    Args:
        tensor: Influence with dims ("module", "query", "train"); select layers beforehand with ``tensor.sel(...)``.
            Modules where it is not defined (NaN) are left out.
        how: "mean", "rank", "vote" or another name of :data:`AGGREGATIONS`, or one itself: a function of influences
            [C, N], ranks [C, N] and k that gives the sum over columns, [N] (:class:`AggregationFunction` says more).
        k: Rows that each column votes against, a float for a fraction of the rows (default 0.3), an int for a count.
        queries: Restricts the query rows: "all", "correct" (those the model predicts correctly), a boolean mask or
            positions. By default Mean takes all, the others the correct ones where the tensor's coordinate ``correct``
            marks any.

    Returns:
        float64 over "train"; larger = helpful, lower = detrimental.

    Raises:
        DataError: Where single values are NaN.
        ConfigError: For an unknown ``how``, a ``k`` out of range or no query left.

    Example:
        >>> import xarray as xr
        >>> tensor = xr.DataArray([[[3.0, -1.0, 1.0], [1.0, 0.0, 5.0]]], dims=("module", "query", "train"))
        >>> aggregate(tensor).values.tolist()
        [2.0, -0.5, 3.0]
        >>> aggregate(tensor, "vote", k=1).values.tolist()  # each query votes against the one row that hurts it most
        [-0.0, -2.0, -0.0]
    """
    name, one = _chosen(how)
    if "module" not in tensor.dims:
        tensor = tensor.expand_dims("module")
    tensor = tensor.transpose("module", "query", "train")
    chosen = _chosen_queries(tensor, one, queries)
    reference = reference_rows(tensor)
    count = votes_against(k, len(reference)) if one.votes else 1
    total: Columns | None = None
    for module in range(tensor.sizes["module"]):
        matrix = np.asarray(tensor[module].values)
        if not np.isnan(matrix).all():
            refuse_nan(matrix)
            order = order_columns(matrix[:, reference], chosen)
            sums = column_sums(matrix, order, [count], averaged=chosen, how={name: one})
            total = sums if total is None else total + sums
    if total is None:
        raise DataError("The influence is not defined (NaN) for any of these modules; choose others or another method.")
    score = total.score(name, count)
    return xr.DataArray(
        score,
        dims=("train",),
        coords={"train": tensor["train"]} if "train" in tensor.coords else None,
        name=name,
        attrs={"sign": "larger = helpful, lower = detrimental"},
    )


def _chosen(how: Aggregation | AggregationFunction | Sums) -> tuple[str, AggregationFunction]:
    if isinstance(how, AggregationFunction):
        return str(getattr(how.compute, "__name__", "score")), how
    if not isinstance(how, str):
        return _chosen(AggregationFunction(how, "as passed in", votes=True))
    if how not in AGGREGATIONS:
        *most, last = AGGREGATIONS
        raise ConfigError(f"There is no aggregation '{how}'; choose {', '.join(most)} or {last}.")
    return how, AGGREGATIONS[how]


def refuse_nan(matrix: npt.NDArray[np.float32]) -> None:
    """Raise :class:`DataError` where a value is NaN: it would sort as the most helpful."""
    if np.isnan(matrix).any():
        raise DataError("Some influence values are NaN, which has no rank; recompute the tensor.")


def _chosen_queries(tensor: xr.DataArray, how: AggregationFunction, queries: Any) -> Flags:
    everything = np.ones(tensor.sizes["query"], dtype=bool)
    if queries is None:
        if not how.ranked or "correct" not in tensor.coords:
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


def correct_or_all(correct: Flags) -> Flags:
    """The queries that Rank and Vote use: those predicted correctly, or all where the model gets every one wrong."""
    if correct.any():
        return correct
    log.warning("the model predicts no query row correctly; ranking by all of them")
    return np.ones_like(correct)
