"""Experiment trackers: what an audit is told and finds out, in the tool where its people look at their trainings.

Nothing leaves the machine unless the environment says where to: wandb is offline unless WANDB_MODE says otherwise,
mlflow writes into the run directory unless MLFLOW_TRACKING_URI is set, and trackio into its own folder. What wandb and
mlflow would report to their makers is switched off, too.

A run that was killed tells everything anew when it goes on, from what it kept.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from thresher.config import LogTo
from thresher.errors import ConfigError, first_line
from thresher.lines import plain
from thresher.registry import Registry

if TYPE_CHECKING:  # which takes torch
    from thresher.model.finetune import Epoch, EpochCallback

log = logging.getLogger(__name__)

PROJECT = "thresher"


class Tracker(Protocol):
    """Something that keeps the parameters and numbers of one run."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """JSON values by name; once, before any number."""
        ...

    def numbers(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Numbers by name: a step of their curves, or without one, results of the whole run."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Write what is not written yet; nothing comes after."""
        ...


@dataclass(frozen=True)
class TrackerKind:
    """How a tracker is opened: with the run's folder, which exists, and its name.

    ``package`` must be installed, and Thresher does not depend on it.

    Example:
        >>> TrackerKind(lambda folder, name: Untracked()).package is None
        True
    """

    open: Callable[[Path, str], Tracker]
    package: str | None = None


def check_tracker(kind: LogTo | None) -> None:
    """Raise :class:`ConfigError` where the package that ``--log-to`` needs is not installed."""
    package = None if kind is None else TRACKERS.choose(kind).package
    if package is not None and find_spec(package) is None:
        raise ConfigError(f"--log-to {kind}: needs the '{package}' package: pip install 'thresher[{kind}]'.")


def open_tracker(kind: LogTo | None, folder: Path, name: str) -> Tracker:
    """A tracker of the run ``name``, whose local files go into its existing ``folder``; a silent one for None.

    Raises :class:`ConfigError` where the package is missing or cannot open a run. Where it fails later it is given up
    with a warning: an audit of hours must not end for it.
    """
    if kind is None:
        return Untracked()
    check_tracker(kind)
    try:
        return _Dispensable(TRACKERS[kind].open(folder, name), kind)
    except Exception as error:  # each library raises its own
        raise ConfigError(
            f"--log-to {kind}: cannot open a run ({first_line(error)}); mend it or leave it out."
        ) from error


@contextmanager
def tracking(kind: LogTo | None, folder: Path) -> Generator[Tracker]:
    """:func:`open_tracker` under the folder's name; closed in the end, as failed where that is an error."""
    tracker = open_tracker(kind, folder, plain(folder.absolute().name))
    try:
        yield tracker
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close()


def curves(tracker: Tracker, name: str) -> EpochCallback:
    """Tells the epochs of a training, counted from 1, as ``NAME/train_loss`` and so on: what an epoch has of it."""

    def told(number: int, epoch: Epoch) -> None:
        known = {f"{name}/{key}": value for key, value in asdict(epoch).items() if value is not None}
        tracker.numbers(known, number)

    return told


