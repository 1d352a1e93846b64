"""Experiment trackers: what TensorBoard reads back, what the others' own calls are given, and what is missing."""

from __future__ import annotations

import importlib.machinery
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

import thresher
from audits import Audits
from summaries import told_by_canaries
from thresher import track
from thresher.cli import main
from thresher.config import LogTo
from thresher.errors import ConfigError
from thresher.model.finetune import Epoch
from thresher.track import Untracked, curves, open_tracker, tracking

EPOCHS = 2
FAST = {"epochs": EPOCHS, "batch_size": 8, "learning_rate": 1e-2, "methods": "tracin", "canaries": 0.1}
AUDITS = Audits(
    {"train": 60, "validation": 20, "test": 20}, {**FAST, "plant": 0.2}, {"retrain": True, "log_to": "tensorboard"}
)
options = AUDITS.options
TRAININGS = {"round_1", "round_2"} | {
    f"retraining_{rows}" for rows in ("all_rows", "dropped", "dropped_at_random", "relabelled", "errors_removed")
}


def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard")).Reload()


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    found = events(run)
    tags: Any = found.Tags()["scalars"]
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in tags}


def results(found: Mapping[str, list[tuple[int, float]]]) -> dict[str, float]:
    """The last numbers of a run, each of which is there once."""
    values = {name: points for name, points in found.items() if name.split("/")[0] not in TRAININGS}
    assert all([step for step, _ in points] == [0] for points in values.values())
    return {name: points[0][1] for name, points in values.items()}


def single(value: float) -> float:
    return float(np.float32(value))


def test_tensorboard_reads_back_what_the_summary_says(finished: thresher.AuditResult) -> None:
    summary = finished.summary
    entry = next(one for one in summary.detection if one.score == summary.score)
    rate = told_by_canaries(finished).error_rate
    expected = {f"detection/{name}": value for name, value in entry.model_dump().items() if name != "score"}
    expected |= {f"accuracy/{rows}": one.value for rows, one in summary.measures["accuracy"].items()}
    expected |= {"error_rate/estimate": rate.estimate, "error_rate/low": rate.low, "error_rate/high": rate.high}
    expected |= {f"seconds/{stage}": value for stage, value in summary.seconds.items()}
    assert len(expected) == 5 + 6 + 3 + 5
    assert results(scalars(finished.folder)) == {name: single(value) for name, value in expected.items()}


def of_epochs(result: thresher.AuditResult, name: str) -> list[float]:
    assert result.summary.training is not None
    return [getattr(epoch, name) for epoch in result.summary.training.epochs]


def test_every_training_has_its_curves(finished: thresher.AuditResult) -> None:
    found = scalars(finished.folder)
    for training in TRAININGS:
        for loss in ("train_loss", "query_loss"):
            assert [step for step, _ in found[f"{training}/{loss}"]] == list(range(1, EPOCHS + 1))
    for loss in ("train_loss", "query_loss"):  # right answers of two trainings may be as many
        first = [single(value) for value in of_epochs(finished, loss)]
        assert [value for _, value in found[f"round_1/{loss}"]] == first
        assert [value for _, value in found[f"round_2/{loss}"]] != first


def test_the_configuration_is_the_runs_hyperparameters(finished: thresher.AuditResult) -> None:
    content = events(finished.folder).SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    found = parse_session_start_info_plugin_data(content).hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}
    plain = (bool, int, float, str)
    config = finished.summary.config.model_dump(mode="json")
    assert values == {name: value if isinstance(value, plain) else str(value) for name, value in config.items()}


def test_a_run_that_goes_on_tells_all_of_it_once(finished: thresher.AuditResult, place: Path, tmp_path: Path) -> None:
    again = shutil.copytree(finished.folder, tmp_path / "again")
    (again / "summary.json").unlink()
    (again / "retrained" / "dropped.json").unlink()
    shutil.rmtree(again / "retrained" / "dropped")
    found = thresher.audit(options(place, again, retrain=True, log_to="tensorboard"))
    before, now = scalars(finished.folder), scalars(again)
    assert len(list((again / "tensorboard").iterdir())) == 2
    assert {name: points for name, points in now.items() if "seconds" not in name} == {
        name: points for name, points in before.items() if "seconds" not in name
    }
    assert results(now)["seconds/retraining"] == single(found.summary.seconds["retraining"])


def test_logging_is_no_part_of_the_result(finished: thresher.AuditResult, place: Path, tmp_path: Path) -> None:
    again = shutil.copytree(finished.folder, tmp_path / "again")
    shutil.rmtree(again / "tensorboard")
    thresher.audit(options(place, again, retrain=True))
    assert not (again / "tensorboard").exists()
    assert (again / "scores.parquet").read_bytes() == (finished.folder / "scores.parquet").read_bytes()


