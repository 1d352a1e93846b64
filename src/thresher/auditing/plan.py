"""What an audit will take: rows, modules, bytes, and the time, from a short measurement on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from thresher.auditing.cost import cheaper, disk_bytes, passes, training_passes
from thresher.auditing.prepare import Job, prepare
from thresher.config import AuditConfig
from thresher.gradients.gradient_pass import gradient_pass
from thresher.model.checkpoints import checkpoint_of
from thresher.scores.names import Configuration
from thresher.scores.table import available

LONG = 600
"""Seconds from which on a plan says what would take less."""


@dataclass(frozen=True)
class Plan:
    """What the audit will take; ``notes`` are the task's own lines by title, ``seconds`` come from a short timing, and
    ``training_seconds`` are those of one training among them. ``reference`` rows stand for all; ``scores`` are those
    that influence gives. ``disk_bytes`` is the most that its files take, of all rounds and with what is taken away in
    the end.
    """

    rows: int
    queries: int
    modules: int
    groups: dict[str, int]
    notes: dict[str, str]
    planted: str
    canaries: str
    reference: int
    tensor_bytes: int
    gradient_bytes: int
    disk_bytes: int
    model: str
    training: str
    row_by_row: tuple[str, ...]
    checkpoints: str
    optimizer: str
    seconds: float
    training_seconds: float
    cheaper: tuple[str, ...]
    scores: tuple[Configuration, ...]


def plan_audit(config: AuditConfig) -> Plan:
    """What :func:`thresher.audit` would do with ``config``, measured in seconds; nothing is written.

    Raises:
        ThresherError: in one sentence, for whatever the audit itself would refuse.
    """
    return make_plan(prepare(config))


def make_plan(job: Job) -> Plan:
    """Count, and time one small batch."""
    config, encoded = job.config, job.encoded
    rows, queries = len(encoded["train"]), len(encoded["query"])
    model: Any = job.subject.model
    inner = model if job.subject.kind == "whole" else model.get_base_model()
    a_row, row_by_row = _seconds_a_row(job)
    seconds = a_row * passes(job, config)
    groups: dict[str, int] = {}
    for module in job.modules:
        groups[module.group] = groups.get(module.group, 0) + 1
    return Plan(
        rows=rows,
        queries=queries,
        modules=0 if config.quick else len(job.modules),
        groups=groups,
        notes=job.notes,
        planted=job.planted_errors,
        canaries=_canaries(job),
        reference=min(rows, len(job.reference(job.rounds[0]))),
        tensor_bytes=job.tensor_bytes,
        gradient_bytes=job.gradient_bytes,
        disk_bytes=disk_bytes(job),
        model=type(inner).__name__,
        training=_training(job),
        row_by_row=row_by_row,
        checkpoints=f"{job.summed_checkpoints} are summed over, each with a gradient pass of its own"
        * bool(job.summed_checkpoints),
        optimizer=_optimizer(job) if config.optimizer_aware else "",
        seconds=seconds,
        training_seconds=a_row * training_passes(job, config.epochs),
        cheaper=cheaper(job, a_row) if seconds > LONG else (),
        scores=tuple(available(job.modules, config.methods, job.ks)),
    )


def _canaries(job: Job) -> str:
    if not job.auto:
        return ""
    counts = " + ".join(str(int(one.wrong.sum())) for one in job.rounds)
    if job.subject.kind != "lora":
        return f"copies of {counts} rows with a wrong label ({job.canary_kind}), which the model has not learned"
    learner = "seen by a probe" if job.config.quick else "in a training"
    return f"{counts} rows with a wrong label ({job.canary_kind}), {learner} each; judged where they are none"


def _optimizer(job: Job) -> str:
    names = [module.name for module in job.modules]
    if job.subject.kind == "lora":
        trained = {name for name, p in job.subject.model.named_parameters() if p.requires_grad}
    else:
        trained = set(checkpoint_of(job.subject.model, job.checkpoints).multipliers(names))
    plain = [name for name in names if name not in trained]
    said = f"; not in what it did not train: {', '.join(plain[:2])}{', ...' * (len(plain) > 2)}" if plain else ""
    return "train gradients are scaled as AdamW scaled them, g / (sqrt(v) + eps)" + said


def _training(job: Job) -> str:
    config = job.config
    if config.quick:
        return "as it came: a first look, nothing is trained"
    if job.subject.kind != "lora":
        trained = f"as fine-tuned in {config.adapter}" if job.subject.kind == "adapter" else "as fine-tuned, whole"
        unlearned = "; the errors are planted after that training, and easier to find than ones it learned"
        return trained + unlearned * bool(config.plant)
    over = f" over a base in {config.quantize.removesuffix('bit')} bits" if config.quantize else ""
    mixed = ", in mixed precision" * config.bf16
    said = f"LoRA r = {config.lora_rank} on query and value{over}"
    rate = "a rate to be found by short trainings" if job.searches else f"{config.peak_rate:g}"
    step = config.rows_a_step(len(job.encoded["train"]))
    return f"{said}, {'up to ' * bool(config.patience)}{config.epochs} epochs of {step} rows a step at {rate}{mixed}"


def _seconds_a_row(job: Job) -> tuple[float, tuple[str, ...]]:
    data = job.encoded["train"]
    middle = data.lengths.argsort(kind="stable")
    rows = middle[max(0, len(middle) // 2 - 8) :][:16]
    with gradient_pass(job.subject.model, job.kept.names, data, forms=job.kept.forms) as one_pass:
        batch = data.batch(rows, one_pass.pad_id, one_pass.device)
        one_pass.gradients(data, batch)  # the first is slower
        started = time.perf_counter()
        one_pass.gradients(data, batch)
        if one_pass.device.type == "cuda":
            torch.cuda.synchronize()
        a_row = (time.perf_counter() - started) / len(rows)
        return a_row * float(data.lengths.mean() / data.lengths[rows].mean()), one_pass.row_by_row
