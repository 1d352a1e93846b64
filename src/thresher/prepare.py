"""Before an audit runs: rows read and checked, the model loaded, and a plan of what it will take."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thresher.config import AuditConfig
from thresher.data.encode import EncodedRows, encode_texts
from thresher.data.examples import Columns, Examples, find_classes, find_columns, read_examples
from thresher.data.noise import plant_uniform
from thresher.data.table import Table, fingerprint, read_table
from thresher.errors import ConfigError, DataError
from thresher.gradients.frozen import gradient_pass
from thresher.influences.checkpoints import SUMMED, given_checkpoints, refuse_curved
from thresher.influences.gather import GradientPlan, plan_gradients, select_modules
from thresher.influences.pairing import refuse_gram
from thresher.influences.registry import INFLUENCE, check_methods
from thresher.model.checkpoints import Checkpoint, checkpoint_of, refuse_unfit
from thresher.model.load import Subject, audited_by_default, load_subject, most_tokens
from thresher.model.lora import with_lora
from thresher.model.names import ModuleName
from thresher.model.predict import accuracy, predict
from thresher.scores.table import available, choose, wanted

log = logging.getLogger(__name__)
Part = Literal["train", "query", "test"]


@dataclass(frozen=True)
class Job:
    """Everything an audit works on. Nothing has been written yet.

    ``examples`` and ``encoded`` carry the labels as trained on, planted errors included; ``planted`` [n] marks those.
    ``initial`` are the trainable weights before fine-tuning, from which every retraining starts. ``checkpoints`` are
    those of the user's own training.
    """

    config: AuditConfig
    tables: dict[Part, Table]
    columns: Columns
    examples: dict[Part, Examples]
    encoded: dict[Part, EncodedRows]
    planted: npt.NDArray[np.bool_]
    subject: Subject
    modules: list[ModuleName]
    initial: dict[str, Tensor]
    checkpoints: tuple[Checkpoint, ...]

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints of what was read."""
        files = {part: fingerprint(table) for part, table in self.tables.items()}
        for name, source in (("model", self.config.model), ("adapter", self.config.adapter)):
            if source is not None:
                files[name] = _fingerprint(Path(source))
        if self.checkpoints:
            files["checkpoints"] = " ".join(_fingerprint(checkpoint.folder) for checkpoint in self.checkpoints)
        return files

    @cached_property
    def kept(self) -> GradientPlan:
        """In which form the modules' gradients are kept."""
        length = float(self.encoded["train"].lengths.mean())
        return plan_gradients(self.subject.model, self.modules, length=length, projection=self.config.projection)

    @property
    def needs_checkpoints(self) -> bool:
        """Whether more is asked for than the fine-tuned model itself can tell."""
        return self.config.optimizer_aware or SUMMED in self.config.methods

    @property
    def summed_checkpoints(self) -> int:
        """How many checkpoints are summed over, each with a gradient pass of its own."""
        return (len(self.checkpoints) or self.config.epochs) if SUMMED in self.config.methods else 0

    @property
    def gradient_bytes(self) -> int:
        """Bytes that the gradients of all training and query rows take."""
        return self.kept.row_bytes * (len(self.encoded["train"]) + len(self.encoded["query"]))

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the influence tensor, all methods, before compression."""
        pairs = len(self.encoded["train"]) * len(self.encoded["query"])
        functions = [INFLUENCE[method] for method in self.config.methods]
        return 4 * pairs * sum(function.defined_on(module) for function in functions for module in self.modules)

    def class_name(self, number: int) -> str:
        """The data's name of a class."""
        return self._class_names[number]

    @cached_property
    def _class_names(self) -> dict[int, str]:
        return {number: name for name, number in self.subject.classes.items()}


@dataclass(frozen=True)
class Plan:
    """What the audit will take. ``seconds`` comes from a short timing on this machine."""

    rows: int
    queries: int
    modules: int
    groups: dict[str, int]
    classes: str
    tensor_bytes: int
    gradient_bytes: int
    model: str
    training: str
    row_by_row: tuple[str, ...]
    checkpoints: str
    optimizer: str
    seconds: float


def prepare(config: AuditConfig) -> Job:
    """Read the rows and load the model. Every mistake in the user's input is found here, before anything is written."""
    check_methods(config.methods, projected=config.projection > 0)
    refuse_curved(config.methods, optimizer_aware=config.optimizer_aware)
    if config.optimizer_aware and config.projection:
        raise ConfigError("--optimizer-aware scales single entries and --projection mixes them; leave one of them out.")
    if config.retrain and config.test is None:
        raise ConfigError("--retrain measures accuracy on rows that no choice was made on; name them with --test.")
    tables, columns = _read(config)
    classes = find_classes(tables["train"], columns)
    subject = load_subject(config, classes, config.seed)
    config = config.model_copy(update={"device": str(subject.device)})  # part of what decides the last bits
    config, checkpoints = _checkpoints(config, subject)
    if config.retrain and subject.kind != "lora":
        raise ConfigError("--retrain needs a model that is fine-tuned here; leave it out, or say --finetune.")
    known = {name: subject.classes[name] for name in classes}
    examples: dict[Part, Examples] = {
        part: read_examples(table, columns, known, trained_on="the training rows") for part, table in tables.items()
    }
    labels, planted = plant_uniform(examples["train"].labels, config.plant, np.random.default_rng(config.seed))
    if config.plant and (planted.all() or not planted.any()):
        raise ConfigError(
            f"--plant {config.plant}: that is {planted.sum()} of {len(planted)} rows; flip some, not all."
        )
    examples["train"] = replace(examples["train"], labels=labels)
    length = min(config.max_length, most_tokens(subject.model))
    encoded: dict[Part, EncodedRows] = {
        part: encode_texts(rows, subject.tokenizer, length) for part, rows in examples.items()
    }
    if subject.classes_assumed:
        _doubt_classes(subject, encoded["query"], config.batch_size)
    if subject.kind == "lora":
        subject = with_lora(subject, config, config.seed)
    modules = select_modules(subject.model, config.modules or audited_by_default(subject), config.methods)
    choose(available(modules, config.methods, config.k), wanted(config))
    if {"exact", "lissa"} & set(config.methods):
        refuse_gram(len(encoded["train"]))
    trained = subject.model.named_parameters() if subject.kind == "lora" else ()
    initial = {name: p.detach().clone() for name, p in trained if p.requires_grad}
    return Job(config, tables, columns, examples, encoded, planted, subject, modules, initial, checkpoints)


