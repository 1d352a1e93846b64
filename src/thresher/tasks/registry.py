"""Every task by name."""

from __future__ import annotations

from collections.abc import Mapping

from thresher.config import TaskName
from thresher.tasks.base import Task
from thresher.tasks.classify import Classify
from thresher.tasks.generate import Generate

TASKS: Mapping[TaskName, type[Task]] = {"classify": Classify, "generate": Generate}
