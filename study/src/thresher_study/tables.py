"""The tables of method.md 7, in order."""

from __future__ import annotations

import pandas as pd

from thresher_study.aggregation_table import aggregation_table
from thresher_study.cancellation_table import cancellation_table
from thresher_study.front_table import front_table
from thresher_study.pieces import Absent, Table
from thresher_study.prediction_table import prediction_table
from thresher_study.results import Results


def all_tables(results: Results, grid: pd.DataFrame) -> list[Table | Absent]:
    """T1 to T4 of ``results``, whose :func:`thresher_study.grid.grid` is ``grid``."""
    builders = (cancellation_table, front_table, aggregation_table, prediction_table)
    return [build(results, grid) for build in builders]
