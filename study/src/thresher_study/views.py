"""What a study keeps of an audit: small tables, made while its influence tensor is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from thresher.data.noise.draw import Flags
from thresher.evaluate.detection import measured, noise_detection_rate
from thresher.files import written
from thresher.influences.registry import INFLUENCE
from thresher.influences.tensor import TensorFile, described
from thresher.model.names import ModuleName
from thresher.progress import Progress
from thresher.run import RunDirectory
from thresher.scores.aggregate import DEFAULT_K, correct_or_all, sums_by_place, votes_against
from thresher.scores.layers import layer_ranks
from thresher.scores.table import Configuration, is_score

SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))
"""Shares of the rows that Vote is swept over (SPEC 7, F4)."""
MOVING = 20


def write_views(place: RunDirectory, folder: Path, seed: int, progress: Progress) -> None:
    """``modules``, ``moves``, ``cancellation`` and, last, ``detection``, each a parquet file of ``folder``."""
    scores = pd.read_parquet(place.scores)
    planted = scores["planted"].to_numpy()
    tensor = TensorFile(place.tensor).open()
    modules = described(tensor)
    _write(module_detection(tensor, modules, planted, progress), folder / "modules.parquet")
    _write(moves(tensor, modules, planted, seed, progress), folder / "moves.parquet")
    cancelled: Any = pd.read_parquet(place.cancellation).rename(columns={"name": "group"})
    groups = cancelled[cancelled["kind"] == "group"]
    _write(groups[["group", "cancellation", "median", "min", "max"]], folder / "cancellation.parquet")
    _write(detection(scores, planted), folder / "detection.parquet")


def detection(scores: pd.DataFrame, planted: Flags) -> pd.DataFrame:
    """What every score finds: one line a score, with its parts."""
    return pd.DataFrame(
        {"score": name, **parts(name), **measured(scores[name], planted)} for name in scores if is_score(str(name))
    )


def parts(score: str) -> dict[str, object]:
    """Influence, group, aggregation and k of a score, None where it has none."""
    one = Configuration.parse(score)
    names = ("influence", "group", "aggregation", "k")
    return {name: getattr(one, name, None) for name in names}


def module_detection(
    tensor: xr.Dataset, modules: Sequence[ModuleName], planted: Flags, progress: Progress
) -> pd.DataFrame:
    """NDR@30 of every module by itself: by Mean, Rank, and Vote at every one of ``SHARES``."""
    correct = correct_or_all(np.asarray(tensor["correct"].values, dtype=bool))
    votes = {share: votes_against(share, len(planted)) for share in SHARES}
    methods = [name for name in INFLUENCE if name in tensor]
    lines: list[dict[str, object]] = []
    with progress.stage("modules by themselves", len(methods) * len(modules)) as advance:
        for method in methods:
            places = [[module.name] if INFLUENCE[method].defined_on(module) else [] for module in modules]
            sums = sums_by_place(tensor[method], places, correct, list(votes.values()), advance)
            for module in (module for module in modules if module.name in sums):
                about: dict[str, object] = {"influence": method, "module": module.name, "layer": module.layer}
                about |= {"projection": module.projection, "factor": module.factor, "group": module.group}
                columns = sums[module.name]
                scored = [("mean", None, columns.score("mean")), ("rank", None, columns.score("rank"))]
                scored += [("vote", share, columns.score("vote", k)) for share, k in votes.items()]
                lines += [
                    about | {"aggregation": how, "k": share, "ndr30": noise_detection_rate(values, planted)}
                    for how, share, values in scored
                ]
    return pd.DataFrame(lines)


def moves(
    tensor: xr.Dataset, modules: Sequence[ModuleName], planted: Flags, seed: int, progress: Progress
) -> pd.DataFrame:
    """The rank at every layer, by Rank, of some planted and as many other rows."""
    rng = np.random.default_rng([seed, 7])
    drawn = [rng.permutation(np.flatnonzero(flags))[:MOVING] for flags in (planted, ~planted)]
    rows = np.concatenate(drawn).tolist()
    methods = [name for name in INFLUENCE if name in tensor]
    tables = layer_ranks(tensor, modules, methods, rows, "rank", DEFAULT_K, progress)
    long = [
        table.rename_axis("layer").reset_index().melt("layer", var_name="influence", value_name="rank").assign(row=row)
        for row, table in zip(rows, tables, strict=True)
    ]
    found = pd.concat(long, ignore_index=True).dropna()
    return found.assign(planted=planted[found["row"].to_numpy()], rows=len(planted))


def _write(table: pd.DataFrame, target: Path) -> None:
    with written(target) as temporary:
        table.to_parquet(temporary, index=False)
