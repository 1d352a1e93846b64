"""Before an audit runs: rows read and checked, the model loaded and adapted. Nothing is written yet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from thresher.config import AuditConfig
from thresher.data.encode import EncodedRows
from thresher.data.noise import Flags
from thresher.data.table import Table, fingerprint, read_table
from thresher.errors import ConfigError, DataError
from thresher.influences.compute import GradientPlan, plan_gradients, select_modules
from thresher.influences.pairing import refuse_gram
from thresher.influences.registry import INFLUENCE, check_methods
from thresher.model.load import Subject, audited_by_default, most_tokens
from thresher.model.lora import with_lora
from thresher.model.names import ModuleName
from thresher.model.source import model_fingerprint
from thresher.scores.table import available, choose, wanted
from thresher.tasks.base import Part, Task
from thresher.tasks.registry import TASKS


@dataclass(frozen=True)
class Job:
    """Everything an audit works on. Nothing has been written yet.

    ``task`` and ``encoded`` carry the rows as trained on, planted errors included; ``planted`` [n] marks those.
    ``notes`` are the task's lines for the plan. ``initial`` are the trainable weights before fine-tuning, from which
    every retraining starts.
    """

    config: AuditConfig
    tables: dict[Part, Table]
    task: Task
    encoded: dict[Part, EncodedRows]
    notes: dict[str, str]
    planted: Flags
    subject: Subject
    modules: list[ModuleName]
    initial: dict[str, Tensor]

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints of what was read."""
        files: dict[str, str] = {part: fingerprint(table) for part, table in self.tables.items()}
        for name, source in (("model", self.config.model), ("adapter", self.config.adapter)):
            if source is not None:
                files[name] = model_fingerprint(source)
        return files

    @cached_property
    def kept(self) -> GradientPlan:
        """In which form the modules' gradients are kept."""
        length = float(self.encoded["train"].lengths.mean())
        return plan_gradients(self.subject.model, self.modules, length=length, projection=self.config.projection)

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


def prepare(config: AuditConfig) -> Job:
    """Read the rows and load the model. Every mistake in the user's input is found here, before anything is written."""
    check_methods(config.methods, projected=config.projection > 0)
    if config.retrain and config.test is None:
        raise ConfigError("--retrain judges on rows that no choice was made on; name them with --test.")
    tables = _read(config)
    task, planted = _planted(TASKS[config.task].read(tables, config), config)
    subject = task.load(config, config.seed)
    config = config.model_copy(update={"device": str(subject.device)})  # part of what decides the last bits
    if config.retrain and subject.kind != "lora":
        raise ConfigError("--retrain needs a model that is fine-tuned here; leave it out, or say --finetune.")
    encoding = task.encode(subject, min(config.max_length, most_tokens(subject.model)))
    task.doubt(subject, encoding.rows["query"], config.batch_size)
    if subject.kind == "lora":
        subject = with_lora(subject, config, config.seed)
    modules = select_modules(subject.model, config.modules or audited_by_default(subject), config.methods)
    choose(available(modules, config.methods, config.k), wanted(config))
    if {"exact", "lissa"} & set(config.methods):
        refuse_gram(len(encoding.rows["train"]))
    trained = subject.model.named_parameters() if subject.kind == "lora" else ()
    initial = {name: p.detach().clone() for name, p in trained if p.requires_grad}
    return Job(config, tables, task, encoding.rows, encoding.notes, planted, subject, modules, initial)


def _read(config: AuditConfig) -> dict[Part, Table]:
    sources: dict[Part, str] = {"train": config.train, "query": config.validation}
    if config.test is not None:
        sources["test"] = config.test
    tables: dict[Part, Table] = {
        part: read_table(source, "validation" if part == "query" else part) for part, source in sources.items()
    }
    if "test" in tables and fingerprint(tables["test"]) == fingerprint(tables["query"]):
        raise DataError(f"{config.test}: --test and --validation are the same rows; no choice may be made on the test.")
    return tables


def _planted(task: Task, config: AuditConfig) -> tuple[Task, Flags]:
    kind = config.plant_kind or task.plant_kinds[0]
    if kind not in task.plant_kinds:
        raise ConfigError(f"--plant-kind {kind}: --task {config.task} knows {', '.join(task.plant_kinds)}.")
    task, planted = task.plant(config.plant, kind, np.random.default_rng(config.seed))
    if config.plant and (planted.all() or not planted.any()):
        raise ConfigError(
            f"--plant {config.plant}: that is {planted.sum()} of {len(planted)} rows; change some, not all."
        )
    return task, planted
