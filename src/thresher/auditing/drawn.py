"""What chance and the model chose for a run, kept in its folder: rows with planted errors, and canaries.

They hang on the order in which numbers are drawn, and where the model was asked on its last bits. So a run that goes on
with other code, or on another number of threads, takes them from its folder and draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thresher.arrays import Flags
from thresher.auditing.run import RunDirectory
from thresher.checksums import is_damaged, verified
from thresher.config import AuditConfig
from thresher.data.table import Table, fingerprint
from thresher.files import read_json, write_json
from thresher.tasks.base import Described, Task

_DECIDES: tuple[str, ...] = (
    *("plant", "plant_kind", "seed", "detector", "canaries", "canary_kind", "rounds", "text_column", "label_column"),
    *("prompt_column", "completion_column", "task", "model", "adapter", "finetune"),
)
"""Options that what is drawn hangs on."""


@dataclass(frozen=True)
class Drawn:
    """Training rows as they are trained on, where that is not as they were given.

    ``planted`` are those with planted errors, ``canaries`` those of each round, with a wrong label of ours; none of
    canaries that are drawn when there are features.
    """

    planted: Described
    canaries: tuple[Described, ...]


def described(task: Task, rows: Flags) -> Described:
    """The flagged training rows of a task, by number."""
    return {row: task.describe("train", row) for row in np.flatnonzero(rows).tolist()}


def keep_drawn(run_dir: RunDirectory, drawn: Drawn, train: Table, config: AuditConfig) -> None:
    """Write what was drawn, unless it is there. Raises :class:`RunError` where it was there and is damaged, and has
    come to be something else now.
    """
    if not run_dir.drawn.exists():
        value = {"of": _decides(train, config), "planted": drawn.planted, "canaries": drawn.canaries}
        write_json(run_dir.drawn, value, once=True)


def read_drawn(run_dir: RunDirectory, train: Table, config: AuditConfig) -> Drawn | None:
    """What was drawn for a run of these rows and options; None where there is none, or it is damaged."""
    if is_damaged(run_dir.drawn):
        return None
    kept = read_json(run_dir.drawn)
    if kept is None or kept["of"] != _decides(train, config):
        return None
    return Drawn(_numbered(kept["planted"]), tuple(_numbered(one) for one in kept["canaries"]))


def read_planted(run_dir: RunDirectory) -> Described:
    """The rows with planted errors of a finished run. Raises :class:`DamagedError` where they are not as they were."""
    return _numbered(read_json(verified(run_dir.drawn, listed=True))["planted"])


def planted_again(task: Task, planted: Described) -> tuple[Task, Flags]:
    """The task with errors that were planted before, and which rows those are, [n]."""
    flags = np.zeros(len(task.texts("train")), dtype=bool)
    flags[list(planted)] = True
    return task.with_rows(planted), flags


def _decides(train: Table, config: AuditConfig) -> dict[str, Any]:
    return {"train": fingerprint(train), **config.model_dump(mode="json", include=set(_DECIDES))}


def _numbered(rows: Mapping[str, Any]) -> Described:
    return {int(row): about for row, about in rows.items()}
