"""How much an audit takes, of computing in gradient passes over a row and of the disk; and what would take less."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from thresher.auditing.prepare import Job
from thresher.config import AuditConfig
from thresher.errors import RunError
from thresher.files import files_in
from thresher.influences.registry import check_methods
from thresher.progress import byte_size, duration
from thresher.scores.table import available

FORWARD = 0.35
"""A pass without gradients."""

TRAINED = 1.3
"""A row of a training step."""

_RETRAININGS = 3
_LOOKS = 8
"""Scores of a first look, about."""

SHORT = 128
SMALL = 21_300_000
"""Weights of the packaged MiniLM that every token meets."""


def training_passes(job: Job, epochs: int) -> float:
    """What one training takes."""
    if job.subject.kind != "lora":
        return 0.0
    return (TRAINED * len(job.encoded["train"]) + FORWARD * len(job.encoded["query"])) * epochs


def passes(job: Job, config: AuditConfig) -> float:
    """What the audit takes, with other options perhaps than the job's own."""
    rows, queries, rounds = len(job.encoded["train"]), len(job.encoded["query"]), len(job.rounds)
    second = 0.0
    if job.encoder is not None:
        second = (rows + queries) * job.encoder.subject.weights_a_token / job.subject.weights_a_token
    if config.quick:
        return FORWARD * (rows + queries + second)
    searches = job.subject.kind == "lora" and config.learning_rate is None
    trainings = searches + rounds + _RETRAININGS * config.retrain + 2 * job.auto * config.retrain
    looked_at = sum(len(one.rows) for one in job.rounds)
    gradients = (looked_at + queries * rounds) * (1 + job.summed_checkpoints)
    features = rows * (2 * rounds + 1) if job.auto else (rows + queries) * job.probed
    before = features + second + queries * job.compares_answers
    return gradients + training_passes(job, config.epochs) * trainings + FORWARD * before


def disk_bytes(job: Job) -> int:
    """What the audit's files take at most, in all rounds and while their gradients are there."""
    config, rows, queries = job.config, len(job.encoded["train"]), len(job.encoded["query"])
    model: Any = job.subject.model
    width = getattr(model.config.get_text_config(), "hidden_size", 0)
    features = 4 * width * (rows + queries) * (job.probed or config.quick)
    scores = 8 * rows * (len(job.rounds) + 1) * len(available(job.modules, config.methods, job.ks))
    if config.quick:
        return int(features + 8 * rows * (len(job.rounds) + 1) * _LOOKS)
    return int(features + scores + _influence_bytes(job) + job.tensor_bytes + _training_bytes(job))


def _influence_bytes(job: Job) -> int:
    """Of one round, until its scores are written: gradients, sums, and what other rows need of the reference rows."""
    rows, queries, reference = len(job.rounds[0].rows), len(job.encoded["query"]), len(job.reference(job.rounds[0]))
    scores = 8 * rows * len(available(job.modules, job.config.methods, job.ks))
    weights = job.kept.weights
    sums = weights.row_bytes * job.summed_checkpoints + 4 * reference * len(weights.modules)
    found = job.gradient_bytes + scores + sums * queries * bool(job.summed_checkpoints)
    if rows > reference:
        kept = rows if job.keeps == "tensor" else reference
        functions = check_methods(job.config.methods).values()
        found += 4 * kept * queries * sum(one.defined_on(module) for one in functions for module in job.modules)
    return found


def refuse_full_disk(job: Job, folder: Path) -> None:
    """Raise :class:`RunError` where the disk has less room than the audit in ``folder`` still takes."""
    needed = disk_bytes(job)
    free = shutil.disk_usage(folder).free
    there = sum(file.stat().st_size for file in files_in(folder))
    if needed > free + there:
        raise RunError(
            f"{folder}: the audit takes up to {byte_size(needed)} of disk and {byte_size(free)} are free; choose fewer "
            "--modules, a smaller --reference, or an --output on a larger disk."
        )


def _training_bytes(job: Job) -> int:
    """Of all trainings: weights with AdamW's moments, every epoch's, the saved ones, and what was said of rows."""
    weights = sum(tensor.nbytes for tensor in job.initial.values())
    epochs = job.config.epochs
    kept = weights * (3 + 1 + epochs + 2 * epochs * job.config.keep_checkpoints)
    said = 4 * (1 + max(1, len(job.subject.classes))) * len(job.encoded["train"]) * epochs
    trainings = len(job.rounds) + job.searches + (_RETRAININGS + 2 * job.auto) * job.config.retrain
    return trainings * (kept + said) * (job.subject.kind == "lora")


def cheaper(job: Job, a_row: float) -> tuple[str, ...]:
    """What takes less, each alone, and by how much where a gradient pass over a row takes ``a_row`` seconds."""
    config, lengths = job.config, job.encoded["train"].lengths
    if config.quick:
        return ()
    seconds = a_row * passes(job, config)
    found = [(f"--max-length {SHORT}", seconds * (1 - float(lengths.clip(max=SHORT).sum() / lengths.sum())))]
    trained = job.subject.kind == "lora"
    if trained:
        fewer = max(2, config.epochs // 2)
        others: dict[str, dict[str, Any]] = {f"--epochs {fewer}": {"epochs": fewer}}
        if job.searches:
            others["a --learning-rate that you know"] = {"learning_rate": 1.0}
        for name, update in others.items():
            found.append((name, seconds - a_row * passes(job, config.model_copy(update=update))))
        found.append(("a smaller model, such as packaged:minilm", seconds * (1 - SMALL / job.subject.weights_a_token)))
    told = [f"{name}: about {duration(saved)} less" for name, saved in found if saved > 0.1 * seconds]
    if trained and job.auto and len(job.subject.classes) > 1 and not config.retrain:
        told.append("--quick: a first look in a minute or two, from which the audit goes on")
    return tuple(told)