class Untracked:
    """Keeps nothing."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Nobody reads them."""

    def numbers(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Nobody reads them."""

    def close(self, *, failed: bool = False) -> None:
        """Nothing was opened."""


class _Dispensable:
    """Passes everything on, until that fails once."""

    def __init__(self, tracker: Tracker, kind: LogTo) -> None:
        self._tracker, self._kind = tracker, kind

    def parameters(self, values: Mapping[str, Any]) -> None:
        self._try(lambda: self._tracker.parameters(values))

    def numbers(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._try(lambda: self._tracker.numbers(values, step))

    def close(self, *, failed: bool = False) -> None:
        self._try(lambda: self._tracker.close(failed=failed))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            log.warning("--log-to %s is given up, the audit goes on: %s", self._kind, first_line(error))
            self._tracker = Untracked()


class TensorBoard:
    """Event files in ``tensorboard/`` of the folder."""

    def __init__(self, folder: Path, name: str) -> None:
        # What an earlier call of the same command wrote is told anew, and would be drawn twice.
        self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(folder / "tensorboard", purge_step=0)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """As hyperparameters, which TensorBoard shows in a table of all runs beside their numbers."""
        plain = (bool, int, float, str)
        known = {key: value if isinstance(value, plain) else str(value) for key, value in values.items()}
        hparams: Any = import_module("tensorboard.plugins.hparams.summary_v2")
        self._writer.file_writer.add_summary(hparams.hparams_pb(known))

    def numbers(self, values: Mapping[str, float], step: int | None = None) -> None:
        """As scalars in float32; results of the whole run at step 0."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step or 0)
        self._writer.flush()

    def close(self, *, failed: bool = False) -> None:
        """Close the file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases in ``wandb/`` of the folder; ``wandb sync`` uploads it."""

    def __init__(self, folder: Path, name: str) -> None:
        online = "WANDB_MODE" in os.environ
        if not online:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb: Any = import_module("wandb")
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            dir=str(folder),
            mode=None if online else "offline",
            reinit="create_new",  # a run of the caller's own stays open
            settings={"console": "off"},
        )
        # Its own steps only rise, and each of several trainings counts its epochs anew.
        self._run.define_metric("*", step_metric="epoch")

    def parameters(self, values: Mapping[str, Any]) -> None:
        """As the run's config."""
        self._run.config.update(dict(values))

    def numbers(self, values: Mapping[str, float], step: int | None = None) -> None:
        """As history over ``epoch``; results of the whole run as its summary."""
        if step is None:
            self._run.summary.update(dict(values))
        else:
            self._run.log({**values, "epoch": step})

    def close(self, *, failed: bool = False) -> None:
        """Finish the run."""
        self._run.finish(exit_code=int(failed))


class MLflow:
    """A run in ``mlflow.db`` of the folder, or on the server that MLFLOW_TRACKING_URI names."""

    def __init__(self, folder: Path, name: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow: Any = import_module("mlflow")
        self._entities: Any = import_module("mlflow.entities")
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
        # A client of its own: the caller's active run and tracking URI stay what they are.
        self._client: Any = mlflow.MlflowClient(tracking_uri=place)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run: str = self._client.create_run(number, run_name=name).info.run_id

    def parameters(self, values: Mapping[str, Any]) -> None:
        """As the run's parameters, which are texts."""
        params = [self._entities.Param(key, str(value)) for key, value in values.items()]
        self._client.log_batch(self._run, params=params)

    def numbers(self, values: Mapping[str, float], step: int | None = None) -> None:
        """As metrics; results of the whole run at step 0."""
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(key, value, now, step or 0) for key, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, *, failed: bool = False) -> None:
        """End the run."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


class Trackio:
    """A run in trackio's own folder, which its dashboard shows, unless its environment names a Space or a server."""

    def __init__(self, folder: Path, name: str) -> None:
        self._trackio: Any = import_module("trackio")
        self._run: Any = self._trackio.init(
            project=PROJECT, name=name, embed=False, auto_log_gpu=False, auto_log_cpu=False
        )

    def parameters(self, values: Mapping[str, Any]) -> None:
        """As the run's config, which goes with its first numbers."""
        self._run.config.update(values)

    def numbers(self, values: Mapping[str, float], step: int | None = None) -> None:
        """As metrics; results of the whole run one step after the last."""
        self._run.log(dict(values), step=step)

    def close(self, *, failed: bool = False) -> None:
        """Finish the run."""
        self._trackio.finish()


TRACKERS = Registry[TrackerKind](
    "tracker",
    "thresher.trackers",
    {
        "tensorboard": TrackerKind(TensorBoard, "tensorboard"),
        "wandb": TrackerKind(WandB, "wandb"),
        "mlflow": TrackerKind(MLflow, "mlflow"),
        "trackio": TrackerKind(Trackio, "trackio"),
    },
    kind=TrackerKind,
)
