"""What every influence function costs and what it finds: the tables of docs/methods.md.

    python benchmarks/methods.py cost
    python benchmarks/methods.py detect --glue-dir FOLDER --output runs/methods

`cost` times, in one process and in turn, a plain training step, the gathering of gradients, and every function on what
was gathered, on the demo's model and texts; medians of rounds, as ratios to the plain step. `detect` audits the demo's
critic quotes and two GLUE tasks (folders of train.jsonl and validation.jsonl with official columns) with 20 % planted
errors and three seeds; each audit is a run directory, and one that is finished is not run again.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

import thresher
from bench import plain_step, seconds
from thresher.auditing.pipeline import run
from thresher.auditing.prepare import Job, prepare
from thresher.config import AuditConfig, DemoConfig
from thresher.data.encode import EncodedRows
from thresher.data.table import Table, read_table, write_table
from thresher.demo import demo_audit
from thresher.evaluate.detection import auroc, noise_detection_rate
from thresher.gradients.collect import Rows, batch_rows, collect, plan_blocks
from thresher.gradients.gradient_pass import gradient_pass
from thresher.gradients.store import GradientStore
from thresher.influences.driver import module_matrices
from thresher.influences.modules import MEMORY, GradientPlan, plan_gradients, select_modules
from thresher.influences.pairings import pairing
from thresher.influences.registry import INFLUENCE, InfluenceFunction
from thresher.progress import Shown, Silent
from thresher.scores.names import Configuration, ScoreName
from thresher.scores.stored import read_scores
from thresher.terminal import PlainConsole

TASKS = ("quotes", "sst2", "mrpc")
SEEDS = (0, 1, 2)
app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def cost(rounds: int = 5, rows: int = 1200, queries: int = 200, output: Path = Path("build/cost.json")) -> None:
    """Time every function beside a plain training step, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        config = demo_audit(DemoConfig(output=Path(folder), rows=rows, queries=queries))
        job = prepare(config.model_copy(update={"batch_size": 32}))
    found: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        taken = _one_round(job)
        if number:  # the first is slower
            for name, value in taken.items():
                found.setdefault(name, []).append(value / taken["plain step"])
    ratios = {name: statistics.median(values) for name, values in found.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"ratios": ratios, "rounds": rounds}, indent=2) + "\n")
    console = PlainConsole(width=120)
    for name, ratio in ratios.items():
        console.print(f"| {name} | {ratio:.3f} |")


def _one_round(job: Job) -> dict[str, float]:
    model = job.subject.model
    data: dict[str, EncodedRows] = {"query": job.encoded["query"], "train": job.encoded["train"]}
    taken = {"plain step": seconds(lambda: plain_step(job, list(data.values())))}
    length = float(data["train"].lengths.mean())
    for name, methods in {
        "gradients of LoRA, head and word embedding": ("tracin",),
        "hidden states (repsim)": ("repsim",),
        "head's input (head_kernel)": ("head_kernel",),
    }.items():
        plan = plan_gradients(model, select_modules(model, None, methods), length=length)
        sizes = batch_rows(job.config.rows_a_pass, plan.row_bytes), plan.row_bytes
        stores = {side: GradientStore(plan_blocks(rows.lengths, *sizes), MEMORY) for side, rows in data.items()}
        taken[name] = seconds(lambda plan=plan, stores=stores, size=sizes[0]: _gather(model, plan, data, stores, size))
        for method, function in INFLUENCE.items():
            if function.compute and any(function.defined_on(module) for module in plan.modules):
                taken[f"+ {method}"] = seconds(
                    lambda one={method: function}, plan=plan, stores=stores: _meet(plan, stores, one)
                )
        for store in stores.values():
            store.close()
    return taken


def _gather(
    model: Any, plan: GradientPlan, data: dict[str, EncodedRows], stores: dict[str, GradientStore], size: int
) -> None:
    with gradient_pass(model, plan.names, *data.values(), forms=plan.forms) as one_pass:
        for side, store in stores.items():
            collect(one_pass, store, Rows(data[side], side), size, Silent())


def _meet(plan: GradientPlan, stores: dict[str, GradientStore], functions: dict[str, InfluenceFunction]) -> None:
    for module in plan.modules:
        module_matrices(pairing(stores["query"], stores["train"], module.name, module.size), module, functions)


