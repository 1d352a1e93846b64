"""The influence of a round: its scores, and what else is kept of it; and of single rows, when they are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from thresher.arrays import Floats, Indices
from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.calibration.canaries import Round
from thresher.data.encode import EncodedRows
from thresher.errors import RunError
from thresher.evaluate.cancellation import store_cancellation
from thresher.files import atomic_write
from thresher.influences.checkpoints import multipliers_now
from thresher.influences.driver import Met, Work, drive
from thresher.influences.registry import INFLUENCE, check_methods
from thresher.influences.tensor import FileSink, TensorFile, tensor_of
from thresher.model.checkpoints import Checkpoint, read_checkpoints
from thresher.model.finetune import CHECKPOINTS, STATE, finetune
from thresher.model.predict import Predictions, write_predictions
from thresher.progress import Progress, Silent
from thresher.scores.names import Configuration
from thresher.scores.sinks import QuerySink, ScoreSink, Sinks
from thresher.tensors import Shelf


def influence_scores(job: Job, one: Round, run_dir: RunDirectory, progress: Progress) -> dict[Configuration, Floats]:
    """Scores [N'] of every configuration for the rows of a round; larger = helpful.

    What the model says, cancellation, and the tensor or each row's queries are left in ``run_dir``. Blocks that an
    earlier call finished are not computed again.
    """
    config = job.config
    run_dir.gradients.mkdir(parents=True, exist_ok=True)
    work = _work(job, run_dir, one.train, job.reference(one))
    shelf = Shelf(config.memory_bytes // 4, run_dir.gradients)
    methods = [name for name in INFLUENCE if name in config.methods]
    scores = ScoreSink(job.modules, methods, job.ks, shelf)
    queries = QuerySink(job.modules, methods) if job.keeps == "top" else None
    tensor = None
    if job.keeps == "tensor":
        tensor = FileSink(TensorFile(run_dir.tensor), work, {"row": one.rows, "canary": one.wrong})
    met = drive(work, Sinks(scores, *filter(None, (queries, tensor))), progress, run_dir.gradients)
    shelf.close()
    sides = {"query": met.query.predictions(), "train": met.parts.predictions()}
    write_predictions(run_dir.predictions, {side: Predictions(*said) for side, said in sides.items()})
    _write_cancellation(job, run_dir, met, progress)
    if queries is not None:
        queries.write(met, run_dir.queries)
    if tensor is not None:
        tensor.finish(met)
    return scores.read(met)


def tensor_of_rows(job: Job, one: Round, run_dir: RunDirectory, rows: Sequence[int], progress: Progress) -> xr.Dataset:
    """The influence of some rows of a finished round, and of its reference rows, from the model.

    Its coordinate ``row`` has the rows' places among those of the round.
    """
    if job.subject.kind == "lora":
        if not (run_dir.training / STATE).exists():
            raise RunError(f"{run_dir.training}: the round's training is gone, and its model with it; audit again.")
        job.reset_weights()
        query, config = job.encoded["query"], job.config
        finetune(job.subject, one.train, query, config, seed=one.seed, folder=run_dir.training, progress=Silent())
    reference = job.reference(one)
    places = np.union1d(reference, np.asarray(rows, dtype=np.int64))
    work = _work(job, run_dir, one.train.take(places), np.searchsorted(places, reference))
    return tensor_of(work, progress).assign_coords(row=("train", places))


def _work(job: Job, run_dir: RunDirectory, train: EncodedRows, reference: Indices) -> Work:
    config, model = job.config, job.subject.model
    checkpoints = _checkpoints(job, run_dir)
    return Work(
        model,
        job.kept,
        job.encoded["query"],
        train,
        check_methods(config.methods),
        reference,
        config.rows_a_pass,
        config.memory_bytes,
        multipliers_now(model, checkpoints, job.modules, config.methods),
        checkpoints,
    )


def _checkpoints(job: Job, run_dir: RunDirectory) -> Sequence[Checkpoint]:
    """Those the user named, or those that our own fine-tuning kept for what was asked."""
    if job.checkpoints or not job.needs_checkpoints:
        return job.checkpoints
    return read_checkpoints(run_dir.training / CHECKPOINTS, optimizer_aware=job.config.optimizer_aware)


def _write_cancellation(job: Job, run_dir: RunDirectory, met: Met, progress: Progress) -> None:
    """How the reference rows' gradients cancel, where they are whole."""
    weights = job.kept.weights.modules
    if weights and not job.config.projection and not job.config.optimizer_aware and not run_dir.cancellation.exists():
        with atomic_write(run_dir.cancellation) as temporary:
            store_cancellation(met.reference, weights, progress).to_parquet(temporary, index=False)
