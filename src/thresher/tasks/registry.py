"""Every task by name; a class of :class:`thresher.tasks.base.Task` each, imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.registry import Registry

if TYPE_CHECKING:
    from thresher.tasks.base import Task

TASKS: Registry[type[Task]] = Registry(
    "task",
    "thresher.tasks",
    {"classify": "thresher.tasks.classify:Classify", "generate": "thresher.tasks.generate:Generate"},
)
