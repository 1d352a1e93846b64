"""Which of several configurations is better, over runs in which all of them were tried.

``outcomes`` is everywhere a table of one line a run (a block of the tests: a data set, a seed) and one column a
configuration; larger values are better. Values that differ by less than 1e-12 are equal: the same rate reached by
two sums. Every function raises :class:`DataError` for a table that is empty, has two columns of one name, or lacks
a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from thresher.arrays import Floats
from thresher.errors import ConfigError, DataError

DIGITS = 12
NEMENYI_MISSING = "Nemenyi's test needs scikit-posthocs; pip install 'thresher[compare]'."


@dataclass(frozen=True)
class Friedman:
    """Friedman's test: chi-square ``statistic`` with N - 1 degrees of freedom, corrected for ties, and its ``p``.

    Both are None with fewer than 3 configurations or 2 runs, where there is no such test. ``mean_ranks`` [N] are over
    runs, 1 = best, ties sharing their mean rank; they are always there.
    """

    statistic: float | None
    p: float | None
    mean_ranks: pd.Series


@dataclass(frozen=True)
class Correlation:
    """Spearman's correlation ``pooled`` over ``rows`` rows, and ``within``, its mean over ``groups`` groups of them.

    Groups in which either column is constant have none and are not counted. NaN where there is none at all.
    """

    pooled: float
    rows: int
    within: float
    groups: int


def means(outcomes: pd.DataFrame) -> pd.DataFrame:
    """``mean`` over runs and ``margin_95``, half the width of Student's 95 % interval, of each configuration.

    The margin is NaN with one run.
    """
    values = _check(outcomes)
    runs = len(values)
    margin = np.full(values.shape[1], np.nan)
    if runs > 1:
        margin = stats.t.ppf(0.975, runs - 1) * values.std(axis=0, ddof=1) / np.sqrt(runs)
    return pd.DataFrame({"mean": values.mean(axis=0), "margin_95": margin}, index=outcomes.columns)


def win_shares(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The share of runs in which a's value is strictly greater than b's, [a, b] (method.md 5); 0 on the diagonal."""
    values = _check(outcomes)
    shares = [(column[:, None] > values).mean(axis=0) for column in values.T]
    return pd.DataFrame(np.array(shares), index=outcomes.columns, columns=outcomes.columns)


def win_rate(outcomes: pd.DataFrame) -> pd.Series:
    """The mean of a's win shares over all N configurations, a itself counted as 0, [a] (method.md 5)."""
    return win_shares(outcomes).mean(axis=1)


def fronts(outcomes: pd.DataFrame) -> pd.Series:
    """The front of each configuration, [a] int, 1 = first (method.md 5).

    Non-dominated sorting of the vectors of win shares, of which those up to one half count as 0. One dominates another
    if it is nowhere smaller and somewhere larger; a front is what nothing dominates once those before it are gone.
    """
    shares = win_shares(outcomes)
    wins = shares.to_numpy()
    wins = np.where(wins > 0.5, wins, 0.0)
    dominates = np.array([(one >= wins).all(axis=1) & (one > wins).any(axis=1) for one in wins])
    front = np.zeros(len(wins), dtype=np.int64)
    while (left := front == 0).any():
        front[left & ~dominates[left].any(axis=0)] = front.max() + 1
    return pd.Series(front, index=shares.index)


def friedman(outcomes: pd.DataFrame) -> Friedman:
    """Whether the configurations differ at all (Friedman 1937); where all are equal in every run, 0 with p = 1."""
    values = _check(outcomes)
    mean_ranks = pd.Series(stats.rankdata(-values, axis=1).mean(axis=0), index=outcomes.columns)
    runs, configurations = values.shape
    if configurations < 3 or runs < 2:
        return Friedman(None, None, mean_ranks)
    if (values == values[:, :1]).all():
        return Friedman(0.0, 1.0, mean_ranks)
    found = stats.friedmanchisquare(*values.T)
    return Friedman(float(found.statistic), float(found.pvalue), mean_ranks)


