"""Every configuration (influence x layer group x aggregation) scored from one reading of the tensor."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from thresher.config import Aggregation, ScoreConfig
from thresher.errors import ConfigError
from thresher.influences.registry import INFLUENCE
from thresher.model.names import ModuleName, groups_in, in_group
from thresher.progress import Progress
from thresher.scores.aggregate import Floats, correct_or_all, sums_by_place, votes_against

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


def available(modules: Sequence[ModuleName], methods: Iterable[str], k: float) -> list[Configuration]:
    """Every configuration that a tensor of these modules and methods has a score for."""
    return [
        Configuration(method, group, how, k if how == "vote" else None)
        for method in methods
        for group in _groups(modules, method)
        for how in AGGREGATIONS
    ]


def score_all(
    tensor: xr.Dataset, modules: Sequence[ModuleName], k: float, progress: Progress
) -> Mapping[Configuration, Floats]:
    """Scores [N] of every configuration; larger = helpful. ``modules`` are the tensor's, in its order.

    Each module's columns are ranked once, and its sums serve every group it belongs to.
    """
    correct = correct_or_all(np.asarray(tensor["correct"].values, dtype=bool))
    votes = votes_against(k, tensor.sizes["train"])
    methods = [name for name in INFLUENCE if name in tensor]
    scores: dict[Configuration, Floats] = {}
    with progress.stage("scores", len(methods) * len(modules)) as advance:
        for method in methods:
            groups, function = _groups(modules, method), INFLUENCE[method]
            places = [[g for g in groups if in_group(m, g)] if function.defined_on(m) else [] for m in modules]
            sums = sums_by_place(tensor[method], places, correct, votes, advance)
            for configuration in available(modules, [method], k):
                scores[configuration] = sums[configuration.group].score(configuration.aggregation, votes)
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


def choose(configurations: Collection[Configuration], asked: Configuration) -> Configuration:
    """The configuration asked for, or the same over all modules where no layer is audited.

    Raises :class:`ConfigError` naming what there is.
    """
    if asked in configurations:
        return asked
    whole = replace(asked, group="all")
    if asked.group == "layers" and whole in configurations:
        return whole
    groups = dict.fromkeys(c.group for c in configurations if c.influence == asked.influence)
    if not groups:
        raise ConfigError(
            f"--influence {asked.influence}: no score here; it is not among --methods, or defined on no audited module."
        )
    raise ConfigError(f"--group {asked.group}: {asked.influence} has a score only on {', '.join(groups)} here.")


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
    total = np.zeros((influence.sizes["query"], len(rows)))
    telling = 0
    for number, module in enumerate(modules):
        counts = in_group(module, group) and INFLUENCE[str(influence.name)].defined_on(module)
        matrix = np.asarray(influence[number].values, dtype=np.float64) if counts else np.zeros(1)
        scale = float(np.sqrt(np.mean(matrix**2)))
        if scale > 0:
            total += matrix[:, list(rows)] / scale
            telling += 1
    return total / max(telling, 1)


def _groups(modules: Sequence[ModuleName], method: str) -> list[str]:
    function = INFLUENCE[method]
    defined = [module for module in modules if function.defined_on(module)]
    groups = groups_in(defined) if defined else []
    # A function of one group has no other score over all.
    return groups[:-1] if function.where in ("word embedding", "head") else groups