def _checkpoints(config: AuditConfig, subject: Subject) -> tuple[AuditConfig, tuple[Checkpoint, ...]]:
    """The checkpoints of the user's own training; what is to be kept of ours."""
    if subject.kind == "lora":
        if config.checkpoints is not None:
            raise ConfigError(
                "--checkpoints are of a training that is over, and this audit fine-tunes anew; leave them out, or name "
                "what was trained with --adapter or as --model."
            )
        keep = config.keep_checkpoints or config.optimizer_aware or SUMMED in config.methods
        return config.model_copy(update={"keep_checkpoints": keep}), ()
    found = given_checkpoints(config.checkpoints, config.methods, optimizer_aware=config.optimizer_aware)
    refuse_unfit(subject.model, found)
    if config.optimizer_aware:
        checkpoint_of(subject.model, found)
    return config, found


def _read(config: AuditConfig) -> tuple[dict[Part, Table], Columns]:
    sources: dict[Part, str] = {"train": config.train, "query": config.validation}
    if config.test is not None:
        sources["test"] = config.test
    tables: dict[Part, Table] = {
        part: read_table(source, "validation" if part == "query" else part) for part, source in sources.items()
    }
    if "test" in tables and fingerprint(tables["test"]) == fingerprint(tables["query"]):
        raise DataError(f"{config.test}: --test and --validation are the same rows; no choice may be made on the test.")
    columns = find_columns(tables["train"], config.text_column, config.label_column)
    for table in tables.values():
        find_columns(table, columns.text, columns.label)  # every file must have the columns of the first
    return tables, columns


def _doubt_classes(subject: Subject, query: EncodedRows, batch_size: int) -> None:
    right = accuracy(subject, query, predict(subject, query, batch_size))
    if right <= 1 / len(subject.classes):
        log.warning(
            "The model does not name its classes; taken in sorted order, %s, it gets only %.0f %% of the queries "
            "right. If that is another order, use the model's numbers as labels.",
            ", ".join(f"{name} = {number}" for name, number in subject.classes.items()),
            100 * right,
        )


def make_plan(job: Job) -> Plan:
    """Count, and time one small batch."""
    config, encoded = job.config, job.encoded
    rows, queries = len(encoded["train"]), len(encoded["query"])
    model: Any = job.subject.model
    inner = model if job.subject.kind == "whole" else model.get_base_model()
    a_row, row_by_row = _seconds_a_row(job)
    trained = rows * config.epochs if job.subject.kind == "lora" else 0
    share = 1 + (2 * (1 - config.drop) + (1 - config.plant if config.plant else 0)) * config.retrain
    passes = (
        (rows + queries) * (1 + job.summed_checkpoints)
        + 1.3 * trained * share
        + 0.35 * queries * config.epochs * bool(trained)
    )
    groups: dict[str, int] = {}
    for module in job.modules:
        groups[module.group] = groups.get(module.group, 0) + 1
    return Plan(
        rows=rows,
        queries=queries,
        modules=len(job.modules),
        groups=groups,
        classes=", ".join(f"{name} = {number}" for name, number in job.subject.classes.items())
        + " (sorted order: the model does not name them)" * job.subject.classes_assumed,
        tensor_bytes=job.tensor_bytes,
        gradient_bytes=job.gradient_bytes,
        model=type(inner).__name__,
        training=_training(job),
        row_by_row=row_by_row,
        checkpoints=f"{job.summed_checkpoints} are summed over, each with a gradient pass of its own"
        * bool(job.summed_checkpoints),
        optimizer=_optimizer(job) if config.optimizer_aware else "",
        seconds=a_row * passes,
    )


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
    if job.subject.kind != "lora":
        trained = f"as fine-tuned in {config.adapter}" if job.subject.kind == "adapter" else "as fine-tuned, whole"
        unlearned = "; the errors are planted after that training, and easier to find than ones it learned"
        return trained + unlearned * bool(config.plant)
    return f"LoRA r = {config.lora_rank} on query and value, {config.epochs} epochs at {config.learning_rate:g}"


def _seconds_a_row(job: Job) -> tuple[float, tuple[str, ...]]:
    data = job.encoded["train"]
    middle = data.lengths.argsort(kind="stable")
    rows = middle[max(0, len(middle) // 2 - 8) :][:16]
    with gradient_pass(job.subject.model, job.kept.names, data, job.kept.forms) as one_pass:
        batch = data.batch(rows, one_pass.pad_id, one_pass.device)
        one_pass.gradients(data, batch)  # the first is slower
        started = time.perf_counter()
        one_pass.gradients(data, batch)
        if one_pass.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / len(rows), one_pass.row_by_row


def _fingerprint(source: Path) -> str:
    """Hash of a folder's weights and settings; a hub id stands for itself."""
    if not source.is_dir():
        return str(source)
    digest = hashlib.sha256()
    for file in sorted([*source.glob("*.safetensors"), *source.glob("*.json")]):
        with file.open("rb") as stream:
            digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