def nemenyi(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Nemenyi's p of each pair, [a, b]: which differ, corrected for there being so many (Demšar 2006); for >= 2 runs.

    Raises :class:`ConfigError` where scikit-posthocs is not installed.
    """
    if find_spec("scikit_posthocs") is None:
        raise ConfigError(NEMENYI_MISSING)
    from scikit_posthocs import posthoc_nemenyi_friedman

    found = np.asarray(posthoc_nemenyi_friedman(_check(outcomes)))
    return pd.DataFrame(found, index=outcomes.columns, columns=outcomes.columns)


def wilcoxon_holm(outcomes: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each other configuration against ``reference``, in pairs of the same run: ``difference``, ``p``, ``p_holm``.

    ``difference`` is its mean less the reference's, so negative = worse. ``p`` is Wilcoxon's signed-rank, two-sided,
    runs without a difference left out; 1 where there is a difference in none. ``p_holm`` is corrected by :func:`holm`.
    Raises :class:`DataError` if there is no such column.
    """
    values = _check(outcomes)
    if reference not in outcomes.columns:
        raise DataError(f"There is no configuration '{reference}' to compare with.")
    place = list(outcomes.columns).index(reference)
    # Rounded again: differences that are equal in decimals are to be ties in Wilcoxon's ranks.
    differences = np.delete((values - values[:, [place]]).round(DIGITS), place, axis=1)
    p = [_signed_rank(column) for column in differences.T]
    columns = {"difference": differences.mean(axis=0), "p": p, "p_holm": holm(p)}
    return pd.DataFrame(columns, index=outcomes.columns.delete(place))


def holm(p: Sequence[float]) -> Floats:
    """p values, [m], corrected for there being m of them (Holm 1979): the i-th lowest times m - i, never falling."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return corrected


def spearman_within(frame: pd.DataFrame, x: str, y: str, by: str | Sequence[str]) -> Correlation:
    """Spearman's correlation of two columns over all rows, and its mean within groups of equal ``by`` (method.md 5).

    Pooled over tasks it also says how hard each task is; within them it does not. Rows that lack either value are left
    out.
    """
    told: Any = frame.dropna(subset=[x, y])
    groups = told.groupby(by if isinstance(by, str) else list(by))
    within = np.array([_spearman(part[x], part[y]) for _, part in groups])
    within = within[~np.isnan(within)]
    mean = float(within.mean()) if len(within) else float("nan")
    return Correlation(_spearman(told[x], told[y]), len(told), mean, len(within))


def _signed_rank(differences: Floats) -> float:
    """Exact, ties or not: the chance of each sum of positive ranks, doubled to be whole, one rank after the other."""
    telling = differences[differences != 0]
    ranks = (2 * stats.rankdata(np.abs(telling))).astype(np.int64)
    chances = np.eye(1, int(ranks.sum()) + 1)[0]
    for rank in ranks:
        chances = (chances + np.concatenate([np.zeros(rank), chances[:-rank]])) / 2
    positive = int(ranks[telling > 0].sum())
    return min(1.0, 2 * float(min(chances[: positive + 1].sum(), chances[positive:].sum())))


def _spearman(x: pd.Series, y: pd.Series) -> float:
    if x.nunique() < 2 or y.nunique() < 2:
        return float("nan")
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def _check(outcomes: pd.DataFrame) -> Floats:
    values = outcomes.to_numpy(dtype=np.float64)
    if values.size == 0:
        raise DataError("Ranking configurations needs at least one run and one configuration.")
    if not outcomes.columns.is_unique:
        raise DataError("Two configurations have the same name.")
    lacking = np.argwhere(np.isnan(values))
    if len(lacking):
        run, configuration = lacking[0]
        raise DataError(
            f"Run {outcomes.index[run]} has no value of '{outcomes.columns[configuration]}'; leave out the run or the "
            "configuration."
        )
    return values.round(DIGITS)
