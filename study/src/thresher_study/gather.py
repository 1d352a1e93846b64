"""Read what the finished jobs of a study left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from thresher.checksums import verified
from thresher.errors import RunError
from thresher.files import read_json
from thresher.scores.stored import read_scores
from thresher_study.config import REFERENCES, Cell, StudyConfig
from thresher_study.jobs import StudyJob, audits, run_of, views_of
from thresher_study.results import Results
from thresher_study.views import PARTS


def gather(study: StudyConfig) -> Results:
    """Every finished job's numbers. Raises :class:`RunError` where no audit is finished."""
    cells = [job.cell for job in audits(study) if job.done(study)]
    if not cells:
        raise RunError(f"{study.output}: no audit of this study is finished yet.")
    views = {name: _views(study, cells, name) for name in ("detection", "cancellation", "modules", "moves")}
    by_key = {(cell.model, cell.task, cell.seed): cell for cell in cells}

    def scores(model: str, task: str, seed: int) -> pd.DataFrame:
        place = run_of(study, by_key[model, task, seed])
        verdicts = pd.read_parquet(verified(place.scores), columns=["row", "planted"])
        return verdicts.join(pd.DataFrame({one.name: values for one, values in read_scores(place.all_scores).items()}))

    accuracy = pd.DataFrame(_accuracy(study, cells, views["detection"]))
    models = tuple(name for name in study.models if name in {cell.model for cell in cells})
    tasks = tuple(name for name in study.every_task if name in {cell.task for cell in cells})
    return Results(accuracy=accuracy, scores=scores, model_names=models, task_names=tasks, **views)


def _views(study: StudyConfig, cells: list[Cell], name: str) -> pd.DataFrame:
    tables = [_about(pd.read_parquet(verified(views_of(study, cell) / f"{name}.parquet")), cell) for cell in cells]
    return pd.concat(tables, ignore_index=True)


def _about(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    front = pd.DataFrame({"model": cell.model, "task": cell.task, "seed": cell.seed}, index=table.index)
    return pd.concat([front, table], axis=1)


def _accuracy(study: StudyConfig, cells: list[Cell], detection: pd.DataFrame) -> Iterator[dict[str, Any]]:
    known: Any = detection.drop_duplicates("score").set_index("score")[list(PARTS)]
    parts: dict[str, Any] = {name: dict.fromkeys(PARTS) for name in REFERENCES} | known.to_dict("index")
    for cell in cells:
        for score, of_score in parts.items():
            judged = read_json(StudyJob(cell, score).result(study))
            if judged is not None:
                yield {
                    **{"model": cell.model, "task": cell.task, "seed": cell.seed, "score": score},
                    **of_score,
                    "accuracy": judged["accuracy"],
                    "margin_95": judged["accuracy_margin_95"],
                    "best_epoch_accuracy": judged["best_epoch_accuracy"],
                }
