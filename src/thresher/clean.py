"""The decision: the user's own file, in its order, less the rows of lowest score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thresher.data.table import write_table
from thresher.errors import ConfigError
from thresher.run import open_finished, read_audited
from thresher.scores.table import rows_to_drop


@dataclass(frozen=True)
class Cleaned:
    """What was written: rows kept and dropped, and how many rows carried a label that the audit had planted."""

    output: Path
    kept: int
    dropped: int
    planted: int


def clean(folder: Path, output: Path, drop: float | None = None) -> Cleaned:
    """Write the training rows of an audit less the ``drop`` share of lowest score (default: the audit's own).

    Rows and columns are the original ones, in their order. Raises :class:`RunError` if the training file has changed
    since the audit, :class:`ConfigError` for a share that is not between 0 and 1.
    """
    run, config, scores, _ = open_finished(folder)
    share = config.drop if drop is None else drop
    if not 0 <= share < 1:
        raise ConfigError(f"--drop {share}: write the share of rows to drop, from 0 up to but not including 1.")
    table = read_audited(run, config, "train")
    dropped = rows_to_drop(scores, share)
    kept = np.setdiff1d(np.arange(len(table)), dropped)
    write_table(table.take(kept.tolist()), output)
    planted = int(scores["planted"].to_numpy().sum()) if "planted" in scores else 0
    return Cleaned(output, len(kept), len(dropped), planted)
