"""Where a study's independent jobs run when one machine is not enough: Slurm and Ray.

Every machine of the cluster needs the same files under the same paths, and the same Python with Thresher in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from thresher.errors import ConfigError, first_line
from thresher_study.executors import outcomes
from thresher_study.outcome import Outcome, Work

DAY = 24 * 60
POLL = 1.0
ONE_PROCESS = ("nodes", "tasks_per_node", "slurm_nodes", "slurm_tasks_per_node", "slurm_ntasks_per_node")


def _require(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(
            f"executor {extra}: this needs the '{package}' package: pip install 'thresher-study[{extra}]'."
        )


class Slurm:
    """An array of jobs through submitit, on the Slurm cluster that this machine submits to, or all at once locally.

    ``options`` are what submitit's ``AutoExecutor.update_parameters`` takes: ``timeout_min`` (a day where not given),
    ``cpus_per_task``, ``mem_gb``, ``gpus_per_node``, ``slurm_partition``, ``slurm_array_parallelism``, ... A job whose
    time is up is queued again, three times, and goes on where it was. ``folder`` holds submitit's own files; every node
    must see it. Raises :class:`ConfigError` where submitit is missing, finds no cluster or refuses an option.
    """

    def __init__(
        self, folder: Path, cluster: Literal["slurm", "local"] = "slurm", options: Mapping[str, Any] | None = None
    ) -> None:
        _require("submitit", "slurm")
        import submitit

        asked = {"name": "thresher", "timeout_min": DAY, **(options or {})}
        several = [name for name in ONE_PROCESS if asked.get(name, 1) != 1]
        if several:
            raise ConfigError(f"executor slurm: {several[0]} must be 1; a job is one process.")
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
            self._executor.update_parameters(**asked)
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(f"executor slurm: {first_line(error)}") from None

    def run(self, names: Sequence[str], work: Work) -> Generator[Outcome]:
        """See :meth:`thresher_study.executors.Executor.run`."""
        submitted = _Submitted(self._executor, work)
        try:
            yield from outcomes(names, submitted)
        finally:
            submitted.cancel()


class _Resumed:
    """Work that submitit queues again when its time is up, or when a more important job takes its place."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, name: str) -> Outcome:
        return self._work(name)

    def checkpoint(self, name: str) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, name)


class _Submitted:
    """Jobs that are queued or run."""

    def __init__(self, executor: Any, work: Work) -> None:
        self._executor = executor
        self._work = _Resumed(work)
        self._jobs: dict[str, Any] = {}

    def start(self, names: Sequence[str]) -> None:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        if not names:
            return
        try:
            self._jobs.update(zip(names, self._executor.map_array(self._work, names), strict=True))
        except (FailedJobError, FailedSubmissionError) as error:
            raise ConfigError(f"executor slurm: the cluster took no job: {first_line(error)}") from None

    def ended(self) -> list[tuple[str, Outcome | None]]:
        while not (done := [name for name, job in self._jobs.items() if job.done()]):
            time.sleep(POLL)
        return [(name, _submitted(name, self._jobs.pop(name))) for name in done]

    def cancel(self) -> None:
        """Take back what has not ended."""
        for job in self._jobs.values():
            job.cancel(check=False)


def _submitted(name: str, job: Any) -> Outcome | None:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return job.result()
    except FailedJobError:
        return Outcome(name, 0.0, f"it could not be run; see {job.paths.stderr}.")
    except UncompletedJobError:  # its node failed or its process was killed
        job.cancel(check=False)  # Slurm, too, may be about to run it again
        return None


class Ray:
    """Tasks of a Ray cluster: the one at ``address`` ("auto" finds it), one that is already connected, or a local one.

    ``options`` are what ``ray.remote`` takes, above all ``num_cpus`` (1) and ``num_gpus`` (0) of one job. Raises
    :class:`ConfigError` where ray is missing, does not answer, or refuses an option.
    """

    def __init__(self, address: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        _require("ray", "ray")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        # Ray's own retries are off: those of what ran out of memory have no end.
        fixed = {"max_retries": 0, "retry_exceptions": False, "num_returns": 1}
        self._address = address
        self._needs: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, **(options or {}), **fixed}
        try:
            self._remote: Any = ray.remote(**self._needs)(_call)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"executor ray: {first_line(error)}") from None

    def run(self, names: Sequence[str], work: Work) -> Generator[Outcome]:
        """See :meth:`thresher_study.executors.Executor.run`."""
        import ray

        if not names:
            return
        ours = not ray.is_initialized()
        if ours:
            self._connect()
        tasks = _Tasks(self._remote, work)
        try:
            yield from outcomes(names, tasks)
        finally:
            tasks.cancel()
            if ours:
                ray.shutdown()

    def _connect(self) -> None:
        import ray

        quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address=self._address or "local", **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"executor ray: {first_line(error)}") from None
        if self._address is None:
            self._check_room(ray.cluster_resources())

    def _check_room(self, there: Mapping[str, float]) -> None:
        """A job that does not fit on a cluster that does not grow would wait for ever."""
        import ray

        for name, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
            if (self._needs[name] or 0) > there.get(resource, 0):
                ray.shutdown()
                raise ConfigError(f"executor ray: {name} {self._needs[name]} is more than this machine has.")


def _call(work: Work, name: str) -> Outcome:
    return work(name)


class _Tasks:
    """Tasks that wait or run."""

    def __init__(self, remote: Any, work: Work) -> None:
        self._remote, self._work = remote, work
        self._names: dict[Any, str] = {}

    def start(self, names: Sequence[str]) -> None:
        self._names.update((self._remote.remote(self._work, name), name) for name in names)

    def ended(self) -> list[tuple[str, Outcome | None]]:
        import ray

        ready, _ = ray.wait(list(self._names))
        return [_task(self._names.pop(task), task) for task in ready]

    def cancel(self) -> None:
        """End what runs, and forget what waits."""
        import ray

        for task in self._names:
            ray.cancel(task, force=True)


def _task(name: str, task: Any) -> tuple[str, Outcome | None]:
    import ray
    from ray import exceptions as fate

    lost = (fate.WorkerCrashedError, fate.OutOfMemoryError, fate.NodeDiedError, fate.ObjectLostError)
    try:
        return name, ray.get(task)
    except (*lost, fate.LocalRayletDiedError):
        return name, None
    except fate.RayError as error:  # the last line of a trace says what happened
        return name, Outcome(name, 0.0, str(error).strip().splitlines()[-1])
