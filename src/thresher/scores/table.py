"""Every configuration (influence x layer group x aggregation x k) scored from one reading of the tensor."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from thresher.arrays import Floats
from thresher.config import Aggregation
from thresher.errors import ConfigError
from thresher.influences.registry import INFLUENCE
from thresher.model.names import ModuleName, groups_in, in_group
from thresher.progress import Progress
from thresher.scores.aggregate import AGGREGATIONS, correct_or_all, sums_by_place, votes_against

DETECTOR = "detector/"
"""What the names of scores that are not made of influence begin with."""

_NAME = re.compile(r"(?!detector/)([^/]+)/([^/]+)/([^/@]+)(?:@(\d+(?:\.\d+)?(?:e-\d+)?))?")


@dataclass(frozen=True)
class Configuration:
    """One way to a score; ``k`` is the share that a column votes against, None for what does not vote."""

    influence: str
    group: str
    aggregation: Aggregation
    k: float | None

    @property
    def name(self) -> str:
        """``datainf/layers/vote@0.3``: the column of scores.parquet."""
        return f"{self.influence}/{self.group}/{self.aggregation}" + (f"@{self.k:g}" if self.k is not None else "")

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The configuration of that name; None for the name of a score that is not made of influence."""
        found = _NAME.fullmatch(name)
        how = None if found is None else AGGREGATIONS.get(found[3])
        if found is None or how is None or how.votes != bool(found[4]):
            return None
        return cls(found[1], found[2], found[3], float(found[4]) if found[4] else None)


def is_score(column: str) -> bool:
    """Whether a column of scores.parquet is a candidate's score; all other columns say something about the row."""
    return "/" in column


def said_of(table: pd.DataFrame, row: int) -> dict[str, Any]:
    """What scores.parquet says of a row beside its candidates' scores and its text; None where there is nothing.

    Values are those of JSON.
    """
    values = {str(name): table.at[row, name] for name in table if not is_score(str(name)) and name != "text"}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: None if value != value else value for name, value in plain.items()}  # noqa: PLR0124 (no number)


def available(modules: Sequence[ModuleName], methods: Iterable[str], ks: Sequence[float]) -> list[Configuration]:
    """Every score that a tensor of these modules and methods has; where it votes, one for each of ``ks``."""
    return [
        Configuration(method, group, how, k)
        for method in methods
        for group in _groups(modules, method)
        for how, function in AGGREGATIONS.items()
        for k in (ks if function.votes else (None,))
    ]


def score_all(
    tensor: xr.Dataset, modules: Sequence[ModuleName], ks: Sequence[float], progress: Progress
) -> dict[str, Floats]:
    """Scores [N] of every configuration by name; larger = helpful. ``modules`` are the tensor's, in its order.

    Each module's columns are ranked once, and its sums serve every group it belongs to and every k.
    """
    correct = correct_or_all(np.asarray(tensor["correct"].values, dtype=bool))
    votes = {k: votes_against(k, tensor.sizes["train"]) for k in ks}
    methods = [name for name in INFLUENCE if name in tensor]
    scores: dict[str, Floats] = {}
    with progress.stage("scores", len(methods) * len(modules)) as advance:
        for method in methods:
            groups, function = _groups(modules, method), INFLUENCE[method]
            places = [[g for g in groups if in_group(m, g)] if function.defined_on(m) else [] for m in modules]
            sums = sums_by_place(tensor[method], places, correct, list(votes.values()), advance)
            for one in available(modules, [method], ks):
                scores[one.name] = sums[one.group].score(one.aggregation, None if one.k is None else votes[one.k])
    return scores


def resolve(asked: str, names: Collection[str], k: float) -> str:
    """The score that the user asked for among those there are: by its full name, or without ``detector/`` or ``@k``.

    ``layers`` stands for all modules where no layer is audited. Raises :class:`ConfigError` naming what there is.
    """
    for name in (asked, f"{DETECTOR}{asked}", f"{asked}@{k:g}"):
        for one in (name, name.replace("/layers/", "/all/")):
            if one in names:
                return one
    detectors = [name.removeprefix(DETECTOR) for name in names if name.startswith(DETECTOR)]
    found = [one for name in names if (one := Configuration.parse(name))]
    influences, groups = (dict.fromkeys(getattr(one, part) for one in found) for part in ("influence", "group"))
    raise ConfigError(
        f"--detector {asked}: there is no such score here; there are auto, {', '.join(detectors)}, and "
        f"INFLUENCE/GROUP/AGGREGATION with {', '.join(influences)}; {', '.join(groups)}; {', '.join(AGGREGATIONS)} "
        "(not every influence has every group)."
    )


def lowest(table: pd.DataFrame, share: float) -> npt.NDArray[np.int64]:
    """The floor(share n) rows of lowest score in scores.parquet, most detrimental first."""
    return lowest_of(table["rank"].to_numpy(), share)


def lowest_of(scores: npt.NDArray[Any], share: float) -> npt.NDArray[np.int64]:
    """The floor(share n) lowest of ``scores`` [n], the lowest first; of those that tie the first of the file."""
    order = np.argsort(scores, kind="stable")
    return order[: math.floor(share * len(order) + 1e-9)]


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
