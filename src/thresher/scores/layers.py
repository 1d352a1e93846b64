"""Layers and modules by themselves: how the rank of a row moves over the layers, what each module alone says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from thresher.arrays import Flags, Floats, Indices
from thresher.config import Aggregation
from thresher.influences.registry import INFLUENCE
from thresher.influences.tensor import read_modules, reference_rows
from thresher.model.names import ModuleName
from thresher.progress import Advance, Progress
from thresher.scores.aggregate import (
    AGGREGATIONS,
    DEFAULT_K,
    Columns,
    column_sums,
    correct_or_all,
    order_columns,
    refuse_nan,
    votes_against,
)

_BLOCKS = ("embedding", "layer", "head", "other")


def layer_name(module: ModuleName) -> str:
    """``WE``, the number of a layer, ``CL``, or ``other``."""
    return {"embedding": "WE", "head": "CL", "other": "other"}.get(module.block, str(module.layer))


def layers_in(modules: Sequence[ModuleName]) -> list[str]:
    """The layers that have modules, in the order in which a text passes them: WE, 0, 1, ..., CL."""
    order = sorted(modules, key=lambda module: (_BLOCKS.index(module.block), module.layer))
    return list(dict.fromkeys(layer_name(module) for module in order))


def layer_ranks(
    tensor: xr.Dataset,
    methods: Sequence[str],
    rows: Sequence[int],
    how: Aggregation,
    k: float = DEFAULT_K,
    *,
    among: int | None = None,
    progress: Progress,
) -> list[pd.DataFrame]:
    """For each of the rows its rank ``among`` so many (the tensor's) at every layer (index) by every method (columns).

    A rank is the number of rows with a strictly smaller score when only that layer's modules are added up, so 0 is the
    most detrimental and ties share the lower rank; the reference rows stand for all. <NA> where a method is not
    defined, or has the same score for every row. Each module of the tensor is read and ranked once for all rows. ``k``
    is the share of the rows that a column votes against.
    """
    modules = read_modules(tensor)
    layers = layers_in(modules)
    reference = reference_rows(tensor)
    votes, among = votes_against(k, len(reference)), among or tensor.sizes["train"]
    correct = np.asarray(tensor["correct"].values, dtype=bool)
    # the mean needs no column ranked
    ranked = correct_or_all(correct) if AGGREGATIONS[how].ranked else np.zeros_like(correct)
    ranks = np.full((len(rows), len(layers), len(methods)), np.nan)
    with progress.stage("ranks by layer", len(methods) * len(modules)) as advance:
        for column, method in enumerate(methods):
            sums = sums_by_place(tensor[method], [[layer_name(m)] for m in modules], ranked, [votes], advance)
            for layer, columns in sums.items():
                ranks[:, layers.index(layer), column] = _ranks(columns.score(how, votes), rows, reference, among)
    return [pd.DataFrame(of_row, layers, list(methods)).astype("Int64") for of_row in ranks]


def methods_of(tensor: xr.Dataset) -> list[str]:
    """The influence functions that a tensor holds, in our order of them."""
    return [name for name in INFLUENCE if name in tensor]


@dataclass(frozen=True)
class ModuleScores:
    """The scores [N] of one module by itself and one influence function; larger = helpful.

    ``by`` has them by aggregation and the share of the rows that a column votes against, None for Mean and Rank.
    """

    influence: str
    module: ModuleName
    by: Mapping[tuple[Aggregation, float | None], Floats]


def module_scores(tensor: xr.Dataset, shares: Sequence[float], progress: Progress) -> Iterator[ModuleScores]:
    """Every influence of a tensor on every module where it is defined: Mean, Rank, and Vote for each of ``shares``.

    A module is read and ranked once for all of them.
    """
    modules = read_modules(tensor)
    correct = correct_or_all(np.asarray(tensor["correct"].values, dtype=bool))
    votes = {share: votes_against(share, len(reference_rows(tensor))) for share in shares}
    methods = methods_of(tensor)
    with progress.stage("modules by themselves", len(methods) * len(modules)) as advance:
        for method in methods:
            places = [[module.name] if INFLUENCE[method].defined_on(module) else [] for module in modules]
            sums = sums_by_place(tensor[method], places, correct, list(votes.values()), advance)
            for module in (module for module in modules if module.name in sums):
                columns = sums[module.name]
                by: dict[tuple[Aggregation, float | None], Floats] = {
                    ("mean", None): columns.score("mean"),
                    ("rank", None): columns.score("rank"),
                }
                by |= {("vote", share): columns.score("vote", k) for share, k in votes.items()}
                yield ModuleScores(method, module, by)


def sums_by_place(
    influence: xr.DataArray,
    places: Sequence[Sequence[str]],
    ranked: Flags,
    votes: Sequence[int],
    advance: Advance,
) -> dict[str, Columns]:
    """Sums over the columns of each place, that is a group, a layer or any other set of modules.

    ``influence`` ("module", "query", "train") is read a module at a time; module l is ranked once and added into each
    of ``places[l]``. Modules where the influence is not defined (NaN) are left out.
    """
    sums: dict[str, Columns] = {}
    reference = reference_rows(influence)
    for number, here in enumerate(places):
        matrix = np.asarray(influence[number].values) if here else None
        if matrix is not None and not np.isnan(matrix).all():
            refuse_nan(matrix)
            columns = column_sums(matrix, order_columns(matrix[:, reference], ranked), votes)
            for place in here:
                sums[place] = sums[place] + columns if place in sums else columns
        advance(1)
    return sums


def _ranks(score: Floats, rows: Sequence[int], reference: Indices, among: int) -> Floats:
    below = np.sort(score[reference])
    if below[0] == below[-1]:
        return np.full(len(rows), np.nan)
    return (np.searchsorted(below, score[list(rows)]) * among // len(below)).astype(np.float64)
