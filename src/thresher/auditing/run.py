"""A run directory: one audit's files, which belong to one configuration and one set of rows."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from thresher.auditing.restore import ROUNDS, restore
from thresher.checksums import CHECKSUMS, digests_of, is_damaged, keep_checksums, record, verified
from thresher.config import NOT_PART_OF_THE_RESULT, AuditConfig
from thresher.data.table import Table, fingerprint, read_table
from thresher.errors import RunError
from thresher.files import UNFINISHED, atomic_write, json_text, read_json, remove, write_json
from thresher.locks import LOCK
from thresher.model.source import model_fingerprint
from thresher.options import differences
from thresher.summary import FORMAT, Summary, check_format, read_summary

log = logging.getLogger(__name__)

THREADS = "threads"
"""In inputs.json: how many there were when the run began."""

_UNFINISHED = (f".*{UNFINISHED}", "*.zarr/**/*.partial")
"""What a kill leaves of a file, of ours and of Zarr's."""


class RunDirectory:
    """Paths and bookkeeping of one run.

    checksums.txt (of every file here, by which damage is noticed), config.yaml (resolved, replayable), inputs.json
    (fingerprints of what was read, the format of all files here, and the number of threads), drawn.json (rows with
    planted errors and canaries, as they were trained on), features.safetensors and (of answers)
    as_it_came.safetensors, which are of the model before training, copies.safetensors (which texts are near copies),
    features_second.safetensors (of another encoder),
    canaries.safetensors (their rows and labels), search/ (for a learning rate), then of the first training model/,
    training/, gradients/ (while they are needed), influence.zarr or queries.safetensors, predictions.safetensors,
    cancellation.parquet, candidates.parquet, opinions.safetensors (of rows with classes) and judged.json (with
    retraining), of each other one the same in rounds/NUMBER, and of all together
    all_scores.parquet, scores.parquet (the verdicts on rows), retrained/, summary.json and report.html. A tracker puts
    its local files beside them.

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
        self.tensor = path / "influence.zarr"
        self.queries = path / "queries.safetensors"
        self.predictions = path / "predictions.safetensors"
        self.drawn = path / "drawn.json"
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
        self.report = path / "report.html"
        self._seconds = path / "seconds.json"

    def round(self, number: int) -> RunDirectory:
        """Where a training's files are; the first one's are the run's own."""
        return RunDirectory(self.path / ROUNDS / str(number)) if number else self

    def features(self, which: str) -> Path:
        """Where features are: "frozen" ones of the model as it came, or those of a "second" encoder."""
        return self.path / ("features.safetensors" if which == "frozen" else f"features_{which}.safetensors")

    def open(self, config: AuditConfig, inputs: Mapping[str, str]) -> None:
        """Begin a run, or go on with one of the same configuration and rows. See :meth:`refuse_other`.

        What is damaged in it is taken away, and so made again.
        """
        self.refuse_other(config, inputs)
        for leftover in {file for pattern in _UNFINISHED for file in self.path.rglob(pattern)}:
            remove(leftover)
        keep_checksums(self.path)
        ours = self._ours(config, inputs)
        if self._begun:
            for file in filter(is_damaged, ours):
                log.warning("%s: was damaged, and is mended.", file)
                _write_text(file, ours[file])
            record(file for file in ours if file.exists() and not digests_of(file))
            self._tell_threads()
            restore(self.path)
        if self._only_looked_at and not config.quick:
            self._forget_look()
        if not self.config.exists():
            for file, text in ours.items():
                _write_text(file, text)

    @property
    def _begun(self) -> bool:
        """Whether a configuration was written here, be it still there or not."""
        return self.config.exists() or bool(digests_of(self.config))

    def _ours(self, config: AuditConfig, inputs: Mapping[str, str]) -> dict[Path, str]:
        """The two files that say whose the run is, and what is in them; the one that begins it last."""
        about = {"format": FORMAT, **inputs, THREADS: str(_threads())}
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        return {self.inputs: json_text(about), self.config: text}

    def _tell_threads(self) -> None:
        before, now = read_json(self.inputs).get(THREADS), str(_threads())
        if before is not None and before != now:
            log.warning(
                "%s: was begun with %s threads and goes on with %s, so what is computed now may differ by rounding; "
                "OMP_NUM_THREADS=%s goes on as it began.",
                self.path,
                before,
                now,
                before,
            )

    @property
    def _only_looked_at(self) -> bool:
        return self.config.exists() and bool(yaml.safe_load(self.config.read_text(encoding="utf-8"))["quick"])

    def _forget_look(self) -> None:
        """Take away what a first look left, but for the features and what was drawn."""
        said = (self.predictions, self.canaries, self.candidates, self.opinions, self.all_scores, self.scores)
        for path in (self.path / ROUNDS, *said, self.summary, self.report, self._seconds, self.config):
            remove(path)

    def refuse_other(self, config: AuditConfig, inputs: Mapping[str, str]) -> None:
        """Raise :class:`RunError` naming what differs if the directory belongs to another run, or cannot go on."""
        if not _is_name(str(self.path)):
            raise RunError(f"{self.path}: no folder for all files can have this name; name another --output.")
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: is a file; name a directory as --output.")
        if not self._begun:
            ours = ("data", self.inputs.name, CHECKSUMS, LOCK)  # the demo lays its rows here first
            others = [e.name for e in self.path.glob("*") if e.name not in ours and e.suffix != UNFINISHED]
            if others:
                raise RunError(f"{self.path}: holds other files ({min(others)}); name an empty --output.")
            return
        ours = self._ours(config, inputs)
        stored: dict[str, Any] = json.loads(self._read(self.inputs, ours[self.inputs]))
        check_format(self.path, stored.get("format"))
        self._refuse_unlisted()
        before = yaml.safe_load(self._read(self.config, ours[self.config]))
        if config.quick and not before["quick"]:
            raise RunError(f"{self.path}: holds a whole audit, and --quick would replace it; name another --output.")
        now = config.model_dump(mode="json", exclude=set(NOT_PART_OF_THE_RESULT))
        differs = differences(before, now)
        differs += [f"the contents of {name} changed" for name in inputs if stored.get(name) != inputs[name]]
        if differs:
            raise RunError(
                f"{self.path}: this run was made with other arguments: {'; '.join(differs)}. Name another --output."
            )

    def _read(self, file: Path, ours: str) -> str:
        """What is in a file that says whose the run is; where it is damaged, what is ``ours`` if that was in it."""
        if not is_damaged(file):
            return file.read_text(encoding="utf-8") if file.exists() else "{}"
        if hashlib.sha256(ours.encode()).hexdigest() in digests_of(file):
            return ours
        raise RunError(
            f"{file}: is damaged or gone, so nothing tells whose run this is; begin anew with another --output."
        )

    def refuse_format(self) -> None:
        """Raise :class:`RunError` if the directory's files are of another format."""
        check_format(self.path, read_json(self.inputs, {}).get("format"))
        self._refuse_unlisted()

    def _refuse_unlisted(self) -> None:
        if not (self.path / CHECKSUMS).is_file():
            raise RunError(
                f"{self.path / CHECKSUMS}: is gone, so nothing tells whether the other files here are what was "
                "written; begin anew with another --output."
            )

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
    if fingerprint(table) != read_json(verified(run.inputs, listed=True))[part]:
        raise RunError(f"{source}: the rows have changed since the audit in {run.path}; audit them again.")
    return table


