"""The main job: rows and a model in; every row ranked from most to least detrimental out (method.md 1 to 6).

Each stage leaves a finished file in the run directory and is passed over where the file is there, so that the same
command goes on after a kill.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from thresher.auditing.cost import refuse_full_disk
from thresher.auditing.decide import decide
from thresher.auditing.doubts import doubt_of
from thresher.auditing.drawn import keep_drawn
from thresher.auditing.known import ask_before_training, knowledge_of
from thresher.auditing.prepare import Job
from thresher.auditing.quick import look
from thresher.auditing.retrain import retrain, training_sets
from thresher.auditing.rounds import find_learning_rate, run_round, with_alike_canaries
from thresher.auditing.run import RunDirectory
from thresher.auditing.summary import Findings, results, summarise
from thresher.auditing.untrained import look_before_training
from thresher.calibration.repair import lost_classes
from thresher.files import told_of_disk
from thresher.locks import hold
from thresher.model.finetune import History
from thresher.progress import Progress, Within
from thresher.summary import write_summary
from thresher.track import Tracker, curves, tracking

log = logging.getLogger(__name__)


Report = Callable[[RunDirectory], None]
"""What writes the report of a finished run; it knows this room, so this room is handed it."""


def run(job: Job, progress: Progress, report: Report | None = None) -> Path:
    """Run, or go on with, a prepared audit, and in the end write its ``report``.

    Returns:
        Its run directory.
    """
    run_dir = RunDirectory(job.config.output)
    run_dir.refuse_other(job.config, job.inputs)
    with hold(run_dir.path), told_of_disk():
        run_dir.open(job.config, job.inputs)
        refuse_full_disk(job, run_dir.path)
        keep_drawn(run_dir, job.drawn, job.tables["train"], job.config)
        with tracking(job.config.log_to, run_dir.path) as tracker:
            _run(job, run_dir, progress, tracker)
        if report is not None:
            report(run_dir)
    return run_dir.path


def _run(job: Job, run_dir: RunDirectory, progress: Progress, tracker: Tracker) -> None:
    """Every stage that is not finished, up to summary.json."""
    tracker.parameters(job.config.model_dump(mode="json"))
    with run_dir.time_stage("features"):
        untrained = look_before_training(job, run_dir, progress)
        ask_before_training(job, run_dir)
        job = with_alike_canaries(job, run_dir, untrained.frozen)
    if job.config.quick:
        for one in job.rounds:
            look(job, one, run_dir.round(one.number), untrained)
        _conclude(job, run_dir, None, progress, tracker)
        return
    if job.searches:
        with run_dir.time_stage("learning rate"):
            job = find_learning_rate(job, run_dir, progress)
    histories: list[History | None] = []
    for one in job.rounds:
        shown = Within(progress, f"round {one.number + 1} of {len(job.rounds)}") if job.auto else progress
        told = curves(tracker, f"round_{one.number + 1}" if job.auto else "training")
        histories.append(run_round(job, one, run_dir.round(one.number), untrained, shown, run_dir.time_stage, told))
        if one.number == 0:
            _warn_of_unlearned(job, run_dir)
    _conclude(job, run_dir, histories[0], progress, tracker)


def _conclude(job: Job, run_dir: RunDirectory, history: History | None, progress: Progress, tracker: Tracker) -> None:
    """From all rounds to summary.json."""
    with run_dir.time_stage("scores"):
        decision = decide(job, run_dir)
    lost = lost_classes(decision.table, np.setdiff1d(decision.table["row"], decision.dropped), {})
    if lost:
        log.warning("Dropping what this audit says to drop would leave no row of class %s.", ", ".join(lost))
    with run_dir.time_stage("retraining"):
        judged = None
        if job.config.retrain:
            judged = retrain(job, run_dir, training_sets(job, decision), progress, tracker=tracker)
    found = summarise(job, run_dir, Findings(decision, history, judged))
    write_summary(run_dir.summary, found)
    tracker.numbers(results(found))


def _warn_of_unlearned(job: Job, run_dir: RunDirectory) -> None:
    """As soon as it is known: whoever waits for the rest may want to stop here."""
    known = knowledge_of(job, run_dir)
    doubt = known and doubt_of(known, chosen=job.auto)
    if doubt:
        log.warning(doubt)
