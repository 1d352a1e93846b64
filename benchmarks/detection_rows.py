"""The rows that ``detection.py`` audits: of every task the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from thresher_study.glue import GLUE

from thresher.data.formats import Record
from thresher.data.packaged import critic_quotes
from thresher.data.table import Table, read_table, write_table

ROWS, QUERIES, TEST_ROWS = 1000, 200, 600
QUOTES, FOUR, TEN = "quotes", "stsb4", "grammars"
"""Of a package; similarities in four classes; ten ways to transform a sentence."""
LEARNED = (QUOTES, "sst2", "stsb")
"""Tasks that the model learns."""


def has_rows(task: str, folder: Path | None) -> bool:
    """Whether the task's rows are in the folder of tasks, or in a package."""
    return task == QUOTES or (folder is not None and (folder / _folder(task) / "train.jsonl").exists())


def write_rows(task: str, seed: int, source: Path | None, to: Path) -> Path:
    """Write train.jsonl, validation.jsonl (queries) and test.jsonl into ``to``, unless they are there."""
    if not (to / "test.jsonl").exists():
        for name, table in _drawn(task, seed, source).items():
            write_table(table, to / f"{name}.jsonl")
    return to


def _drawn(task: str, seed: int, source: Path | None) -> dict[str, Table]:
    """Training rows drawn by the seed; official validation rows shared between queries and test."""
    if task == QUOTES:
        quotes = critic_quotes(ROWS, QUERIES, TEST_ROWS, seed)
        columns = {"train": quotes.train, "validation": quotes.validation, "test": quotes.test}
        return {name: Table(table.source, table.records, ("text", "label")) for name, table in columns.items()}
    assert source is not None
    rng = np.random.default_rng(seed)
    train, clean = (_labelled(task, source / _folder(task) / f"{part}.jsonl") for part in ("train", "validation"))
    chosen, order = rng.permutation(len(train)), rng.permutation(len(clean))
    queries = min(QUERIES, len(clean) // 2)  # rte has few
    drawn = {"train": train.take(chosen[:ROWS].tolist()), "validation": clean.take(order[:queries].tolist())}
    return drawn | {"test": clean.take(order[queries : queries + TEST_ROWS].tolist())}


def _folder(task: str) -> str:
    return "stsb" if task == FOUR else task


def _labelled(task: str, file: Path) -> Table:
    """The task's rows with classes; the words of a transformed sentence are the text of ``grammars``."""
    table = read_table(str(file))
    if task not in LABELLED:
        return table
    records = [LABELLED[task](record) for record in table.records]
    return Table(table.source, records, tuple(records[0]))


LABELLED: Mapping[str, Callable[[Record], Record]] = {
    "stsb": lambda record: {**record, "label": GLUE["stsb"].binary(record["label"])},
    FOUR: lambda record: {**record, "label": min(int(0.8 * record["label"]), 3)},
    TEN: lambda record: {"text": record["answer"], "label": record["variation"]},
}
