"""How the rank of a row moves over the layers: one aggregation, one layer's modules at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from thresher.config import Aggregation
from thresher.model.names import ModuleName
from thresher.progress import Progress
from thresher.scores.aggregate import Floats, correct_or_all, sums_by_place, votes_against
from thresher.scores.table import AGGREGATIONS

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
    modules: Sequence[ModuleName],
    methods: Sequence[str],
    rows: Sequence[int],
    how: Aggregation,
    k: float,
    progress: Progress,
) -> list[pd.DataFrame]:
    """For each of the rows its rank among all N at every layer (index) by every method (columns).

    A rank is the number of rows with a strictly smaller score when only that layer's modules are added up, so 0 is the
    most detrimental and ties share the lower rank. <NA> where a method is not defined, or has the same score for every
    row. ``modules`` are the tensor's, in its order; each is read and ranked once for all rows. ``k`` is the share of
    the rows that a column votes against.
    """
    layers = layers_in(modules)
    votes = votes_against(k, tensor.sizes["train"])
    correct = np.asarray(tensor["correct"].values, dtype=bool)
    ranked = (
        np.zeros_like(correct) if not AGGREGATIONS[how].ranked else correct_or_all(correct)
    )  # the mean needs no column ranked
    ranks = np.full((len(rows), len(layers), len(methods)), np.nan)
    with progress.stage("ranks by layer", len(methods) * len(modules)) as advance:
        for column, method in enumerate(methods):
            sums = sums_by_place(tensor[method], [[layer_name(m)] for m in modules], ranked, [votes], advance)
            for layer, columns in sums.items():
                ranks[:, layers.index(layer), column] = _ranks(columns.score(how, votes), rows)
    return [pd.DataFrame(of_row, layers, list(methods)).astype("Int64") for of_row in ranks]


def _ranks(score: Floats, rows: Sequence[int]) -> Floats:
    if score.min() == score.max():
        return np.full(len(rows), np.nan)
    return np.searchsorted(np.sort(score), score[list(rows)]).astype(np.float64)
