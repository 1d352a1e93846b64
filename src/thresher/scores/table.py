"""Every configuration (influence x layer group x aggregation) scored from one reading of the tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from thresher.config import Aggregation, ScoreConfig
from thresher.errors import ConfigError
from thresher.influences.registry import INFLUENCE
from thresher.model.names import ModuleName, groups_in, in_group
from thresher.scores.aggregate import Columns, Floats, column_sums, correct_or_all, refuse_nan, votes_against

AGGREGATIONS: tuple[Aggregation, ...] = ("mean", "rank", "vote")


@dataclass(frozen=True)
class Configuration:
    """One way to a score; ``k`` is the share that a column votes against, None for Mean and Rank."""

    influence: str
    group: str
    aggregation: Aggregation
    k: float | None

    @property
    def name(self) -> str:
        """``datainf|layers|vote@0.3``: the column of scores.parquet."""
        return f"{self.influence}|{self.group}|{self.aggregation}" + (f"@{self.k:g}" if self.k is not None else "")


def score_all(tensor: xr.Dataset, modules: Sequence[ModuleName], k: float) -> Mapping[Configuration, Floats]:
    """Scores [N] of every configuration; larger = helpful. ``modules`` are the tensor's, in its order.

    Each module's columns are ranked once, and its sums serve every group it belongs to.
    """
    correct = correct_or_all(np.asarray(tensor["correct"].values, dtype=bool))
    votes = votes_against(k, tensor.sizes["train"])
    scores: dict[Configuration, Floats] = {}
    for method in [name for name in INFLUENCE if name in tensor]:
        for group, sums in _group_sums(tensor[method], method, modules, correct, votes).items():
            for how in AGGREGATIONS:
                configuration = Configuration(method, group, how, k if how == "vote" else None)
                scores[configuration] = sums.score(how, votes)
    return scores


def wanted(config: ScoreConfig) -> Configuration:
    """The configuration that the user asked for."""
    return Configuration(
        config.influence, config.group, config.aggregation, config.k if config.aggregation == "vote" else None
    )


def rows_to_drop(table: pd.DataFrame, share: float) -> npt.NDArray[np.int64]:
    """The floor(share n) rows of lowest score in scores.parquet, most detrimental first."""
    order = np.argsort(table["rank"].to_numpy(), kind="stable")
    return order[: math.floor(share * len(order) + 1e-9)]


def choose(scores: Mapping[Configuration, Floats], asked: Configuration) -> Configuration:
    """The configuration asked for, or the same over all modules where its group is empty."""
    if asked in scores:
        return asked
    whole = Configuration(asked.influence, "all", asked.aggregation, asked.k)
    if whole in scores and asked.group == "layers":
        return whole
    have = ", ".join(dict.fromkeys(f"{c.influence} on {c.group}" for c in scores))
    raise ConfigError(f"There is no score for {asked.influence} on {asked.group}; the run has: {have}.")


def hurt_queries(
    influence: xr.DataArray, modules: Sequence[ModuleName], group: str, rows: Sequence[int], count: int
) -> list[list[int]]:
    """For each of the rows, the ``count`` query rows it hurts most.

    Influence is summed over the group's modules, each scaled to a root mean square of 1, so that all count alike.
    """
    total = np.zeros((influence.sizes["query"], len(rows)))
    for number, module in enumerate(modules):
        matrix = np.asarray(influence[number].values, dtype=np.float64) if in_group(module, group) else np.zeros(1)
        scale = float(np.sqrt(np.mean(matrix**2)))
        if scale > 0:
            total += matrix[:, list(rows)] / scale
    return np.argsort(total, axis=0, kind="stable")[:count].T.tolist()


def _group_sums(
    influence: xr.DataArray,
    method: str,
    modules: Sequence[ModuleName],
    correct: npt.NDArray[np.bool_],
    votes: int,
) -> dict[str, Columns]:
    only_embedding = INFLUENCE[method].word_embedding_only
    groups = ["WE"] if only_embedding else groups_in(modules)
    sums: dict[str, Columns] = {}
    for number, module in enumerate(modules):
        if only_embedding and module.group != "WE":
            continue
        matrix = np.asarray(influence[number].values)
        refuse_nan(matrix)
        columns = column_sums(matrix, correct, [votes])
        for group in groups:
            if in_group(module, group):
                sums[group] = sums[group] + columns if group in sums else columns
    return sums
