"""What finds planted errors, and what acting on it buys: the tables of docs/detection.md.

    python benchmarks/detection.py find --glue-dir FOLDER      # audits: what every score finds
    python benchmarks/detection.py act --glue-dir FOLDER       # retraining: what dropping and relabelling buy
    python benchmarks/detection.py ceiling --glue-dir FOLDER   # what the same model finds that learned no error
    python benchmarks/detection.py tables

The first three do one small job after another, each in a folder of its own under ``--output``; a job that is done is
not done again, and a killed one goes on. ``--part 0/2`` and ``--part 1/2`` share them between two processes. GLUE tasks
are folders of train.jsonl and validation.jsonl with official columns, beside which there may be ``grammars``, sentences
transformed in ten ways (``answer``, ``variation``); without ``--glue-dir`` only the demo's critics' quotes are audited.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from detection_rows import FOUR, LEARNED, QUOTES, TEN, has_rows, write_rows
from thresher.auditing.decide import Decision, decide
from thresher.auditing.pipeline import run
from thresher.auditing.prepare import Job, prepare
from thresher.auditing.retrain import retrain, training_sets
from thresher.auditing.rounds import with_alike_canaries
from thresher.auditing.run import RunDirectory
from thresher.config import AuditConfig, PlantKind
from thresher.data.packaged import packaged_model
from thresher.demo import RECIPE
from thresher.files import write_json
from thresher.model.finetune import finetune
from thresher.model.predict import predict
from thresher.progress import Shown, Silent
from thresher.scores.table import lowest_of
from thresher.tensors import write_tensors
from thresher.terminal import PlainConsole

TASKS = (QUOTES, "sst2", "stsb", "mrpc", "cola", "rte")
SEEDS = (0, 1, 2)
SHARE = 0.2
OTHERS: tuple[PlantKind, ...] = ("confusion", "burst", "duplicate", "empty", "language")
RIVALS = ("detector/loss", "detector/loss_mean", "detector/probe_frozen", "datainf/layers/vote@0.3")
FOLDS = 4

app = typer.Typer(add_completion=False, help=__doc__)
Glue = Annotated[Path | None, typer.Option(help="Folder of GLUE tasks; without it, the quotes alone.")]
Part = Annotated[str, typer.Option(help="Which share of the jobs: PART/PARTS.")]


@dataclass(frozen=True)
class Cell:
    """One audit: a task, the errors planted in it, and a seed that fixes rows, errors and training."""

    task: str
    kind: PlantKind
    share: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.task}-{self.kind}{self.share:g}-{self.seed}"

    @property
    def first(self) -> bool:
        """Whether its errors are those of every task, for which rivals are retrained and ceilings are found."""
        return (self.kind, self.share) == ("flip", SHARE)


def cells(glue_dir: Path | None) -> list[Cell]:
    """The audits whose rows are there, the most important first; further errors in tasks that are learned."""
    found = [Cell(task, "flip", SHARE, seed) for seed in SEEDS for task in TASKS]
    found.sort(key=lambda cell: cell.task not in LEARNED)
    further: tuple[tuple[PlantKind, float], ...] = (("flip", 0.1), ("likeliest", SHARE))
    found += [Cell(task, kind, share, seed) for seed in SEEDS for kind, share in further for task in LEARNED]
    return [cell for cell in found if has_rows(cell.task, glue_dir)]


def further_cells(glue_dir: Path | None) -> list[Cell]:
    """One audit each of more classes and of other kinds of error, on which nothing was tuned."""
    found = [Cell(task, "flip", SHARE, SEEDS[0]) for task in (FOUR, TEN)]
    found += [Cell(task, kind, SHARE, SEEDS[0]) for kind in OTHERS for task in (QUOTES, FOUR)]
    return [cell for cell in found if has_rows(cell.task, glue_dir)]


@app.command()
def find(glue_dir: Glue = None, output: Path = Path("runs/detection"), part: Part = "0/1") -> None:
    """Audit every task with every kind of error and seed."""
    console = PlainConsole(width=120)
    for cell in _mine(cells(glue_dir) + further_cells(glue_dir), part):
        if not RunDirectory(output / cell.name).summary.exists():
            console.print(cell.name)
            run(prepare(audit_of(cell, output, glue_dir)), Shown(console))


@app.command()
def act(glue_dir: Glue = None, output: Path = Path("runs/detection"), part: Part = "0/1") -> None:
    """Train on what is left after dropping or relabelling, and judge on test rows that no choice saw."""
    console = PlainConsole(width=120)
    for cell in _mine(cells(glue_dir), part):
        run_dir = RunDirectory(output / cell.name)
        if run_dir.summary.exists() and not (run_dir.path / "accuracy.json").exists():
            console.print(cell.name)
            job = with_alike_canaries(prepare(_quick(audit_of(cell, output, glue_dir))), run_dir, None)
            decision = decide(job, run_dir)
            sets: dict[str, Any] = dict(training_sets(job, decision))
            sets["with_canaries"] = lambda rows=job.rounds[0].train: rows
            if cell.first:
                sets |= _rivals(job, decision)
            write_json(run_dir.path / "accuracy.json", retrain(job, run_dir, sets, Shown(console)))


@app.command()
def ceiling(glue_dir: Glue = None, output: Path = Path("runs/detection"), part: Part = "0/1") -> None:
    """Fine-tune on the true labels of the other folds: the outputs on each row, by a model that no error misled."""
    console = PlainConsole(width=120)
    for cell in _mine([cell for cell in cells(glue_dir) if cell.first], part):
        file = output / "ceiling" / f"{cell.task}-{cell.seed}.safetensors"
        if not file.exists():
            console.print(f"ceiling of {cell.task}, seed {cell.seed}")
            config = audit_of(cell, output, glue_dir).model_copy(update={"plant": 0.0, "detector": "loss"})
            write_tensors(file, {"outputs": _out_of_fold(prepare(_quick(config)), file.with_suffix(""))})


@app.command()
def tables(output: Path = Path("runs/detection")) -> None:
    """Write detection.csv, accuracy.csv and tables.md of what is finished."""
    from detection_tables import write_tables

    write_tables(output, PlainConsole(width=160))


def audit_of(cell: Cell, output: Path, glue_dir: Path | None) -> AuditConfig:
    """The audit of a cell; its rows are written first."""
    rows = write_rows(cell.task, cell.seed, glue_dir, output / "rows" / f"{cell.task}-{cell.seed}")
    return AuditConfig(
        **RECIPE,
        model=str(packaged_model()),
        train=str(rows / "train.jsonl"),
        validation=str(rows / "validation.jsonl"),
        test=str(rows / "test.jsonl"),
        max_length=96 if cell.task in ("mrpc", "rte") else 64,
        plant=cell.share,
        plant_kind=cell.kind,
        seed=cell.seed,
        output=output / cell.name,
    )


def _quick(config: AuditConfig) -> AuditConfig:
    """What is only trained and judged is trained in mixed precision: a third of the time less on these CPUs."""
    return config.model_copy(update={"bf16": True})


def _rivals(job: Job, decision: Decision) -> dict[str, Any]:
    """What is left after dropping as many rows as auto does, by other scores."""
    train, share = job.encoded["train"], len(decision.dropped) / len(decision.table)
    lowest = {name: lowest_of(decision.table[name].to_numpy(), share) for name in RIVALS} if share else {}
    return {
        f"dropped_by_{name.replace('/', '-')}": lambda rows=rows: train.without(rows) for name, rows in lowest.items()
    }


def _out_of_fold(job: Job, folder: Path) -> torch.Tensor:
    train, config = job.encoded["train"], job.config
    fold = np.random.default_rng([config.seed, 6]).permutation(len(train)) % FOLDS
    outputs: list[tuple[Any, torch.Tensor]] = []
    for number in range(FOLDS):
        kept, judged = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        job.reset_weights()
        place = folder / str(number)
        finetune(
            job.subject, train.take(kept), job.encoded["query"], config, seed=number, folder=place, progress=Silent()
        )
        outputs.append((judged, predict(job.subject, train.take(judged), config.rows_a_pass).outputs))
    found = torch.empty(len(train), outputs[0][1].shape[1])
    for judged, values in outputs:
        found[torch.from_numpy(judged)] = values
    return found


def _mine(jobs: list[Cell], part: str) -> Iterator[Cell]:
    number, parts = map(int, part.split("/"))
    yield from jobs[number::parts]


if __name__ == "__main__":
    app()