@app.command()
def detect(
    glue_dir: Annotated[Path | None, typer.Option(help="Folder of GLUE tasks; without it, the quotes alone.")] = None,
    output: Path = Path("runs/methods"),
    rows: int = 1200,
) -> None:
    """Audit every task with every seed, and show what each function found."""
    console = PlainConsole(width=120)
    for task in TASKS if glue_dir else TASKS[:1]:
        for seed in SEEDS:
            folder = output / f"{task}-{seed}"
            if not (folder / "summary.json").exists():
                console.print(f"{task}, seed {seed}")
                run(prepare(_audit(task, seed, rows, folder, glue_dir)), Shown(console))
    table = _table(output)
    table.to_csv(output / "detection.csv", index=False)
    for line in markdown(table):
        console.print(line, soft_wrap=True)


def _audit(task: str, seed: int, rows: int, folder: Path, glue_dir: Path | None) -> AuditConfig:
    place = folder if task == "quotes" else folder.parent / "recipe"
    config = demo_audit(DemoConfig(output=place, rows=rows, seed=seed))
    changes: dict[str, Any] = {
        "methods": tuple(INFLUENCE),
        "retrain": False,
        "output": folder,
        "detector": "datainf/layers/vote",
    }
    if task != "quotes":
        assert glue_dir is not None
        changes |= {"text_column": (), "max_length": 96, **_glue_rows(glue_dir / task, folder, rows, seed)}
    return config.model_copy(update=changes)


def _glue_rows(source: Path, folder: Path, rows: int, seed: int) -> dict[str, str | None]:
    """Training rows and 200 queries drawn by the seed; the queries are official validation rows."""
    drawn: dict[str, str | None] = {"test": None}
    for side, file, count in (("train", "train.jsonl", rows), ("validation", "validation.jsonl", 200)):
        table = read_table(str(source / file))
        chosen: Table = table.take(np.random.default_rng(seed).permutation(len(table))[:count].tolist())
        target = folder / "data" / f"{side}.jsonl"
        write_table(chosen, target)
        drawn[side] = str(target.absolute())
    return drawn


def _table(output: Path) -> pd.DataFrame:
    lines: list[dict[str, Any]] = []
    for folder in sorted(path.parent for path in output.glob("*/summary.json")):
        task, seed = folder.name.rsplit("-", 1)
        planted = thresher.open(folder).scores["planted"].to_numpy()
        for one, values in read_scores(thresher.RunDirectory(folder).all_scores).items():
            method, group, aggregation = _parts(one)
            found = {"ndr30": noise_detection_rate(values, planted), "auroc": auroc(values, planted)}
            about = {"task": task, "seed": int(seed), "method": method, "group": group, "aggregation": aggregation}
            lines.append(about | found)
    return pd.DataFrame(lines)


def _parts(one: ScoreName) -> tuple[str, str, str]:
    """Function, group and aggregation with its k; a detector's name alone."""
    return (one.influence, one.group, one.how) if isinstance(one, Configuration) else (one.detector, "", "")


def markdown(table: pd.DataFrame) -> list[str]:
    """A line a function and aggregation over its widest group of layers: NDR@30 and AUROC, mean over the seeds."""
    tasks = [task for task in TASKS if task in set(table["task"])]
    titles = [f"{task} NDR@30 | {task} AUROC" for task in tasks]
    lines = ["| function | modules | aggregation | " + " | ".join(titles) + " |"]
    lines.append("|---" * (3 + 2 * len(tasks)) + "|")
    for method in ["loss", *INFLUENCE]:
        mine = table[table["method"] == method]
        group = next((g for g in ("layers", "WE", "CL", "") if g in set(mine["group"])), "")
        for aggregation in dict.fromkeys(mine["aggregation"]):
            rows = mine.query(f"group == '{group}' and aggregation == '{aggregation}'")
            cells = [_cell(rows.query(f"task == '{task}'")) for task in tasks]
            lines.append(f"| {method} | {group or '-'} | {aggregation or '-'} | " + " | ".join(cells) + " |")
    return lines


def _cell(rows: pd.DataFrame) -> str:
    return " | ".join(f"{rows[m].mean():.3f} ± {rows[m].std():.3f}" for m in ("ndr30", "auroc"))


if __name__ == "__main__":
    app()
