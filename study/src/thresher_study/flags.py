"""The flags of ``thresher-study``: what its file may be overridden in, and where the jobs run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from thresher.config import LogTo
from thresher.options import Names, Section


class WorkersConfig(Section):
    """Where the jobs of a study run: one after another in this process, if nothing else is said."""

    workers: int = Field(default=1, ge=1, description="Jobs at a time, each in a process of its own.")
    slurm: Literal["slurm", "local"] | None = Field(
        default=None, description="Run the jobs on a Slurm cluster through submitit: slurm; or local, to try."
    )
    ray: str | None = Field(default=None, description="Run the jobs on a Ray cluster: auto, its address, or local.")


class StudyFlags(WorkersConfig):
    """What ``thresher-study`` can be told beside its file, whose keys they override."""

    output: Path | None = Field(default=None, description="Folder of the study; what is done there stays done.")
    glue_dir: Path | None = Field(
        default=None, description="Folder of GLUE tasks, TASK/train.jsonl and so on; else the hub."
    )
    tasks: Names = Field(default=(), description="Only these tasks.")
    seeds: int | None = Field(default=None, description="So many seeds, from 0.")
    retrain: Literal["none", "best", "all"] | None = Field(
        default=None,
        description="What is retrained: none; best, of each influence the best score; all, the whole grid.",
    )
    log_to: LogTo | None = Field(default=None, description="As of an audit; the study logs what its jobs come to.")
