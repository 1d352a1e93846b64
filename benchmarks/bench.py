"""What the influence pass costs beside a plain training step, and beside a loop over rows.

On the demo's model and texts, in one process, the three in turn: a plain training step (forward and backward of the
same batches, LoRA and head as in the demo, no dropout), the influence pass with all five methods (gradients of every
module of both sides, products, DataInf), and plain autograd a row at a time. Medians over rounds, as rows a second and
as ratios to the plain step; also written to build/bench.json. Run it with `make bench`.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.table import Table

from thresher.auditing.prepare import Job, prepare
from thresher.config import DemoConfig
from thresher.data.encode import EncodedRows, length_batches
from thresher.demo import demo_audit
from thresher.gradients.rowwise import plain_gradients
from thresher.influences.driver import Work, drive
from thresher.influences.registry import check_methods
from thresher.model.losses import batch_losses
from thresher.progress import Silent
from thresher.terminal import PlainConsole

METHODS = ("tracin", "cosine", "datainf", "tracin_we", "tracin_we_topk")


def plain_step(job: Job, data: list[EncodedRows]) -> None:
    """Forward and backward of every batch; the gradients of LoRA and head are left in place of an optimizer's step."""
    subject = job.subject
    subject.model.train()
    for rows in data:
        for chosen in length_batches(rows.lengths, job.config.rows_a_pass):
            batch = rows.batch(chosen, subject.pad_id, subject.device)
            losses, _ = batch_losses(subject.model, batch)
            losses.mean().backward()
            subject.model.zero_grad()


class Nowhere:
    """A sink that keeps nothing."""

    def open(self, correct: Any, parts: Any) -> None:
        """Begin."""

    def add(self, part: Any, number: int, values: Any) -> None:
        """Take the influences."""

    def close(self, part: Any) -> dict[str, Any]:
        """Give nothing."""
        return {}


def influence_pass(job: Job, data: dict[str, EncodedRows]) -> None:
    """Everything between encoded rows and the tensor, all five methods."""
    model, every = job.subject.model, np.arange(len(data["train"]))
    work = Work(model, job.kept, data["query"], data["train"], check_methods(METHODS), every, job.config.rows_a_pass)
    drive(work, Nowhere(), Silent()).close()


def row_by_row(job: Job, rows: EncodedRows) -> None:
    """Gradients of LoRA and head by autograd, a row at a time; neither the word embedding's nor any product."""
    subject = job.subject
    subject.model.eval()
    parameters = {m.name: dict(subject.model.named_parameters())[m.name] for m in job.modules if m.group != "WE"}
    for row in range(len(rows)):
        plain_gradients(subject.model, parameters, rows.batch(np.array([row]), subject.pad_id, subject.device), {})


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(rounds: int = 5, rows: int = 1200, queries: int = 200, output: Path = Path("build/bench.json")) -> None:
    """Measure and show."""
    with tempfile.TemporaryDirectory() as folder:
        config = demo_audit(DemoConfig(output=Path(folder), rows=rows, queries=queries))
        job = prepare(config.model_copy(update={"batch_size": 32}))
    data: dict[str, EncodedRows] = {"query": job.encoded["query"], "train": job.encoded["train"]}
    few = data["train"].take(np.arange(0, rows, 12))
    works: dict[str, tuple[int, Callable[[], None]]] = {
        "plain": (rows + queries, lambda: plain_step(job, list(data.values()))),
        "influence": (rows + queries, lambda: influence_pass(job, data)),
        "row_by_row": (len(few), lambda: row_by_row(job, few)),
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for round_number in range(rounds + 1):
        for name, (count, work) in works.items():
            rate = count / seconds(work)
            if round_number:  # the first is slower
                found[name].append(rate)
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    ratios = {name: statistics.median(np.array(found["plain"]) / np.array(found[name])) for name in found}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(medians | {"time_ratio": ratios, "rounds": rounds, "batch_size": 32}, indent=2) + "\n")
    table = Table("what", "rows a second", "time a row / plain step", title=f"Medians of {rounds} rounds, batch of 32")
    titles = {
        "plain": "plain training step",
        "influence": "influence pass, five methods",
        "row_by_row": "row-by-row gradients of LoRA and head",
    }
    for name, title in titles.items():
        table.add_row(title, f"{medians[name]:.1f}", f"{ratios[name]:.2f}")
    PlainConsole().print(table)


if __name__ == "__main__":
    typer.run(main)
