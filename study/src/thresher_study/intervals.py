"""95 % intervals: Student's t for means over seeds, the bootstrap for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from thresher.arrays import Floats
from thresher_study.frames import parts

HOW = (
    "Intervals of 95 %: of a mean over seeds by Student's t, the seeds of each task drawn on their own and the tasks "
    "taken as given; of anything else by the bootstrap, which with a handful of seeds is rather too narrow. "
    "One seed has none."
)
DRAWS = 2000
NONE = (float("nan"), float("nan"))


def task_means(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """The mean over tasks of the means over seeds, one line each of ``by``: ``mean``, ``margin_95``, ``runs``.

    ``frame`` has one line a task, seed and ``by`` (NaN is left out). Seeds of different tasks are independent draws,
    so the variance of the mean over T tasks is sum_t s_t^2 / n_t / T^2, with Welch and Satterthwaite's degrees of
    freedom; for one task that is Student's interval. The margin is half the interval's width, NaN where a task has
    one seed only.
    """
    told = frame.dropna(subset=[value])
    tasks: Any = told.groupby([*by, *({"task"} - set(by))], sort=False)[value].agg(["mean", "var", "count"])
    tasks["error"] = tasks["var"] / tasks["count"]
    tasks["freedom"] = tasks["error"] ** 2 / (tasks["count"] - 1)
    groups: Any = tasks.groupby(list(by), sort=False)
    found = groups.agg(mean=("mean", "mean"), tasks=("mean", "size"), told=("error", "count"), runs=("count", "sum"))
    error, freedom = groups["error"].sum(), groups["freedom"].sum()
    quantile = stats.t.ppf(0.975, (error**2 / freedom).where(error > 0, 1.0))
    found["margin_95"] = (quantile * np.sqrt(error) / found["tasks"]).where(found["told"] == found["tasks"])
    return found[["mean", "margin_95", "runs"]].reset_index()


def crossed_bootstrap(values: pd.DataFrame) -> tuple[float, float]:
    """95 % of the mean of all entries, lines and columns drawn again on their own (Owen 2007).

    Entries of one seed, or of one layer group, are not independent; to draw entries would take them for it. NaN
    entries are left out; NaN, NaN for fewer than two lines.
    """
    matrix = values.to_numpy(dtype=np.float64)
    lines, columns = matrix.shape
    if lines < 2:
        return NONE
    rng = np.random.default_rng(0)
    left = rng.multinomial(lines, np.full(lines, 1 / lines), DRAWS).astype(np.float64)
    right = rng.multinomial(columns, np.full(columns, 1 / columns), DRAWS).astype(np.float64)
    there = ~np.isnan(matrix)
    total = ((left @ np.where(there, matrix, 0.0)) * right).sum(axis=1)
    count = ((left @ there.astype(np.float64)) * right).sum(axis=1)
    return _middle(total[count > 0] / count[count > 0])


def spearman_bootstrap(frame: pd.DataFrame, x: str, y: str) -> tuple[float, float]:
    """95 % of the mean over tasks of Spearman's correlation of ``x`` and ``y``, the seeds of each task drawn again.

    ``frame`` has one line a task, seed and ``place``; seeds that lack a value are left out, and so are tasks in which
    a column is constant. NaN, NaN where a task has fewer than two seeds.
    """
    rng = np.random.default_rng(0)
    draws: list[Floats] = []
    for _, part in parts(frame, "task"):
        sides = [part.pivot(index="seed", columns="place", values=value).to_numpy(dtype=np.float64) for value in (x, y)]
        whole = ~np.isnan(sides).any(axis=(0, 2))
        left, right = (side[whole] for side in sides)
        if len(left) < 2:
            return NONE
        if np.ptp(left) and np.ptp(right):
            seeds = rng.integers(len(left), size=(DRAWS // 4, len(left)))
            draws.append(_spearman(left[seeds].reshape(len(seeds), -1), right[seeds].reshape(len(seeds), -1)))
    return _middle(np.mean(draws, axis=0)) if draws else NONE


def _spearman(x: Floats, y: Floats) -> Floats:
    """Spearman's correlation of each line of x with the same line of y, [lines]."""
    a, b = (stats.rankdata(side, axis=1) for side in (x, y))
    a, b = (side - side.mean(axis=1, keepdims=True) for side in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def _middle(draws: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return float(low), float(high)
