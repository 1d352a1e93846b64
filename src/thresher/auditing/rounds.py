"""One round of an audit: fine-tune, compute influence, and score every row by every candidate.

Each stage leaves a finished file in the round's directory and is passed over where the file is there.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.arrays import Floats
from thresher.auditing.looks import write_candidates
from thresher.auditing.prepare import Job, has
from thresher.auditing.run import RunDirectory
from thresher.auditing.untrained import Untrained
from thresher.calibration.alike import EVENLY, draw_alike, with_canaries
from thresher.calibration.canaries import ALIKE, Round
from thresher.calibration.opinions import ask_probe, opinions_of
from thresher.data.encode import EncodedRows
from thresher.detectors.evidence import Evidence, Features, Singles
from thresher.detectors.label_noise import estimate_share, learn_label_noise
from thresher.detectors.registry import detect
from thresher.errors import RunError
from thresher.evaluate.cancellation import store_cancellation
from thresher.files import atomic_write, write_json
from thresher.gradients.store import Side
from thresher.influences.checkpoints import SUMMED, CheckpointSum, multipliers_now
from thresher.influences.compute import module_matrices
from thresher.influences.gather import gather
from thresher.influences.tensor import TensorFile, make_frame
from thresher.model.checkpoints import Checkpoint, read_checkpoints
from thresher.model.classes import CLASSES_FILE
from thresher.model.features import pooled_features
from thresher.model.finetune import CHECKPOINTS, EpochCallback, History, finetune, read_epoch_predictions
from thresher.model.losses import correct_rows
from thresher.model.predict import Predictions, read_predictions, write_predictions
from thresher.model.quiet import quiet
from thresher.model.rate_search import RateTrainer, find_rate
from thresher.progress import Progress
from thresher.scores.names import DetectorScore, ScoreName
from thresher.scores.table import score_all
from thresher.tensors import read_tensors, tensors_of, write_tensors

log = logging.getLogger(__name__)

Timed = Callable[[str], AbstractContextManager[None]]


def run_round(
    job: Job,
    one: Round,
    run_dir: RunDirectory,
    untrained: Untrained,
    progress: Progress,
    timed: Timed,
    on_epoch_end: EpochCallback,
) -> History | None:
    """Everything up to ``candidates.parquet`` in ``run_dir``: one line a row of the round, one column a score.

    ``untrained`` is what is known of all rows and queries before any training; ``timed`` gives the context in which a
    stage's seconds are counted; ``on_epoch_end`` hears of the training's epochs. Returns its history, if it was ours.
    """
    with timed("fine-tuning"):
        history = _finetune(job, one, run_dir, progress, on_epoch_end)
    with timed("influence"):
        _influence(job, one, run_dir, progress)
    with timed("scores"):
        if not run_dir.candidates.exists():
            evidence = untrained.added_to(_evidence(job, one, run_dir), one.rows)
            scores: dict[ScoreName, Floats] = {}
            scores |= score_all(TensorFile(run_dir.tensor).open(), job.modules, job.ks, progress)
            with progress.stage("detectors", 1) as advance:
                scored_by = evidence if job.needs_features("frozen") else replace(evidence, frozen=None)
                scores |= {DetectorScore(name): values for name, values in detect(scored_by).items()}
                advance(1)
            if job.config.retrain:
                write_json(run_dir.judged, job.evaluate())
            if job.auto:
                write_tensors(run_dir.opinions, tensors_of(opinions_of(evidence, one.wrong)))
            elif untrained.frozen is not None:  # for what the model knows
                write_tensors(run_dir.opinions, tensors_of({"probe": ask_probe(evidence)}))
            write_candidates(run_dir, one, scores)
    return history


def find_learning_rate(job: Job, run_dir: RunDirectory, progress: Progress) -> Job:
    """The job with the learning rate that short trainings find, where the user gives none."""
    if not job.searches:
        return job
    train, query = job.encoded["train"], job.encoded["query"]
    trainer = RateTrainer(job.subject, train, query, job.config, job.reset_weights, job.config.seed)
    found = find_rate(trainer, run_dir.search, progress)
    return replace(job, config=job.config.model_copy(update={"learning_rate": found.rate}))


def with_alike_canaries(job: Job, run_dir: RunDirectory, frozen: Features | None) -> Job:
    """The job with canaries that are wrong as its rows are, drawn once and kept in ``run_dir``.

    ``frozen`` may be None where they have been drawn.
    """
    if not job.auto or job.canary_kind != ALIKE:
        return job
    numbers = [str(one.number) for one in job.rounds]
    if not run_dir.canaries.exists():
        assert frozen is not None  # of a model that is trained here there are features
        labels, truth = (job.encoded[part].classes.numpy() for part in ("train", "query"))
        noise = learn_label_noise(frozen, labels, truth, len(job.subject.classes), job.config.seed)
        told = estimate_share(noise, labels, truth, job.config.seed, np.ones(len(labels), bool))
        counts = [int(one.wrong.sum()) for one in job.rounds]
        chosen = draw_alike(noise, labels, counts, job.config.seed, EVENLY if told else 1.0)
        tensors = dict(zip(numbers, (torch.from_numpy(np.stack(one)) for one in chosen), strict=True))
        write_tensors(run_dir.canaries, tensors)
    kept, _ = read_tensors(run_dir.canaries)
    canaries = [(kept[number][0].numpy(), kept[number][1].numpy()) for number in numbers]
    return replace(job, rounds=tuple(with_canaries(job.rounds, job.encoded["train"], canaries)))


def _evidence(job: Job, one: Round, run_dir: RunDirectory) -> Evidence:
    """That of the training alone."""
    train, query = one.train, job.encoded["query"]
    now = read_predictions(run_dir.predictions, "train")
    tuned = None
    if job.needs_features("tuned"):
        features = [pooled_features(job.subject, rows, job.config.batch_size) for rows in (train, query)]
        tuned = Features(*features)
    said = read_epoch_predictions(run_dir.training) if job.subject.kind == "lora" else []
    return Evidence(
        labels=train.classes.numpy(),
        classes=now.outputs.shape[1] if has(job.subject, job.config, "classes") else 0,
        epoch_losses=_epochs([epoch.losses for epoch in said], now.losses),
        epoch_outputs=_epochs([epoch.outputs for epoch in said], now.outputs),
        losses=now.losses.numpy(),
        outputs=now.outputs.numpy(),
        query_labels=query.classes.numpy(),
        frozen=None,
        tuned=tuned,
        seed=one.seed,
        rows=one.rows,
    )


def _epochs(said: Sequence[Tensor], now: Tensor) -> Singles:
    """What was said epoch by epoch, [E, ...], each of the shape of what is said ``now``; E may be 0."""
    return torch.stack(list(said)).numpy() if said else now[None][:0].numpy()


def _finetune(
    job: Job, one: Round, run_dir: RunDirectory, progress: Progress, on_epoch_end: EpochCallback
) -> History | None:
    if job.subject.kind != "lora":
        return None
    job.reset_weights()
    history = finetune(
        job.subject,
        one.train,
        job.encoded["query"],
        job.config,
        seed=one.seed,
        folder=run_dir.training,
        progress=progress,
        on_epoch_end=on_epoch_end,
    )
    model: Any = job.subject.model
    with quiet():
        model.save_pretrained(run_dir.model)
        job.subject.tokenizer.save_pretrained(run_dir.model)
    if job.subject.classes:
        write_json(run_dir.model / CLASSES_FILE, job.subject.classes)
    return history


def _influence(job: Job, one: Round, run_dir: RunDirectory, progress: Progress) -> None:
    file = TensorFile(run_dir.tensor)
    if file.complete and run_dir.predictions.exists():
        _remove_scratch(run_dir)
        return
    config, model = job.config, job.subject.model
    data: dict[Side, EncodedRows] = {"query": job.encoded["query"], "train": one.train}
    _refuse_full_disk(run_dir, job.gradient_bytes)
    gathered = partial(gather, model, data=data, batch_size=config.batch_size, memory=config.memory_bytes)
    checkpoints = _checkpoints(job, run_dir)
    summed = None
    if SUMMED in config.methods:
        weights = job.kept.weights
        frame = make_frame(weights.modules, np.zeros(len(data["query"]), dtype=bool), len(data["train"]))
        sums = CheckpointSum(model, weights.modules, checkpoints, partial(gathered, weights))
        summed = sums.on_disk(run_dir.sums, frame, progress).open()[SUMMED]
    store = gathered(
        job.kept,
        folder=run_dir.gradients,
        progress=progress,
        multipliers=multipliers_now(model, checkpoints, job.modules, config.methods),
    )
    predictions = {side: Predictions(*store.predictions(side)) for side in data}
    write_predictions(run_dir.predictions, predictions)
    plain = job.kept.weights.modules and not config.projection and not config.optimizer_aware
    if plain and not run_dir.cancellation.exists():
        with atomic_write(run_dir.cancellation) as temporary:
            store_cancellation(store, job.kept.weights.modules, progress).to_parquet(temporary, index=False)
    correct = correct_rows(predictions["query"].outputs, data["query"].labels, model.config).numpy()
    frame = make_frame(job.modules, correct, len(one.train), row=one.rows, canary=one.wrong)
    file.create(frame, config.methods)
    with progress.stage("influence of modules", len(job.modules)) as advance:
        advance(file.finished_modules)
        for number in range(file.finished_modules, len(job.modules)):
            matrices = module_matrices(store, job.modules[number], config.methods)
            if summed is not None and job.modules[number].kind == "weight":  # weights come first
                matrices[SUMMED] = summed[number].values
            file.write(number, matrices, len(job.modules))
            advance(1)
    _remove_scratch(run_dir)


def _checkpoints(job: Job, run_dir: RunDirectory) -> Sequence[Checkpoint]:
    """Those the user named, or those that our own fine-tuning kept for what was asked."""
    if job.checkpoints or not job.needs_checkpoints:
        return job.checkpoints
    return read_checkpoints(run_dir.training / CHECKPOINTS, optimizer_aware=job.config.optimizer_aware)


def _remove_scratch(run_dir: RunDirectory) -> None:
    for folder in (run_dir.gradients, run_dir.sums):
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_full_disk(run_dir: RunDirectory, needed: int) -> None:
    blocks = [*run_dir.gradients.glob("*.safetensors"), *run_dir.sums.rglob("*.safetensors")]
    free = shutil.disk_usage(run_dir.path).free + sum(file.stat().st_size for file in blocks)
    if needed > free:
        raise RunError(
            f"{run_dir.path}: the gradients take {needed / 2**30:.1f} GiB of disk and {free / 2**30:.1f} are free; "
            "choose fewer --modules, or an --output on a larger disk."
        )
