"""What each round said of every row, in the run directory: its candidates' scores, and where to look a row up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from thresher.arrays import Floats
from thresher.auditing.run import RunDirectory
from thresher.calibration.canaries import Round
from thresher.calibration.candidates import ScoredRound
from thresher.checksums import verified
from thresher.scores.names import ScoreName
from thresher.scores.stored import read_scores, write_scores


def write_candidates(run_dir: RunDirectory, one: Round, scores: Mapping[ScoreName, Floats]) -> None:
    """A round's ``candidates.parquet``: one line a row of the round, one column a score [N']."""
    write_scores(run_dir.candidates, scores, {"row": one.rows, "canary": one.wrong})


def read_candidates(run_dir: RunDirectory, wanted: Collection[str] | None = None) -> ScoredRound:
    """What a round left in ``candidates.parquet``: all scores, or those of the names that are ``wanted``."""
    about = pd.read_parquet(verified(run_dir.candidates), columns=["row", "canary"])
    return ScoredRound(about["row"].to_numpy(), about["canary"].to_numpy(), read_scores(run_dir.candidates, wanted))


def rounds_as_given(run_dir: RunDirectory, rows: Sequence[int]) -> dict[int, list[int]]:
    """For each round the rows to look up in it: of every row the first round in which it was no canary."""
    left, found, number = list(rows), dict[int, list[int]](), 0
    while left:
        canary = pd.read_parquet(verified(run_dir.round(number).candidates), columns=["canary"])["canary"].to_numpy()
        found[number] = [row for row in left if not canary[row]]
        left, number = [row for row in left if canary[row]], number + 1
    return found
