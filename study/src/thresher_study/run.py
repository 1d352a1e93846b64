"""Drive a study: what is not done yet goes to an executor, audits first; then tables and figures."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from thresher.checksums import is_damaged
from thresher.errors import ConfigError
from thresher.files import read_json, write_json
from thresher.locks import hold
from thresher.progress import Shown, duration
from thresher.terminal import PlainConsole
from thresher.track import tracking
from thresher_study.clusters import Ray, Slurm
from thresher_study.config import StudyConfig
from thresher_study.executors import Executor, Here, Processes
from thresher_study.flags import WorkersConfig
from thresher_study.jobs import StudyJob, audits, looked_at, retrainings
from thresher_study.outcome import Outcome
from thresher_study.place import open_study
from thresher_study.views import influence_scores
from thresher_study.work import check_sources, work

MANIFEST = "manifest.json"


def run_study(study: StudyConfig, executor: Executor, console: PlainConsole) -> list[Outcome]:
    """Do every job that is not done, and keep ``manifest.json`` of all. Returns the outcomes of those that failed."""
    with hold(study.output):
        open_study(study)
        check_sources(study)
        return _run(study, executor, console)


def _run(study: StudyConfig, executor: Executor, console: PlainConsole) -> list[Outcome]:
    manifest = _Manifest(study)
    shown = Shown(console) if isinstance(executor, Here) else None
    failed: list[Outcome] = []
    with tracking(study.log_to, study.output) as tracker:
        tracker.parameters(study.model_dump(mode="json"))
        for stage in (audits, retrainings):
            jobs = stage(study)
            manifest.plan(jobs)
            waiting = {job.name: job for job in jobs if not job.done(study)}
            view = _View(console, list(waiting.values()), len(jobs))
            do = partial(work, study.output, progress=shown)
            with closing(executor.run(list(waiting), do)) as outcomes:
                for outcome in outcomes:
                    manifest.end(outcome)
                    view.tell(outcome)
                    if outcome.error is None:
                        tracker.numbers(_found(study, waiting[outcome.name]))
                    else:
                        failed.append(outcome)
    return failed


def _found(study: StudyConfig, job: StudyJob) -> dict[str, float]:
    """The numbers of a finished job that a tracker is told."""
    if job.score is not None:
        return {f"accuracy/{job.cell.name}/{job.score}": read_json(job.result(study))["accuracy"]}
    found = pd.read_parquet(job.result(study))
    ndr30 = dict(zip(found["score"], found["ndr30"], strict=True))
    return {f"ndr30/{job.cell.name}/{one}": ndr30[one.name] for one in looked_at(study, influence_scores(found))}


def executor_of(study: StudyConfig, where: WorkersConfig) -> Executor:
    """Where the jobs run. Raises :class:`ConfigError` for two places at once."""
    if sum((where.workers > 1, where.slurm is not None, where.ray is not None)) > 1:
        raise ConfigError("--workers, --slurm and --ray are three places to run jobs at; name one.")
    if where.slurm is not None:
        return Slurm(study.output / "slurm", where.slurm, study.slurm_options)
    if where.ray is not None:
        return Ray(None if where.ray == "local" else where.ray, study.ray_options)
    return Processes(where.workers) if where.workers > 1 else Here()


class _Manifest:
    """Every job that was planned, and how it stands: planned, done or failed."""

    def __init__(self, study: StudyConfig) -> None:
        self._study = study
        self._file = study.output / MANIFEST
        self._jobs: dict[str, dict[str, Any]] = {one["name"]: one for one in self._read()}

    def _read(self) -> list[dict[str, Any]]:
        return [] if is_damaged(self._file) else read_json(self._file, [])  # what is done is seen at the results

    def plan(self, jobs: Sequence[StudyJob]) -> None:
        for job in jobs:
            done = job.done(self._study)
            before = self._jobs.get(job.name, {"name": job.name, "seconds": None})
            self._jobs[job.name] = before | {"state": "done" if done else "planned", "error": None}
        self._write()

    def end(self, outcome: Outcome) -> None:
        self._jobs[outcome.name] = asdict(outcome) | {"state": "done" if outcome.error is None else "failed"}
        self._write()

    def _write(self) -> None:
        write_json(self._file, list(self._jobs.values()))


@dataclass
class _View:
    """A line a job: how it ended, how many are left, and about how long they take at the pace so far."""

    console: PlainConsole
    waiting: list[StudyJob]
    total: int
    started: float = field(default_factory=time.monotonic)
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def tell(self, outcome: Outcome) -> None:
        job = next(job for job in self.waiting if job.name == outcome.name)
        self.waiting.remove(job)
        self.took[job.kind].append(outcome.seconds)
        done = self.total - len(self.waiting)
        failed = outcome.error and f"FAILED: {outcome.error.rstrip('.')}"
        said = failed or f"done in {duration(outcome.seconds)}"
        left = f"; about {duration(self._left())} left" if self.waiting else ""
        self.console.print(f"[{done} of {self.total}] {outcome.name}: {said}{left}")

    def _left(self) -> float:
        means = {kind: sum(took) / len(took) for kind, took in self.took.items()}
        usual = sum(means.values()) / len(means)
        work_left = sum(means.get(job.kind, usual) for job in self.waiting)
        at_once = sum(sum(took) for took in self.took.values()) / max(time.monotonic() - self.started, 1e-3)
        return work_left / max(at_once, 1e-3)
