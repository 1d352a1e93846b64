"""What every score of a study came to, as the long table that ``thresher compare`` takes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from thresher_study.grid import RUN
from thresher_study.results import Results
from thresher_study.views import PARTS

OUTCOMES = "outcomes.csv"


def outcomes(results: Results) -> pd.DataFrame:
    """One line a run (``model``, ``task``, ``seed``) and ``score``, with the score's parts, what it found and gave.

    What it found is NaN for the sets that no score chose, and ``accuracy`` for scores by which nothing was retrained.
    """
    if results.accuracy.empty:
        return results.detection
    judged = results.accuracy
    found = results.detection.merge(judged.drop(columns=list(PARTS)), how="left", on=[*RUN, "score"])
    unchosen: Any = judged[~judged["score"].isin(found["score"].tolist())]
    return pd.concat([found, unchosen], ignore_index=True)
