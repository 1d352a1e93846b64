"""The jobs of a study: audits, then retrainings of what these found. A job is known by its name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from thresher import RunDirectory
from thresher.checksums import is_damaged
from thresher.scores.names import Configuration
from thresher_study.config import REFERENCES, Cell, StudyConfig, cells
from thresher_study.views import influence_scores

AUDIT, RETRAIN = "audit", "retrain"


@dataclass(frozen=True)
class StudyJob:
    """``audit/CELL``, or ``retrain/CELL/SCORE``: train without the lowest rows of a score, or one of REFERENCES."""

    cell: Cell
    score: str | None = None

    @property
    def name(self) -> str:
        """What it is known by, from which :func:`named` makes the job again."""
        return f"{AUDIT}/{self.cell.name}" if self.score is None else f"{RETRAIN}/{self.cell.name}/{self.score}"

    @property
    def kind(self) -> str:
        """Jobs of one kind take about as long."""
        return f"{AUDIT if self.score is None else RETRAIN} {self.cell.model} {self.cell.task}"

    def done(self, study: StudyConfig) -> bool:
        """Whether its result is there, as it was written."""
        result = self.result(study)
        return result.exists() and not is_damaged(result)

    def result(self, study: StudyConfig) -> Path:
        """The file that is there once the job is done."""
        place = run_of(study, self.cell)
        if self.score is None:
            return views_of(study, self.cell) / "detection.parquet"
        return place.retrained / f"{file_name(self.score)}.json"


def run_of(study: StudyConfig, cell: Cell) -> RunDirectory:
    """The run directory of a cell's audit."""
    return RunDirectory(study.output / "runs" / cell.name)


def views_of(study: StudyConfig, cell: Cell) -> Path:
    """Where the tables are that a study keeps of a cell's audit."""
    return study.output / "views" / cell.name


def file_name(score: str) -> str:
    """A score's name without slashes."""
    return score.replace("/", "-")


def named(study: StudyConfig, name: str) -> StudyJob:
    """The job of that name."""
    kind, cell, *score = name.split("/", 2)
    found = {cell.name: cell for cell in cells(study)}[cell]
    return StudyJob(found, score[0] if kind == RETRAIN else None)


def audits(study: StudyConfig) -> list[StudyJob]:
    """One a cell."""
    return [StudyJob(cell) for cell in cells(study)]


def retrainings(study: StudyConfig) -> list[StudyJob]:
    """Those of cells whose audit is done.

    ``all``: every score of the grid. ``best``: of every influence the score that found most errors, mean over the seeds
    of a model and task. Both with the REFERENCES.
    """
    if study.retrain == "none":
        return []
    tasks = study.retrained_tasks
    finished = [job.cell for job in audits(study) if job.cell.task in tasks and job.done(study)]
    scores = _best(study, finished) if study.retrain == "best" else {cell: _all(study, cell) for cell in finished}
    return [StudyJob(cell, score) for cell in finished for score in (*REFERENCES, *scores[cell])]


def looked_at(study: StudyConfig, scores: Iterable[Configuration]) -> list[Configuration]:
    """The scores that the study looks at, of those that there are."""
    return [
        one
        for one in scores
        if one.name in study.beside
        or (one.influence in study.influences and one.group in study.groups and one.aggregation in study.aggregations)
    ]


def _all(study: StudyConfig, cell: Cell) -> list[str]:
    found = pd.read_parquet(views_of(study, cell) / "detection.parquet")
    return [one.name for one in looked_at(study, influence_scores(found))]


def _best(study: StudyConfig, finished: list[Cell]) -> dict[Cell, list[str]]:
    found: dict[Cell, list[str]] = {}
    for key in dict.fromkeys((cell.model, cell.task) for cell in finished):
        here = [cell for cell in finished if (cell.model, cell.task) == key]
        tables = [pd.read_parquet(views_of(study, cell) / "detection.parquet") for cell in here]
        whole = pd.concat(tables)
        influence = {one.name: one.influence for one in looked_at(study, influence_scores(whole))}
        mean: Any = whole[whole["score"].isin(list(influence))].groupby("score")["ndr30"].mean()
        best = [str(name) for name in mean.groupby(influence).idxmax()]
        found |= dict.fromkeys(here, best)
    return found
