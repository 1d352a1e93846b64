"""One job of a study, by its name: what a worker does, wherever it is."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

import thresher
from thresher.checksums import verified
from thresher.data.table import write_table
from thresher.errors import ConfigError, ThresherError, first_line, trace
from thresher.files import atomic_write, remove, write_json
from thresher.progress import Progress, Silent
from thresher.scores.stored import read_scores
from thresher.scores.table import lowest_of
from thresher_study.config import Cell, StudyConfig, audit_of, cells, rows_of
from thresher_study.glue import glue_rows
from thresher_study.jobs import StudyJob, file_name, named, run_of, views_of
from thresher_study.outcome import Outcome
from thresher_study.place import made_with, read_plan
from thresher_study.views import write_views

log = logging.getLogger(__name__)


def work(folder: Path, name: str, progress: Progress | None = None) -> Outcome:
    """Do the job ``name`` of the study in ``folder``. What goes wrong is its outcome, and a file in ``logs/``."""
    started = time.monotonic()
    failed = folder / "logs" / f"{name.replace('/', '-')}.txt"
    try:
        do(read_plan(folder), name, progress or Silent())
    except Exception as error:
        with atomic_write(failed) as temporary:
            temporary.write_text(trace(error) + "\n", encoding="utf-8")
        return Outcome(name, time.monotonic() - started, f"{first_line(error)} ({failed})")
    failed.unlink(missing_ok=True)
    return Outcome(name, time.monotonic() - started, None)


def do(study: StudyConfig, name: str, progress: Progress) -> None:
    """The same, and errors are raised."""
    job = named(study, name)
    if job.done(study):
        return
    if job.score is None:
        _audit(study, job.cell, progress)
    else:
        _retrain(study, job, job.score, progress)


def _audit(study: StudyConfig, cell: Cell, progress: Progress) -> None:
    draw_rows(study, cell)
    write_json(views_of(study, cell) / "options.json", made_with(study, cell))
    result = thresher.audit(audit_of(study, cell), progress=progress)
    write_views(result, views_of(study, cell), cell.seed, progress)
    if not study.keep_tensors:
        remove(run_of(study, cell).tensor)


def check_sources(study: StudyConfig) -> None:
    """Raise the :class:`ThresherError` that every job of a model and task would end with, of all that is known soon."""
    for cell in cells(study):
        if cell.seed == study.seeds[0]:
            draw_rows(study, cell)
            try:
                thresher.check_audit(audit_of(study, cell))
            except ThresherError as error:
                raise ConfigError(f"{cell.name}: {error}") from None


def draw_rows(study: StudyConfig, cell: Cell) -> None:
    """Write the rows of a GLUE task where the audit will read them; the last file is the test rows'."""
    if cell.task in study.own_tasks:
        return
    files = {part: Path(rows_of(study, cell)[part]) for part in ("train", "validation", "test")}
    if not files["test"].exists():
        drawn = glue_rows(cell.task, study.glue_dir, study.train_rows, study.clean_rows, cell.seed)
        for part, table in (("train", drawn.train), ("validation", drawn.query), ("test", drawn.test)):
            write_table(table, files[part])


def _retrain(study: StudyConfig, wanted: StudyJob, score: str, progress: Progress) -> None:
    config, place = audit_of(study, wanted.cell), run_of(study, wanted.cell)
    config = config.model_copy(update={"bf16": config.bf16 or study.retrain_bf16})
    rows = _kept(place, score, study.drop, config.seed)
    thresher.retrain_on(config, {file_name(score): rows}, progress, every_epoch=True)
    remove(place.retrained / file_name(score))  # states of the training


def _kept(place: thresher.RunDirectory, score: str, drop: float, seed: int) -> npt.NDArray[np.int64]:
    """The training rows that are trained on again, in the order of the file."""
    planted = pd.read_parquet(verified(place.scores), columns=["planted"])["planted"].to_numpy()
    every = np.arange(len(planted))
    if score == "all_rows":
        return every
    if score == "errors_removed":
        return np.flatnonzero(~planted)
    if score == "random":
        values = np.random.default_rng([seed, 1]).random(len(every))
    else:
        values = {one.name: values for one, values in read_scores(place.all_scores).items()}[score]
    return np.setdiff1d(every, lowest_of(values, drop))
