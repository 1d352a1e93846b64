"""What dropping and relabelling buy: the same recipe from the same initial weights, judged on the test rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from thresher.arrays import Indices
from thresher.auditing.decide import Decision
from thresher.auditing.prepare import Job, prepare
from thresher.auditing.rounds import find_learning_rate
from thresher.auditing.run import RunDirectory
from thresher.calibration.repair import split_relabels
from thresher.checksums import is_damaged
from thresher.config import AuditConfig
from thresher.data.encode import EncodedRows
from thresher.files import read_json, remove, restore_folder, write_json
from thresher.locks import hold
from thresher.model.checkpoints import load_checkpoint, read_checkpoints
from thresher.model.finetune import CHECKPOINTS, finetune, retell
from thresher.progress import Progress, Silent
from thresher.track import Tracker, Untracked, curves

RowsOf = Callable[[], EncodedRows]


def retrain_on(
    config: AuditConfig, sets: Mapping[str, Indices], progress: Progress | None = None, *, every_epoch: bool = False
) -> dict[str, dict[str, float]]:
    """Fine-tune anew on some of an audit's training rows, from the same initial weights, and judge on its test rows.

    Args:
        config: the audit's configuration, with ``test`` rows. Where it has no learning rate, the one that the audit
            found is taken. The results are kept in ``retrained/`` of its ``output``, and what is there is not done
            again.
        sets: the rows to train on by a name of yours: positions in the training file, int64 [m]; labels are those that
            the audit trained on, planted errors included.
        progress: who is told how far it is; by default nobody.
        every_epoch: judge the weights of every epoch as well, and give the best as ``best_epoch_accuracy``.

    Returns:
        Numbers of the test rows by set and name, such as ``accuracy`` and ``accuracy_margin_95``; larger = better.

    Raises:
        ThresherError: in one sentence, for anything that you can mend.
    """
    progress = progress or Silent()
    job, run_dir = prepare(config), RunDirectory(config.output)
    train = job.encoded["train"]
    encoded: dict[str, RowsOf] = {name: partial(train.take, rows) for name, rows in sets.items()}
    with hold(run_dir.path, shared=True):  # with other retrainings
        job = find_learning_rate(job, run_dir, progress)
        return retrain(job, run_dir, encoded, progress, every_epoch=every_epoch)


def retrain(
    job: Job,
    run_dir: RunDirectory,
    sets: Mapping[str, RowsOf],
    progress: Progress,
    *,
    every_epoch: bool = False,
    tracker: Tracker | None = None,
) -> dict[str, dict[str, float]]:
    """What the test rows say of each training set; one that is finished is not trained on again.

    ``all_rows`` of an audit without canaries were trained on already. The model is judged at the epoch that the queries
    chose; with ``every_epoch`` also at the one that the test rows themselves would choose (``best_epoch_accuracy``).
    """
    found: dict[str, dict[str, float]] = {}
    step = job.config.rows_a_step(len(job.encoded["train"]))  # of all rows, so that sets differ in nothing else
    for name, rows in sets.items():
        file = run_dir.retrained / f"{name}.json"
        told = curves(tracker or Untracked(), f"retraining_{name}")
        restore_folder(run_dir.retrained / name)
        if is_damaged(file):
            remove(file)
        if not file.exists() and name == "all_rows" and not job.auto and run_dir.judged.exists():
            write_json(file, read_json(run_dir.judged))
        if file.exists():
            retell(run_dir.retrained / name, told)
        else:
            job.reset_weights()
            history = finetune(
                job.subject,
                rows(),
                job.encoded["query"],
                job.config.model_copy(update={"keep_checkpoints": every_epoch, "batch_size": step}),
                seed=job.config.seed,
                folder=run_dir.retrained / name,
                progress=progress,
                name=f"retraining: {name.replace('_', ' ')}",
                on_epoch_end=told,
            )
            judged = job.evaluate()
            if every_epoch:
                judged |= _best_epoch(job, run_dir.retrained / name, history.chosen, judged)
            write_json(file, judged)
        found[name] = read_json(file)
    return found


def _best_epoch(job: Job, folder: Path, chosen: int, judged: dict[str, float]) -> dict[str, float]:
    first = job.task.measures[0].key
    said = [judged[first]]
    for number, checkpoint in enumerate(read_checkpoints(folder / CHECKPOINTS)):
        if number != chosen:
            load_checkpoint(job.subject.model, checkpoint)
            said.append(job.evaluate()[first])
    return {f"best_epoch_{first}": max(said)}


def training_sets(job: Job, decision: Decision) -> Mapping[str, RowsOf]:
    """Indices to train on, by name; those of dropping and relabelling only where there is a row to drop."""
    train = job.encoded["train"]
    sets: dict[str, RowsOf] = {"all_rows": lambda: train}
    if len(decision.dropped):
        at_random = np.random.default_rng([job.config.seed, 1]).choice(len(train), len(decision.dropped), replace=False)
        sets["dropped"] = lambda: train.without(decision.dropped)
        sets["dropped_at_random"] = lambda: train.without(at_random)
        if "suggested" in decision.table:
            sets["relabelled"] = lambda: _relabel(job, decision)
    if job.config.plant:
        sets["errors_removed"] = lambda: train.take(np.flatnonzero(~job.planted))
    return sets


def _relabel(job: Job, decision: Decision) -> EncodedRows:
    train = job.encoded["train"]
    relabel, drop = split_relabels(decision.table, decision.dropped)
    labels = train.labels
    assert isinstance(labels, Tensor)
    labels = labels.clone()
    for row in relabel:
        labels[row] = job.subject.classes[decision.table.loc[row, "suggested"]]
    return replace(train, labels=labels).without(drop)
