"""How much computing an audit takes, in gradient passes over a row; and what would take less."""

from __future__ import annotations

from typing import Any

from thresher.auditing.prepare import Job
from thresher.config import AuditConfig
from thresher.progress import duration

FORWARD = 0.35
"""A pass without gradients."""

TRAINED = 1.3
"""A row of a training step."""

_RETRAININGS = 3
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