def test_one_training_without_canaries_or_errors(place: Path, tmp_path: Path) -> None:
    given = options(place, tmp_path / "run", log_to="tensorboard", detector="loss", plant=0.0)
    result = thresher.audit(given)
    found = scalars(tmp_path / "run")
    for loss in ("train_loss", "query_loss", "query_right"):
        points = [(number, single(value)) for number, value in enumerate(of_epochs(result, loss), start=1)]
        assert found.pop(f"training/{loss}") == points
    assert found == {f"seconds/{stage}": [(0, single(value))] for stage, value in result.summary.seconds.items()}


@pytest.mark.parametrize("kind", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_package_is_one_sentence_before_anything_starts(
    place: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    given = options(place, tmp_path / "run", log_to=kind)
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    monkeypatch.setattr(sys, "argv", ["thresher", "audit", *flags])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    message = f"error: --log-to {kind}: needs the '{kind}' package: pip install 'thresher[{kind}]'.\n"
    assert capsys.readouterr().err == message
    assert not (tmp_path / "run").exists()


@dataclass
class Kept:
    """What a library that is not installed here would keep: its public calls, with the names of their arguments."""

    opened: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, float] = field(default_factory=dict)
    ended: list[Any] = field(default_factory=list)


def wandb(kept: Kept) -> dict[str, ModuleType]:
    class Run:
        config = SimpleNamespace(update=lambda d, allow_val_change=None: kept.parameters.update(d))
        summary = SimpleNamespace(update=kept.results.update)

        def define_metric(self, name: str, step_metric: str | None = None) -> None:
            kept.opened |= {name: step_metric}

        def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
            assert step is None  # wandb forgets what comes with a lower step than the last
            kept.curves.append(data)

        def finish(self, exit_code: int | None = None) -> None:
            kept.ended.append(exit_code)

    def init(
        project: str | None = None,
        dir: str | None = None,
        name: str | None = None,
        mode: str | None = None,
        reinit: str | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Run:
        reports = os.environ.get("WANDB_ERROR_REPORTING")
        kept.opened |= {"project": project, "dir": dir, "name": name, "mode": mode, "reports": reports}
        assert (reinit, settings) == ("create_new", {"console": "off"})
        return Run()

    return {"wandb": module("wandb", init=init)}


def mlflow(kept: Kept) -> dict[str, ModuleType]:
    experiments = {"taken": "7"}

    @dataclass
    class Metric:
        key: str
        value: float
        timestamp: int
        step: int

    @dataclass
    class Param:
        key: str
        value: str

    class MlflowClient:
        def __init__(self, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
            kept.opened |= {"uri": tracking_uri, "telemetry": os.environ["MLFLOW_DISABLE_TELEMETRY"]}

        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id=experiments[name]) if name in experiments else None

        def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
            experiments[name] = "8"
            return "8"

        def create_run(self, experiment_id: str, start_time: int | None = None, *, run_name: str) -> Any:
            assert experiment_id in experiments.values()
            kept.opened |= {"experiment": experiment_id, "name": run_name}
            return SimpleNamespace(info=SimpleNamespace(run_id="run-1"))

        def log_batch(self, run_id: str, metrics: list[Metric] = [], params: list[Param] = []) -> None:  # noqa: B006
            assert run_id == "run-1"
            assert len(params) <= 100  # a server takes no more at once
            assert all(type(one.value) is str for one in params)
            kept.parameters |= {one.key: one.value for one in params}
            if metrics and metrics[0].step:
                kept.curves.append({one.key: one.value for one in metrics} | {"epoch": metrics[0].step})
            else:
                kept.results.update({one.key: one.value for one in metrics})

        def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
            kept.ended.append(status)

    return {
        "mlflow": module("mlflow", MlflowClient=MlflowClient),
        "mlflow.entities": module("mlflow.entities", Metric=Metric, Param=Param),
    }


def trackio(kept: Kept) -> dict[str, ModuleType]:
    class Run:
        config: dict[str, Any] = kept.parameters

        def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
            kept.results.update(metrics) if step is None else kept.curves.append(metrics | {"epoch": step})

    def init(
        project: str,
        name: str | None = None,
        embed: bool = True,
        auto_log_gpu: bool | None = None,
        auto_log_cpu: bool | None = None,
    ) -> Run:
        assert (embed, auto_log_gpu, auto_log_cpu) == (False, False, False)
        kept.opened |= {"project": project, "name": name}
        return Run()

    return {"trackio": module("trackio", init=init, finish=lambda: kept.ended.append("finished"))}


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    made.__dict__.update(members)
    return made


LIBRARIES: dict[LogTo, Callable[[Kept], dict[str, ModuleType]]] = {
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
}
NAMES = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ERROR_REPORTING", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[LogTo, Kept]]:
    """Stand-ins for the libraries, and no variables of the environment that steer them."""
    for name in (*NAMES, "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile goes, too
        monkeypatch.delenv(name)
    kept: dict[LogTo, Kept] = {kind: Kept() for kind in LIBRARIES}
    for kind, library in LIBRARIES.items():
        for name, made in library(kept[kind]).items():
            monkeypatch.setitem(sys.modules, name, made)
    yield kept


def track_a_run(kind: LogTo, folder: Path) -> None:
    with tracking(kind, folder) as tracker:
        tracker.parameters({"epochs": 2, "methods": ["tracin", "cosine"], "drop": None})
        for training in ("round_1", "round_2"):
            for number in (1, 2):
                curves(tracker, training)(number, Epoch(1.0 / number, 2.0 / number))
        tracker.numbers({"detection/ndr30": 0.7, "seconds/fine-tuning": 12.5})


@pytest.mark.parametrize("kind", list(LIBRARIES))
def test_other_trackers_are_told_the_same(libraries: dict[LogTo, Kept], tmp_path: Path, kind: LogTo) -> None:
    track_a_run(kind, tmp_path)
    kept = libraries[kind]
    assert kept.opened["name"] == tmp_path.name
    given = {"epochs": 2, "methods": ["tracin", "cosine"], "drop": None}
    assert kept.parameters == ({name: str(value) for name, value in given.items()} if kind == "mlflow" else given)
    assert kept.curves == [
        {f"{training}/train_loss": 1.0 / number, f"{training}/query_loss": 2.0 / number, "epoch": number}
        for training in ("round_1", "round_2")
        for number in (1, 2)
    ]
    assert kept.results == {"detection/ndr30": 0.7, "seconds/fine-tuning": 12.5}
    assert kept.ended == [{"wandb": 0, "mlflow": "FINISHED", "trackio": "finished"}[kind]]


def test_nothing_leaves_the_machine_by_default(libraries: dict[LogTo, Kept], tmp_path: Path) -> None:
    track_a_run("wandb", tmp_path)
    expected = {"project": "thresher", "dir": str(tmp_path), "mode": "offline", "reports": "false", "*": "epoch"}
    assert expected.items() <= libraries["wandb"].opened.items()
    track_a_run("mlflow", tmp_path)
    expected = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "telemetry": "true", "experiment": "8"}
    assert expected.items() <= libraries["mlflow"].opened.items()
    assert not list(tmp_path.iterdir())


def test_the_environment_names_other_places(
    libraries: dict[LogTo, Kept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(NAMES, ("online", "mine", "true", "http://server", "taken"), strict=True):
        monkeypatch.setenv(name, value)
    track_a_run("wandb", tmp_path)
    expected = {"project": "mine", "mode": None, "reports": "true"}  # wandb reads the mode itself
    assert expected.items() <= libraries["wandb"].opened.items()
    track_a_run("mlflow", tmp_path)
    assert {"uri": "http://server", "experiment": "7"}.items() <= libraries["mlflow"].opened.items()


def test_a_run_that_ends_with_an_error_is_marked(libraries: dict[LogTo, Kept], tmp_path: Path) -> None:
    for kind in LIBRARIES:
        with pytest.raises(KeyboardInterrupt), tracking(kind, tmp_path):
            raise KeyboardInterrupt
    assert [kept.ended for kept in libraries.values()] == [[1], ["FAILED"], ["finished"]]


def test_a_tracker_that_cannot_open_is_refused_and_one_that_fails_is_given_up(
    libraries: dict[LogTo, Kept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    class Full(Untracked):
        def __init__(self, folder: Path, name: str) -> None:
            super().__init__()

        def numbers(self, values: Mapping[str, float], step: int | None = None) -> None:
            raise OSError("the disk is full\nand more")

    monkeypatch.setattr(track.TRACKERS, "_records", dict(track.TRACKERS))
    track.TRACKERS.register("wandb", track.TrackerKind(Full, "wandb"), replace=True)
    with caplog.at_level(logging.WARNING):
        track_a_run("wandb", tmp_path)
    assert [one.message for one in caplog.records] == [
        "--log-to wandb is given up, the audit goes on: the disk is full"
    ]

    def unreachable(folder: Path, name: str) -> Untracked:
        raise ConnectionError("no route to http://server")

    track.TRACKERS.register("wandb", track.TrackerKind(unreachable, "wandb"), replace=True)
    with pytest.raises(ConfigError, match=r"--log-to wandb: cannot open a run \(no route to http://server\)"):
        open_tracker("wandb", tmp_path, "run")


def test_nothing_is_kept_where_nothing_is_asked(tmp_path: Path) -> None:
    with tracking(None, tmp_path) as tracker:
        tracker.parameters({"epochs": 2})
        tracker.numbers({"a": 1.0}, 1)
    assert not list(tmp_path.iterdir())
