"""What a study will take, from a short measurement of each model on each task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import thresher
from thresher.locks import Scratch
from thresher_study.config import REFERENCES, StudyConfig, audit_of, cells
from thresher_study.jobs import audits, looked_at, retrainings
from thresher_study.work import draw_rows


@dataclass(frozen=True)
class Expected:
    """Jobs of one model on one task that are not done, and the seconds that they take one after another."""

    model: str
    task: str
    audits: int
    audit_seconds: float
    retrainings: int
    retraining_seconds: float

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.audits * self.audit_seconds + self.retrainings * self.retraining_seconds


def expected(study: StudyConfig) -> Iterator[Expected]:
    """One a model and task, as they are measured. Nothing is written into the study's folder."""
    undone = [one.cell for one in audits(study) if not one.done(study)]
    planned = [one.cell for one in retrainings(study) if not one.done(study)]
    for cell in cells(study):
        if cell.seed != study.seeds[0]:
            continue
        with Scratch() as scratch:
            elsewhere = study.model_copy(update={"output": scratch.path})
            draw_rows(elsewhere, cell)
            plan = thresher.plan_audit(audit_of(elsewhere, cell))
        left, waiting = (
            sum((one.model, one.task) == (cell.model, cell.task) for one in waited) for waited in (undone, planned)
        )
        if cell.task in study.retrained_tasks:
            waiting += _retrainings(study, len(looked_at(study, plan.scores))) * left
        yield Expected(cell.model, cell.task, left, plan.seconds, waiting, plan.training_seconds)


def _retrainings(study: StudyConfig, scores: int) -> int:
    """Of a cell that is not audited yet."""
    best = len(study.methods)
    return {"none": 0, "best": best + len(REFERENCES), "all": scores + len(REFERENCES)}[study.retrain]