def warn_of_changes(run: RunDirectory, config: AuditConfig) -> None:
    """Say where the model or the clean queries of a finished run are here and are no longer what they were."""
    stored, changed = read_json(verified(run.inputs, listed=True)), list[str]()
    for name, source in (("model", config.model), ("adapter", config.adapter)):
        if source is not None and Path(source).exists() and stored.get(name) != model_fingerprint(source):
            changed.append(f"the {name} in {source}")
    queries = config.validation
    if Path(queries).exists() and stored["query"] != fingerprint(read_table(queries, "validation")):
        changed.append(f"the queries in {queries}")
    if changed:
        log.warning(
            "Changed since the audit in %s: %s. Its verdicts are of what was there before; audit again for new ones.",
            run.path,
            " and ".join(changed),
        )


def read_finished(path: Path) -> tuple[RunDirectory, AuditConfig, pd.DataFrame, Summary]:
    """A finished run: its directory, configuration, verdicts and summary. Raises :class:`RunError` if it is none."""
    run = RunDirectory(path)
    if not run.config.exists() and not digests_of(run.config):
        raise RunError(f"{path}: this is not a run directory (no config.yaml); name the --output of an audit.")
    run.refuse_format()
    if not run.summary.exists():
        raise RunError(f"{path}: this audit is not finished; run the same command again to go on.")
    for file in (run.config, run.inputs, run.scores, run.summary):
        verified(file, listed=True)
    config = AuditConfig(**yaml.safe_load(run.config.read_text(encoding="utf-8")))
    return run, config, pd.read_parquet(run.scores), read_summary(run.summary)


def _write_text(file: Path, text: str) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _threads() -> int:
    """On which the last bits of every sum hang."""
    import torch  # which takes seconds, and finished runs are read without

    return torch.get_num_threads()


def _is_name(path: str) -> bool:
    """Whether weights can be saved under it, too: their files refuse what is not UTF-8, after all the work."""
    try:
        return b"\0" not in path.encode()
    except UnicodeEncodeError:
        return False
