"""One round of an audit: fine-tune, compute influence, and score every row by every candidate.

Each stage leaves a finished file in the round's directory and is passed over where the file is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from thresher.arrays import Floats
from thresher.auditing.influence import influence_scores
from thresher.auditing.looks import write_candidates
from thresher.auditing.prepare import Job, has, prepare
from thresher.auditing.run import RunDirectory
from thresher.auditing.untrained import Untrained
from thresher.calibration.alike import EVENLY, draw_alike, with_canaries
from thresher.calibration.canaries import ALIKE, Round
from thresher.calibration.opinions import ask_probe, opinions_of
from thresher.checksums import verified
from thresher.config import AuditConfig
from thresher.detectors.evidence import Evidence, Features, Singles
from thresher.detectors.label_noise import learn_label_noise, query_gain
from thresher.detectors.registry import detect
from thresher.files import make_anew, remove, write_json, written_folder
from thresher.model.features import pooled_features
from thresher.model.finetune import EpochCallback, History, finetune, read_epoch_predictions
from thresher.model.lora import save_lora
from thresher.model.predict import read_predictions
from thresher.model.rate_search import TRIALS, RateTrainer, find_rate
from thresher.progress import Progress, Silent
from thresher.scores.names import DetectorScore, ScoreName
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
    if not _is_scored(job, run_dir):
        with timed("influence"):
            scores: dict[ScoreName, Floats] = {**influence_scores(job, one, run_dir, progress)}
        with timed("scores"):
            evidence = untrained.added_to(_evidence(job, one, run_dir), one.rows)
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
    remove(run_dir.gradients)
    return history


def _is_scored(job: Job, run_dir: RunDirectory) -> bool:
    """Whether the round's scores are there, and the tensor where it is kept; else nothing says that they are."""
    if run_dir.candidates.exists() and job.keeps == "tensor" and not run_dir.tensor.is_dir():  # a study took it away
        make_anew(run_dir.candidates)
    return run_dir.candidates.exists()


def read_job(run_dir: RunDirectory, config: AuditConfig) -> Job:
    """What a finished run worked on: its rows and canaries, and the model as it was loaded. Nothing is written.

    Raises :class:`DamagedError` where what was drawn or found for it is not there as it was.
    """
    verified(run_dir.drawn, listed=True)
    job = prepare(config.model_copy(update={"output": run_dir.path}))  # wherever it lies now
    if job.searches:
        verified(run_dir.search / TRIALS, listed=True)
    if job.auto and job.canary_kind == ALIKE:
        verified(run_dir.canaries, listed=True)
    return with_alike_canaries(find_learning_rate(job, run_dir, Silent()), run_dir, None)


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
        counts = [int(one.wrong.sum()) for one in job.rounds]
        chosen = draw_alike(noise, labels, counts, job.config.seed, 1.0 if query_gain(noise, truth) is None else EVENLY)
        tensors = dict(zip(numbers, (torch.from_numpy(np.stack(one)) for one in chosen), strict=True))
        write_tensors(run_dir.canaries, tensors, once=True)
    kept, _ = read_tensors(run_dir.canaries)
    canaries = [(kept[number][0].numpy(), kept[number][1].numpy()) for number in numbers]
    return replace(job, rounds=tuple(with_canaries(job.rounds, job.encoded["train"], canaries)))


def _evidence(job: Job, one: Round, run_dir: RunDirectory) -> Evidence:
    """That of the training alone."""
    train, query = one.train, job.encoded["query"]
    now = read_predictions(run_dir.predictions, "train")
    tuned = None
    if job.needs_features("tuned"):
        features = [pooled_features(job.subject, rows, job.config.rows_a_pass) for rows in (train, query)]
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
    if not run_dir.model.exists():
        with written_folder(run_dir.model) as temporary:
            save_lora(job.subject, temporary)
    return history
