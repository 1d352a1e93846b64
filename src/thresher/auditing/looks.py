"""What each round said of every row, in the run directory: its candidates' scores, and where to look a row up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from thresher.arrays import Floats
from thresher.auditing.run import RunDirectory
from thresher.calibration.canaries import Round
from thresher.files import written


def write_candidates(place: RunDirectory, one: Round, scores: Mapping[str, Floats]) -> None:
    """A round's ``candidates.parquet``: one line a row of the round, one column a score [N']."""
    with written(place.candidates) as temporary:
        pd.DataFrame({"row": one.rows, "canary": one.wrong, **scores}).to_parquet(temporary, index=False)


def as_given(place: RunDirectory, rows: Sequence[int]) -> dict[int, list[int]]:
    """For each round the rows to look up in it: of every row the first round in which it was no canary."""
    left, found, number = list(rows), dict[int, list[int]](), 0
    while left:
        canary = pd.read_parquet(place.round(number).candidates, columns=["canary"])["canary"].to_numpy()
        found[number] = [row for row in left if not canary[row]]
        left, number = [row for row in left if canary[row]], number + 1
    return found
