"""The main job: rows and a model in; every row ranked from most to least detrimental out (SPEC 1 to 6).

Each stage leaves a finished file in the run directory and is passed over where the file is there, so that the same
command goes on after a kill.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xarray as xr

from thresher.config import AuditConfig, make_config
from thresher.data.encode import EncodedRows
from thresher.errors import RunError
from thresher.evaluate.cancellation import store_cancellation
from thresher.files import read_json, write_json, written
from thresher.gradients.store import Side
from thresher.influences.checkpoints import SUMMED, CheckpointSum, multipliers_now
from thresher.influences.compute import module_matrices
from thresher.influences.gather import gather
from thresher.influences.tensor import SIGN, TensorFile, labelled
from thresher.model.checkpoints import Checkpoint, read_checkpoints
from thresher.model.classes import CLASSES_FILE
from thresher.model.finetune import CHECKPOINTS, History, finetune
from thresher.model.losses import correct_rows
from thresher.model.predict import Predictions, predict, read_predictions, write_predictions
from thresher.model.quiet import quiet
from thresher.prepare import Job, prepare
from thresher.progress import Progress, Silent
from thresher.report.summary import Findings, summarise
from thresher.run import RunDirectory, open_finished
from thresher.scores.aggregate import Floats
from thresher.scores.table import Configuration, choose, rows_to_drop, score_all, wanted


@dataclass(frozen=True)
class AuditResult:
    """A finished audit, read from its run directory.

    ``scores`` has one line a training row, in the file's order: ``score`` (larger = helpful), ``rank`` (0 = most
    detrimental), what the model says, and every configuration's score. ``summary`` is summary.json.
    """

    folder: Path
    scores: pd.DataFrame
    summary: dict[str, Any]

    @property
    def tensor(self) -> xr.Dataset:
        """The influence tensor, read from disk as it is used."""
        return TensorFile(RunDirectory(self.folder).tensor).open()


def audit(config: AuditConfig | Mapping[str, Any] | str | Path) -> AuditResult:
    """Audit a training set: fine-tune (or take what is fine-tuned), compute influence, rank every row.

    ``config`` is an :class:`AuditConfig`, a mapping of its fields, or a YAML file of them. Raises a
    :class:`ThresherError` in one sentence for anything the user can mend.
    """
    if isinstance(config, (str, Path)):
        config = make_config(AuditConfig, {}, Path(config))
    elif not isinstance(config, AuditConfig):
        config = make_config(AuditConfig, dict(config))
    return run(prepare(config), Silent())


def run(job: Job, progress: Progress) -> AuditResult:
    """Run, or go on with, a prepared audit."""
    place = RunDirectory(job.config.output)
    place.open(job.config, job.inputs)
    with place.timed("fine-tuning"):
        history = _finetuned(job, place, progress)
    with place.timed("influence"):
        _influence(job, place, progress)
    with place.timed("scores"):
        scores = score_all(TensorFile(place.tensor).open(), job.modules, job.config.k, progress)
        chosen = choose(scores, wanted(job.config))
        table = _score_table(job, place, scores, chosen)
    with place.timed("retraining"):
        judged = _retrained(job, place, table, progress) if job.config.retrain else None
    write_json(place.summary, summarise(job, place, Findings(scores, chosen, table, history, judged)))
    return load_result(place.path)


def load_result(folder: Path) -> AuditResult:
    """A finished audit from its run directory. Raises :class:`RunError` if it is not finished."""
    _, _, scores, summary = open_finished(folder)
    return AuditResult(folder, scores, summary)


def _finetuned(job: Job, place: RunDirectory, progress: Progress) -> History | None:
    if job.subject.kind != "lora":
        return None
    history = finetune(
        job.subject,
        job.encoded["train"],
        job.encoded["query"],
        job.config,
        seed=job.config.seed,
        folder=place.training,
        progress=progress,
    )
    model: Any = job.subject.model
    with quiet():
        model.save_pretrained(place.model)
        job.subject.tokenizer.save_pretrained(place.model)
    if job.subject.classes:
        write_json(place.model / CLASSES_FILE, job.subject.classes)
    return history


def _influence(job: Job, place: RunDirectory, progress: Progress) -> None:
    file = TensorFile(place.tensor)
    if file.complete and place.predictions.exists():
        _remove_scratch(place)
        return
    config, model = job.config, job.subject.model
    data: dict[Side, EncodedRows] = {"query": job.encoded["query"], "train": job.encoded["train"]}
    _refuse_full_disk(place, job.gradient_bytes)
    gathered = partial(gather, model, data=data, batch_size=config.batch_size, memory=config.memory_bytes)
    checkpoints = _checkpoints(job, place)
    summed = None
    if SUMMED in config.methods:
        weights = job.kept.weights
        frame = labelled(weights.modules, np.zeros(len(data["query"]), dtype=bool), len(data["train"]))
        sums = CheckpointSum(model, weights.modules, checkpoints, partial(gathered, weights))
        summed = sums.on_disk(place.sums, frame, progress).open()[SUMMED]
    store = gathered(
        job.kept,
        folder=place.gradients,
        progress=progress,
        multipliers=multipliers_now(model, checkpoints, job.modules, config.methods),
    )
    predictions = {side: Predictions(*store.predictions(side)) for side in data}
    write_predictions(place.predictions, predictions)
    plain = job.kept.weights.modules and not config.projection and not config.optimizer_aware
    if plain and not place.cancellation.exists():
        with written(place.cancellation) as temporary:
            store_cancellation(store, job.kept.weights.modules, progress).to_parquet(temporary, index=False)
    correct = correct_rows(predictions["query"].outputs, data["query"].labels, model.config).numpy()
    file.create(labelled(job.modules, correct, len(data["train"])), config.methods)
    with progress.stage("influence of modules", len(job.modules)) as advance:
        advance(file.finished_modules)
        for number in range(file.finished_modules, len(job.modules)):
            matrices = module_matrices(store, job.modules[number], config.methods)
            if summed is not None and job.modules[number].kind == "weight":  # weights come first
                matrices[SUMMED] = summed[number].values
            file.write(number, matrices, len(job.modules))
            advance(1)
    _remove_scratch(place)


def _checkpoints(job: Job, place: RunDirectory) -> Sequence[Checkpoint]:
    """Those the user named, or those that our own fine-tuning kept for what was asked."""
    if job.checkpoints or not job.needs_checkpoints:
        return job.checkpoints
    return read_checkpoints(place.training / CHECKPOINTS, optimizer_aware=job.config.optimizer_aware)


def _remove_scratch(place: RunDirectory) -> None:
    for folder in (place.gradients, place.sums):
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_full_disk(place: RunDirectory, needed: int) -> None:
    blocks = [*place.gradients.glob("*.safetensors"), *place.sums.rglob("*.safetensors")]
    free = shutil.disk_usage(place.path).free + sum(file.stat().st_size for file in blocks)
    if needed > free:
        raise RunError(
            f"{place.path}: the gradients take {needed / 2**30:.1f} GiB of disk and {free / 2**30:.1f} are free; "
            "choose fewer --modules, or an --output on a larger disk."
        )


def _score_table(
    job: Job, place: RunDirectory, scores: Mapping[Configuration, Floats], chosen: Configuration
) -> pd.DataFrame:
    """scores.parquet: one line a training row, in the order of the file."""
    said = job.task.said(job.subject, job.encoded["train"], read_predictions(place.predictions, "train"))
    order = np.argsort(scores[chosen], kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    columns: dict[str, Any] = {
        "row": np.arange(len(order)),
        "score": scores[chosen],
        "rank": rank,
        **said,
    }
    if job.config.plant:
        columns["planted"] = job.planted
    columns |= {configuration.name: values for configuration, values in scores.items()}
    arrow = pa.table(columns).replace_schema_metadata({"sign": SIGN, "score": chosen.name})
    with written(place.scores) as temporary:
        pq.write_table(arrow, temporary)
    return pd.read_parquet(place.scores)


def _retrained(job: Job, place: RunDirectory, table: pd.DataFrame, progress: Progress) -> dict[str, dict[str, float]]:
    """What the test rows say of four training sets, each from the same initial weights by the same recipe."""
    every = np.arange(len(table))
    lowest = rows_to_drop(table, job.config.drop)
    at_random = np.random.default_rng([job.config.seed, 1]).choice(every, len(lowest), replace=False)
    kept = {"dropped": np.setdiff1d(every, lowest), "dropped_at_random": np.setdiff1d(every, at_random)}
    if job.config.plant:
        kept["errors_removed"] = np.flatnonzero(~job.planted)
    found = {"all_rows": _judged(job)}
    for name, rows in kept.items():
        file = place.retrained / f"{name}.json"
        if not file.exists():
            _put_back(job)
            finetune(
                job.subject,
                job.encoded["train"].take(rows),
                job.encoded["query"],
                job.config.model_copy(update={"keep_checkpoints": False}),
                seed=job.config.seed,
                folder=place.retrained / name,
                progress=progress,
                name=f"retraining: {name.replace('_', ' ')}",
            )
            write_json(file, _judged(job))
        found[name] = read_json(file)
    return found


def _put_back(job: Job) -> None:
    with torch.no_grad():
        for name, parameter in job.subject.model.named_parameters():
            if name in job.initial:
                parameter.copy_(job.initial[name])


def _judged(job: Job) -> dict[str, float]:
    test = job.encoded["test"]
    return job.task.judge(job.subject, test, predict(job.subject, test, job.config.batch_size))
