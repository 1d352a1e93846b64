"""What the runs of a study found, as tidy tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Results:
    """One line a run (model, task, seed) and what the other columns name; larger scores = helpful.

    ``detection`` and ``accuracy`` are by the name of a ``score`` with its ``influence``, ``group``,
    ``aggregation`` and ``k``, which detectors lack; ``accuracy`` also has the scores ``all_rows``, ``errors_removed``
    and ``random``, and is empty where nothing was retrained. ``cancellation`` is by layer group. ``modules`` has the
    NDR@30 of each module alone, by layer (-1 outside the layers), projection and factor, Vote for several ``k``.
    ``moves`` has the rank (0 = most detrimental of ``rows``) of single rows at every layer. ``scores`` reads
    those of one run: ``row``, ``planted``, and one column a score.
    """

    detection: pd.DataFrame
    accuracy: pd.DataFrame
    cancellation: pd.DataFrame
    modules: pd.DataFrame
    moves: pd.DataFrame
    scores: Callable[[str, str, int], pd.DataFrame]
    model_names: tuple[str, ...]
    task_names: tuple[str, ...]
