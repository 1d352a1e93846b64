"""The folder of a study: its plan, and whether what is done there was done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from thresher.checksums import keep_checksums
from thresher.errors import RunError
from thresher.files import atomic_write, read_json, restore_folder
from thresher.options import differences, make_config
from thresher_study.config import Cell, StudyConfig, audit_of, cells
from thresher_study.jobs import views_of

PLAN = "study.yaml"


def open_study(study: StudyConfig) -> None:
    """Begin a study, or go on with one; models, tasks, seeds and retrainings may have been added.

    Tables that are damaged are taken away, and so made again.

    Raises :class:`RunError` where an audit in the folder was made with other options, naming them.
    """
    keep_checksums(study.output)
    for cell in cells(study):
        restore_folder(views_of(study, cell))
        before = read_json(views_of(study, cell) / "options.json")
        differs = [] if before is None else differences(before, made_with(study, cell))
        if differs:
            raise RunError(
                f"{study.output}: {cell.name} was made with other options: {'; '.join(differs)}. Name another --output."
            )
    with atomic_write(study.output / PLAN) as temporary:
        temporary.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def read_plan(folder: Path) -> StudyConfig:
    """The study of a folder. Raises :class:`RunError` if there is none."""
    if not (folder / PLAN).exists():
        raise RunError(f"{folder}: this is not a study's folder (no {PLAN}).")
    return make_config(StudyConfig, {"output": folder}, folder / PLAN)


def made_with(study: StudyConfig, cell: Cell) -> dict[str, Any]:
    """All that a cell's results depend on, as JSON."""
    options = audit_of(study, cell).model_dump(mode="json", exclude={"output", "memory", "log_to"})
    if cell.task not in study.own_tasks:
        options |= {"train": cell.task, "validation": cell.task, "test": cell.task}  # wherever the folder lies
        options |= {"train_rows": study.train_rows, "clean_rows": study.clean_rows}
    return options | {"drop": study.drop, "retrain_bf16": study.retrain_bf16}
