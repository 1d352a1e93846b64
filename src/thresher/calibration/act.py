"""``thresher.clean``: what is done with rows that are likely wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from thresher.arrays import Indices
from thresher.calibration.arrays import Calibrated
from thresher.calibration.repair import split_relabels
from thresher.errors import ConfigError, DataError
from thresher.scores.table import lowest

R = TypeVar("R")
Rows = TypeVar("Rows", pd.DataFrame, list)


@dataclass(frozen=True)
class Action:
    """Of n rows those that are ``kept``, in their order, and of these the ``relabelled``; and those ``dropped``."""

    kept: Indices
    relabelled: Indices
    dropped: Indices


def act_on(table: pd.DataFrame, share: float, *, relabel: bool) -> Action:
    """Drop the share of lowest rank, or relabel those of them whose suggestion is more likely right than not.

    ``table`` has ``rank``, and to relabel ``suggestion_confidence``.
    """
    dropped, relabelled = lowest(table, share), np.empty(0, np.int64)
    if relabel:
        relabelled, dropped = split_relabels(table, dropped)
    return Action(np.setdiff1d(np.arange(len(table)), dropped), relabelled, dropped)


def clean(
    rows: Rows,
    verdicts: Calibrated,
    *,
    drop: float | None = None,
    relabel: Callable[[R, int], R] | str | None = None,
) -> Rows:
    """The rows less those that are more likely wrong than right, or with better labels.

    Args:
        rows: What was calibrated, [n]: a table, or a list.
        verdicts: What :func:`thresher.calibrate` says of them.
        drop: Share of the rows to drop, from the lowest score up; by default those more likely wrong than right, or
            where no probability is known as many as are thought wrong.
        relabel: Gives rows whose suggested label is more likely right than not that label instead: the column of a
            table, or a function of a row and its suggested class that gives the row to keep. Without probabilities
            no row is relabelled.

    Returns:
        The rows kept, in their order; of a table with their index. The rows given stay as they are.

    Raises:
        DataError: For verdicts on other rows.
        ConfigError: For a share that is none, where nothing says how many to drop, or to relabel without suggestions.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"text": ["good", "bad", "fine"], "label": [1, 1, 1]})
        >>> table = pd.DataFrame(
        ...     {"rank": [2, 1, 3], "probability_wrong": [0.1, 0.9, 0.2],
        ...      "suggested": [0, 0, 0], "suggestion_confidence": [0.1, 0.9, 0.2]}
        ... )
        >>> verdicts = Calibrated(table, None, "canaries")
        >>> clean(rows, verdicts)["text"].tolist()
        ['good', 'fine']
        >>> clean(rows, verdicts, relabel="label")["label"].tolist()
        [1, 0, 1]
    """
    table = verdicts.table
    if len(rows) != len(table):
        raise DataError(f"rows: there are {len(rows)}, and verdicts on {len(table)}; give the rows that were ranked.")
    if drop is None and verdicts.share is None and not np.isfinite(table["probability_wrong"]).any():
        raise ConfigError("Nothing tells how many rows are wrong; say what share of them to drop=.")
    share = len(verdicts.suspicious) / len(table) if drop is None else drop
    if not 0 <= share < 1:
        raise ConfigError(f"drop = {share}: write the share of rows to drop, from 0 up to but not including 1.")
    if relabel is not None and "suggested" not in table:
        raise ConfigError("relabel: there are no suggestions; calibrate with opinions of clean queries or pred_probs.")
    action = act_on(table, share, relabel=relabel is not None)
    better = (
        dict(zip(action.relabelled.tolist(), table["suggested"].iloc[action.relabelled], strict=True))
        if relabel is not None
        else {}
    )
    if isinstance(rows, pd.DataFrame):
        return _of_table(rows, action, better, relabel)
    assert not isinstance(relabel, str)
    return [
        relabel(rows[row], int(better[row])) if relabel and row in better else rows[row] for row in action.kept.tolist()
    ]


def _of_table(rows: pd.DataFrame, action: Action, better: dict[int, int], relabel: object) -> pd.DataFrame:
    if callable(relabel) or (relabel is not None and relabel not in rows):
        raise ConfigError(f"relabel: name the column of the label, one of {', '.join(map(str, rows))}.")
    changed = rows.copy()
    for row, label in better.items():
        changed.iloc[row, rows.columns.get_loc(relabel)] = label
    return changed.iloc[action.kept]
