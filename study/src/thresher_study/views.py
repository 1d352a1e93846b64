"""What a study keeps of an audit: small tables, made while its influence tensor is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import thresher
from thresher.arrays import Flags, Floats
from thresher.evaluate.detection import measure_detection, noise_detection_rate
from thresher.files import atomic_write
from thresher.progress import Progress
from thresher.scores.layers import layer_ranks, methods_of, module_scores
from thresher.scores.names import Configuration, ScoreName
from thresher.scores.stored import read_scores

PARTS = ("influence", "group", "aggregation", "k")

SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))
"""Shares of the rows that Vote is swept over (method.md 7, F4)."""
MOVING = 20


def write_views(result: thresher.AuditResult, folder: Path, seed: int, progress: Progress) -> None:
    """``modules``, ``moves``, ``cancellation`` and, last, ``detection``, each a parquet file of ``folder``."""
    planted, tensor = result.scores["planted"].to_numpy(), result.tensor
    _write(module_detection(tensor, planted, progress), folder / "modules.parquet")
    _write(moves(tensor, planted, seed, progress), folder / "moves.parquet")
    cancelled: Any = result.cancellation.rename(columns={"name": "group"})
    groups = cancelled[cancelled["kind"] == "group"]
    _write(groups[["group", "cancellation", "median", "min", "max"]], folder / "cancellation.parquet")
    scores = read_scores(thresher.RunDirectory(result.folder).all_scores)
    _write(detection(scores, planted), folder / "detection.parquet")


def detection(scores: Mapping[ScoreName, Floats], planted: Flags) -> pd.DataFrame:
    """What every score finds: one line a score, with its ``PARTS``, None where it has none."""
    return pd.DataFrame(
        {"score": one.name, **{part: getattr(one, part, None) for part in PARTS}, **measure_detection(values, planted)}
        for one, values in scores.items()
    )


def influence_scores(found: pd.DataFrame) -> list[Configuration]:
    """The scores made of influence among those of :func:`detection`, each once."""
    here: Any = found[found["influence"].notna()]
    lines: list[dict[str, Any]] = here.drop_duplicates("score")[list(PARTS)].to_dict("records")
    for line in lines:
        line["k"] = None if pd.isna(line["k"]) else line["k"]
    return [Configuration(**line) for line in lines]


def module_detection(tensor: xr.Dataset, planted: Flags, progress: Progress) -> pd.DataFrame:
    """NDR@30 of every module by itself: by Mean, Rank, and Vote at every one of ``SHARES``."""
    lines: list[dict[str, object]] = []
    for one in module_scores(tensor, SHARES, progress):
        module = one.module
        about: dict[str, object] = {"influence": one.influence, "module": module.name, "layer": module.layer}
        about |= {"projection": module.projection, "factor": module.factor, "group": module.group}
        lines += [
            about | {"aggregation": how, "k": share, "ndr30": noise_detection_rate(values, planted)}
            for (how, share), values in one.by.items()
        ]
    return pd.DataFrame(lines)


def moves(tensor: xr.Dataset, planted: Flags, seed: int, progress: Progress) -> pd.DataFrame:
    """The rank at every layer, by Rank, of some planted and as many other rows."""
    rng = np.random.default_rng([seed, 7])
    drawn = [rng.permutation(np.flatnonzero(flags))[:MOVING] for flags in (planted, ~planted)]
    rows = np.concatenate(drawn).tolist()
    tables = layer_ranks(tensor, methods_of(tensor), rows, "rank", progress=progress)
    long = [
        table.rename_axis("layer").reset_index().melt("layer", var_name="influence", value_name="rank").assign(row=row)
        for row, table in zip(rows, tables, strict=True)
    ]
    found = pd.concat(long, ignore_index=True).dropna()
    return found.assign(planted=planted[found["row"].to_numpy()], rows=len(planted))


def _write(table: pd.DataFrame, target: Path) -> None:
    with atomic_write(target) as temporary:
        table.to_parquet(temporary, index=False)
