"""Which layers and functions find the training rows of a query's own class: the tables of docs/generation.md.

    python benchmarks/retrieval.py --data FOLDER --output runs/retrieval

`FOLDER` holds a folder a task, each with train.jsonl and validation.jsonl: columns `prompt`, `text` (the prompt with
its answer, and `</s>`) and `variation`, the row's class. A causal LM is fine-tuned on rows of ten classes, and for a
query the rows of its own class should be the most influential ones (Kwon et al. 2024). With a query's influence summed
over the modules of a layer or a group of layers, and no other step between,

    AUC     probability that a row of the query's class has more influence on it than one of another class
    recall  share of that class among the k rows of most influence on it, k the rows of that class

both as means over the queries, and in expectation over the orders of tied rows. Chance is 0.5 and 1 / classes. The
words that two rows share, without any model, are measured in the same way. Each task is a run directory, and one that
is finished is not run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
import xarray as xr

import thresher
from thresher.auditing.pipeline import run
from thresher.auditing.prepare import prepare
from thresher.config import AuditConfig
from thresher.data.table import Record, Table, read_table, write_table
from thresher.errors import DataError
from thresher.evaluate.detection import auroc, detection_curve
from thresher.influences.registry import INFLUENCE
from thresher.influences.tensor import read_modules
from thresher.model.names import ModuleName, groups_in, in_group
from thresher.progress import Shown
from thresher.scores.layers import layer_name, layers_in
from thresher.terminal import PlainConsole

TASKS = ("grammars", "math_with_reason", "math_without_reason")
METHODS = ("tracin", "cosine", "datainf", "tracin_we", "repsim", "head_kernel")
COLUMNS = ("prompt", "completion", "variation")
END = "</s>"
BY_GROUP, BY_LAYER = "retrieval_groups.csv", "retrieval_layers.csv"


def main(
    data: Annotated[Path, typer.Option(help="Folder with a folder a task.")],
    output: Path = Path("runs/retrieval"),
    rows: Annotated[int, typer.Option(help="Training rows a task, as many of each class.")] = 50,
    queries: Annotated[int, typer.Option(help="Query rows a task, as many of each class.")] = 20,
    tasks: Annotated[str, typer.Option(help="Which tasks, with commas between.")] = ",".join(TASKS),
) -> None:
    """Audit every task, and show what each function found in each group of layers."""
    console = PlainConsole(width=120)
    found: list[pd.DataFrame] = []
    for task in tasks.split(","):
        folder = output / f"{task}-{rows}-{queries}"
        if not (folder / "summary.json").exists():
            console.print(task)
            run(prepare(_audit(data / task, folder, rows, queries)), Shown(console))
        found.append(_retrieved(task, folder))
        # Written after each task, so that what is done can be read.
        pd.concat(found).query("place == 'group'").to_csv(output / BY_GROUP, index=False)
        pd.concat(found).query("place == 'layer'").to_csv(output / BY_LAYER, index=False)
    for table in found:
        for line in markdown(table.query("place == 'group'")):
            console.print(line, soft_wrap=True)


def _audit(source: Path, folder: Path, rows: int, queries: int) -> AuditConfig:
    drawn: dict[str, str] = {}
    for side, count in (("train", rows), ("validation", queries)):
        target = folder / "data" / f"{side}.jsonl"
        write_table(_drawn(read_table(str(source / f"{side}.jsonl")), count), target)
        drawn[side] = str(target.absolute())
    return AuditConfig(
        train=drawn["train"],
        validation=drawn["validation"],
        model="packaged:smollm2",
        task="generate",
        methods=METHODS,
        detector="datainf/layers/vote",
        epochs=2,
        batch_size=4,
        learning_rate=3e-3,
        dtype="bfloat16",
        output=folder,
    )


def _drawn(table: Table, count: int) -> Table:
    """The first rows of every class, as many of each, as prompt and completion."""
    each, left_over = divmod(count, len({row["variation"] for row in table.records}))
    taken: Counter[str] = Counter()
    records: list[Record] = []
    for row in table.records:
        if taken[row["variation"]] < each:
            taken[row["variation"]] += 1
            answer = row["text"].removeprefix(row["prompt"]).removesuffix(END)
            records.append(dict(zip(COLUMNS, (row["prompt"], answer, row["variation"]), strict=True)))
    if left_over or len(records) < count:
        raise DataError(f"{table.source}: cannot give {count} rows, as many of each of its {len(taken)} classes.")
    return Table(table.source, records, COLUMNS)


def _retrieved(task: str, folder: Path) -> pd.DataFrame:
    """A line a function and group or layer: means and standard deviations over the queries."""
    query, train = (read_table(str(folder / "data" / f"{side}.jsonl")).records for side in ("validation", "train"))
    same = np.array([[row["variation"] == other["variation"] for other in train] for row in query])
    found = [("shared words", "group", "text", _shared_words(query, train))]
    for method, influence, modules in _read(thresher.open(folder).tensor):
        found += [(method, place, name, _summed(influence, chosen)) for place, name, chosen in _places(modules)]
    return pd.DataFrame(
        {"task": task, "method": method, "place": place, "name": name, **_measured(values, same)}
        for method, place, name, values in found
    )


def _shared_words(query: Sequence[Record], train: Sequence[Record]) -> npt.NDArray[np.float64]:
    """What texts alone tell: words that two rows share, over words that either has, [Q, N]."""
    words = [[set(f"{row['prompt']}{row['completion']}".split()) for row in rows] for rows in (query, train)]
    return np.array([[len(a & b) / len(a | b) for b in words[1]] for a in words[0]])


def _read(tensor: xr.Dataset) -> Iterator[tuple[str, xr.DataArray, dict[int, ModuleName]]]:
    """Every function with the modules that it has a value on, by number; each pooling of hidden states is one."""
    modules = read_modules(tensor)
    for method in METHODS:
        defined = {number: module for number, module in enumerate(modules) if INFLUENCE[method].defined_on(module)}
        poolings = [f" {pooling}" for pooling in ("last", "mean")] if method == "repsim" else [""]
        for pooling in poolings:
            chosen = {n: module for n, module in defined.items() if not pooling or module.factor == pooling.strip()}
            yield method + pooling, tensor[method], chosen


def _places(modules: dict[int, ModuleName]) -> Iterator[tuple[str, str, list[int]]]:
    for group in groups_in(list(modules.values())):
        yield "group", group, [number for number, module in modules.items() if in_group(module, group)]
    for layer in layers_in(list(modules.values())):
        yield "layer", layer, [number for number, module in modules.items() if layer_name(module) == layer]


def _summed(influence: xr.DataArray, modules: list[int]) -> npt.NDArray[np.float64]:
    """[Q, N]."""
    return np.asarray(influence[modules].values, dtype=np.float64).sum(axis=0)


def _measured(influence: npt.NDArray[np.float64], same: npt.NDArray[np.bool_]) -> dict[str, float]:
    # The metrics look for marked rows among the lowest scores, and here they should be among the highest.
    pairs = list(zip(-influence, same, strict=True))
    auc = [auroc(scores, marked) for scores, marked in pairs]
    recall = [detection_curve(scores, marked)[marked.sum() - 1] for scores, marked in pairs]
    return {
        "auc": float(np.mean(auc)),
        "auc_std": float(np.std(auc)),
        "recall": float(np.mean(recall)),
        "recall_std": float(np.std(recall)),
    }


def markdown(table: pd.DataFrame) -> list[str]:
    """A line a function, a column a group of layers; AUC / recall."""
    groups = [name for name in ("text", "WE", "1", "2", "3", "4", "layers", "CL") if name in set(table["name"])]
    lines = [f"| {table['task'].iloc[0]} | " + " | ".join(groups) + " |", "|---" * (1 + len(groups)) + "|"]
    for method, mine in table.groupby("method", sort=False):
        cells = mine.set_index("name")
        shown = [f"{cells['auc'][g]:.2f} / {cells['recall'][g]:.2f}" if g in cells.index else "" for g in groups]
        lines.append(f"| {method} | " + " | ".join(shown) + " |")
    return lines


if __name__ == "__main__":
    typer.run(main)
