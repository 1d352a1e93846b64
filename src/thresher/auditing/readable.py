"""What can be told of an audit before its model is loaded: whether its options go together and its rows are any."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from thresher.calibration.canaries import AUTO
from thresher.config import AuditConfig, PlantKind
from thresher.data.annotators import read_annotators
from thresher.data.parts import Part, read_parts
from thresher.data.table import Table
from thresher.detectors.registry import DETECTORS
from thresher.errors import ConfigError
from thresher.influences.checkpoints import refuse_curved
from thresher.influences.registry import INFLUENCE, check_methods
from thresher.model.load import check_model
from thresher.model.names import GROUPS
from thresher.model.source import refuse_no_folder
from thresher.scores.aggregate import AGGREGATIONS
from thresher.scores.names import Configuration, DetectorScore, asked_k, resolve
from thresher.tasks.base import Task
from thresher.tasks.registry import TASKS
from thresher.track import check_tracker


def check_audit(config: AuditConfig) -> None:
    """Raise the :class:`ThresherError` that an audit would, for all that can be told in the time that reading takes.

    Of the model and what it is fine-tuned from only that they are there.
    """
    refuse_options(config)
    read_rows(config, read_parts(config))
    if config.adapter is not None:
        refuse_no_folder(config.adapter)
    for source in (config.model, config.features):
        if source is not None:
            check_model(source, config.task)
    if config.detector != AUTO:
        ks = {config.k, asked_k(config.detector)}
        every = product(INFLUENCE, GROUPS, AGGREGATIONS.items())
        there = [
            Configuration(influence, group, name, k)
            for influence, group, (name, how) in every
            for k in (ks if how.votes else {None})
        ]
        resolve(config.detector, [*there, *map(DetectorScore, DETECTORS)], config.k)


def read_rows(config: AuditConfig, tables: Mapping[Part, Table]) -> tuple[Task, tuple[str | None, ...] | None]:
    """The rows as their task understands them, and who labelled each where that is asked for."""
    annotators = None
    if config.annotator_column is not None:
        annotators = read_annotators(tables["train"], config.annotator_column)
    task = TASKS[config.task].read(tables, config)
    planted_kind(task, config)
    return task, annotators


def refuse_options(config: AuditConfig) -> None:
    """What can be told from the options alone."""
    check_tracker(config.log_to)
    check_methods(config.methods, projected=config.projection > 0)
    refuse_curved(config.methods, optimizer_aware=config.optimizer_aware)
    if config.optimizer_aware and config.projection:
        raise ConfigError("--optimizer-aware scales single entries and --projection mixes them; leave one of them out.")
    if config.annotator_column is not None and config.detector != AUTO:
        raise ConfigError("--annotator-column: only --detector auto says how likely rows are wrong; leave one out.")
    if config.retrain and config.test is None:
        raise ConfigError("--retrain judges on rows that no choice was made on; name them with --test.")


def planted_kind(task: Task, config: AuditConfig) -> PlantKind:
    """The kind of errors to plant. Raises :class:`ConfigError` for one that the task does not know."""
    kind = config.plant_kind or task.plant_kinds()[0]
    if kind not in task.plant_kinds():
        raise ConfigError(f"--plant-kind {kind}: --task {config.task} knows {', '.join(task.plant_kinds())}.")
    return kind
