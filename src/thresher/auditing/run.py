"""A run directory: one audit's files, which belong to one configuration and one set of rows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml

from thresher.config import NOT_PART_OF_THE_RESULT, AuditConfig, differences
from thresher.data.table import Table, fingerprint, read_table
from thresher.errors import RunError
from thresher.files import UNFINISHED, atomic_write, read_json, write_json
from thresher.summary import FORMAT, Summary, check_format, read_summary

ROUNDS = "rounds"
"""Folder of all trainings but the first."""

GUESSED = "labels that the model was asked for"
"""In inputs.json. They hang on the last bits of its numbers, and these on the number of threads."""


class RunDirectory:
    """Paths and bookkeeping of one run.

    config.yaml (resolved, replayable), inputs.json (fingerprints of what was read, and the format of all files here),
    copies.safetensors (which texts are near copies), features.safetensors and (of answers)
    as_it_came.safetensors, which are of the model before training,
    features_second.safetensors (of another encoder),
    canaries.safetensors (their rows and labels), search/ (for a learning rate), then of the first training model/,
    training/, gradients/ and sums/ over checkpoints (while they are needed), influence.zarr, predictions.safetensors,
    cancellation.parquet, candidates.parquet, opinions.safetensors (of rows with classes) and judged.json (with
    retraining), of each other one the same in rounds/NUMBER, and of all together
    all_scores.parquet, scores.parquet (the verdicts on rows), retrained/, summary.json. A tracker puts its local files
    beside them.

    Example:
        >>> RunDirectory(Path("runs/a")).scores.as_posix()
        'runs/a/scores.parquet'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.inputs = path / "inputs.json"
        self.model = path / "model"
        self.training = path / "training"
        self.gradients = path / "gradients"
        self.sums = path / "sums"
        self.tensor = path / "influence.zarr"
        self.predictions = path / "predictions.safetensors"
        self.copies = path / "copies.safetensors"
        self.canaries = path / "canaries.safetensors"
        self.as_it_came = path / "as_it_came.safetensors"
        self.search = path / "search"
        self.candidates = path / "candidates.parquet"
        self.opinions = path / "opinions.safetensors"
        self.judged = path / "judged.json"
        self.cancellation = path / "cancellation.parquet"
        self.all_scores = path / "all_scores.parquet"
        self.scores = path / "scores.parquet"
        self.retrained = path / "retrained"
        self.summary = path / "summary.json"
        self._seconds = path / "seconds.json"

    def round(self, number: int) -> RunDirectory:
        """Where a training's files are; the first one's are the run's own."""
        return RunDirectory(self.path / ROUNDS / str(number)) if number else self

    def features(self, which: str) -> Path:
        """Where features are: "frozen" ones of the model as it came, or those of a "second" encoder."""
        return self.path / ("features.safetensors" if which == "frozen" else f"features_{which}.safetensors")

    def open(self, config: AuditConfig, inputs: Mapping[str, str]) -> None:
        """Begin a run, or go on with one of the same configuration and rows. See :meth:`refuse_other`."""
        self.refuse_other(config, inputs)
        for leftover in self.path.rglob(f".*{UNFINISHED}"):  # of a kill in the middle of a write
            leftover.unlink()
        if self._only_looked_at and not config.quick:
            self._forget_look()
        if not self.config.exists():
            write_json(self.inputs, {"format": FORMAT, **inputs})
            with atomic_write(self.config) as temporary:
                temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")

    @property
    def _only_looked_at(self) -> bool:
        return self.config.exists() and bool(yaml.safe_load(self.config.read_text(encoding="utf-8"))["quick"])

    def _forget_look(self) -> None:
        """Take away what a first look left, but for the features."""
        shutil.rmtree(self.path / ROUNDS, ignore_errors=True)
        said = (self.predictions, self.canaries, self.candidates, self.opinions, self.all_scores, self.scores)
        for file in (*said, self.summary, self._seconds, self.config):
            file.unlink(missing_ok=True)

    def refuse_other(self, config: AuditConfig, inputs: Mapping[str, str]) -> None:
        """Raise :class:`RunError` naming what differs if the directory belongs to another run."""
        if not _is_name(str(self.path)):
            raise RunError(f"{self.path}: no folder for all files can have this name; name another --output.")
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: is a file; name a directory as --output.")
        if not self.config.exists():
            ours = ("data", self.inputs.name)  # the demo lays its rows here first
            others = [e.name for e in self.path.glob("*") if e.name not in ours and e.suffix != UNFINISHED]
            if others:
                raise RunError(f"{self.path}: holds other files ({min(others)}); name an empty --output.")
            return
        self.refuse_format()
        before = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        if config.quick and not before["quick"]:
            raise RunError(f"{self.path}: holds a whole audit, and --quick would replace it; name another --output.")
        now = config.model_dump(mode="json", exclude=set(NOT_PART_OF_THE_RESULT))
        differs = differences(before, now)
        stored = read_json(self.inputs)
        hint = {GUESSED: " (use as many threads as before: OMP_NUM_THREADS)"}
        differs += [
            f"the contents of {name} changed{hint.get(name, '')}" for name in inputs if stored.get(name) != inputs[name]
        ]
        if differs:
            raise RunError(
                f"{self.path}: this run was made with other arguments: {'; '.join(differs)}. Name another --output."
            )

    def refuse_format(self) -> None:
        """Raise :class:`RunError` if the directory's files are of another format."""
        check_format(self.path, read_json(self.inputs, {}).get("format"))

    @contextmanager
    def time_stage(self, stage: str) -> Generator[None]:
        """Add the time that a stage takes to what earlier calls of the same command took for it, if they ended it."""
        started = time.monotonic()
        try:
            yield
        finally:
            if self.path.exists():
                seconds = self.seconds
                seconds[stage] = round(seconds.get(stage, 0.0) + time.monotonic() - started, 3)
                write_json(self._seconds, seconds)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each stage so far."""
        return read_json(self._seconds, {})


def read_audited_rows(run: RunDirectory, config: AuditConfig, part: Literal["train", "query"]) -> Table:
    """The rows that were audited, as they were. Raises :class:`RunError` if they have changed since."""
    source, split = (config.train, "train") if part == "train" else (config.validation, "validation")
    table = read_table(source, split)
    if fingerprint(table) != read_json(run.inputs)[part]:
        raise RunError(f"{source}: the rows have changed since the audit in {run.path}; audit them again.")
    return table


def read_finished(path: Path) -> tuple[RunDirectory, AuditConfig, pd.DataFrame, Summary]:
    """A finished run: its directory, configuration, verdicts and summary. Raises :class:`RunError` if it is none."""
    run = RunDirectory(path)
    if not run.config.exists():
        raise RunError(f"{path}: this is not a run directory (no config.yaml); name the --output of an audit.")
    run.refuse_format()
    if not run.summary.exists():
        raise RunError(f"{path}: this audit is not finished; run the same command again to go on.")
    config = AuditConfig(**yaml.safe_load(run.config.read_text(encoding="utf-8")))
    return run, config, pd.read_parquet(run.scores), read_summary(run.summary)


def _is_name(path: str) -> bool:
    """Whether weights can be saved under it, too: their files refuse what is not UTF-8, after all the work."""
    try:
        return b"\0" not in path.encode()
    except UnicodeEncodeError:
        return False
