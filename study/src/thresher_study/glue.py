"""The eight GLUE tasks of method.md 6, all binary, and the rows that an experiment draws from them.

Wang et al. 2019, GLUE; official columns and labels, as on the hub in ``nyu-mll/glue``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thresher.arrays import Indices, Labels
from thresher.data.table import Record, Table, endings, read_table
from thresher.errors import DataError

HUB = "nyu-mll/glue"
LABEL, INDEX = "label", "idx"


def _two_classes(label: float) -> int:
    if label not in (0, 1):
        raise ValueError
    return int(label)


def _no_contradiction(label: float) -> int | None:
    return None if label == 2 else _two_classes(label)


def _similar(label: float) -> int:
    if not 0 <= label <= 5:
        raise ValueError
    return int(label >= 3)


@dataclass(frozen=True)
class GlueTask:
    """The official columns of the texts, the split that clean rows are drawn from, and how a label becomes binary.

    ``binary`` takes an official label and gives 0 or 1, or None where the row is left out; it raises ``ValueError`` for
    what is no official label.
    """

    text: tuple[str, ...]
    validation: str = "validation"
    binary: Callable[[float], int | None] = _two_classes


GLUE: Mapping[str, GlueTask] = {
    "qnli": GlueTask(("question", "sentence")),
    "mrpc": GlueTask(("sentence1", "sentence2")),
    "sst2": GlueTask(("sentence",)),
    "qqp": GlueTask(("question1", "question2")),
    "cola": GlueTask(("sentence",)),
    "mnli": GlueTask(("premise", "hypothesis"), "validation_matched", _no_contradiction),
    "rte": GlueTask(("sentence1", "sentence2")),
    "stsb": GlueTask(("sentence1", "sentence2"), binary=_similar),
}
"""mnli: entailment 0, neutral 1, contradiction (2) left out; stsb: a similarity below 3 is 0, from 3 on 1."""


@dataclass(frozen=True)
class GlueRows:
    """Rows of a task; columns are those of its texts, the binary ``label`` and the official ``idx``."""

    train: Table
    query: Table
    test: Table


def glue_rows(task: str, source: str | Path | None, train_rows: int, clean_rows: int, seed: int) -> GlueRows:
    """Draw at most ``train_rows`` training rows, and at most ``clean_rows`` of validation shared by query and test.

    ``source`` is a folder of TASK/train and TASK/validation files (.jsonl, .csv or .parquet; validation_matched for
    mnli), or None for the hub. All parts are stratified by the binary label, in the order of the file. The seed fixes
    them; how many training rows are drawn does not change query and test. Rows with an empty text are left out, for
    nobody could mend them. Raises :class:`DataError` for an unknown task, a missing file or column, and a row without
    an official label.
    """
    if task not in GLUE:
        raise DataError(f"GLUE: there is no task '{task}' here; there is {', '.join(GLUE)}.")
    if train_rows < 2 or clean_rows < 2:
        raise DataError(f"GLUE, {task}: {train_rows} training and {clean_rows} clean rows; ask for two each or more.")
    train, clean = (_binary(task, _read(task, split, source)) for split in ("train", GLUE[task].validation))
    train = train.take(stratified(_labels(train), train_rows, np.random.default_rng([seed, 0])))
    rng = np.random.default_rng([seed, 1])
    clean = clean.take(stratified(_labels(clean), clean_rows, rng))
    query = stratified(_labels(clean), len(clean) // 2, rng)
    return GlueRows(train, clean.take(query), clean.take(np.setdiff1d(np.arange(len(clean)), query)))


def stratified(labels: Labels, count: int, rng: np.random.Generator) -> Indices:
    """``count`` rows, or all where there are fewer, sorted: of each class its share of ``labels`` [n], within a row.

    What is over after rounding down goes to the classes with the largest remainder.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    count = min(count, len(labels))
    takes, remainders = np.divmod(sizes * count, len(labels))
    takes[np.argsort(-remainders, kind="stable")[: count - takes.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:take] for c, take in zip(classes, takes, strict=True)]
    return np.sort(np.concatenate(chosen))


def _labels(table: Table) -> Labels:
    return np.array([record[LABEL] for record in table.records])


def _read(task: str, split: str, source: str | Path | None) -> Table:
    if source is None:
        return read_table(f"{HUB}:{task}:{split}")
    files = [Path(source) / task / f"{split}{ending}" for ending in endings()]
    there = [file for file in files if file.is_file()]
    if not there:
        raise DataError(f"{files[0]}: there is no such file, nor one in {', '.join(endings()[1:])}; put {task} there.")
    return read_table(str(there[0]))


def _binary(task: str, table: Table) -> Table:
    """The rows that have a binary label, with the official columns alone."""
    columns = (*GLUE[task].text, LABEL, INDEX)
    for column in columns:
        if column not in table.columns:
            have = ", ".join(table.columns)
            raise DataError(f"{table.source}: there is no column '{column}', which {task} has; the file has: {have}.")
    found: dict[int, Record] = {}
    for row, record in enumerate(table.records):
        binary = _label(task, table, row)
        if binary is not None and all(_text(table, row, column).strip() for column in GLUE[task].text):
            found[row] = {column: record.get(column) for column in columns} | {LABEL: binary}
    if len(found) < 2:
        raise DataError(f"{table.source}: {len(found)} rows of {task} can be used; give the official file.")
    lines = tuple(table.lines[row] for row in found) if table.lines else ()
    return Table(table.source, list(found.values()), columns, lines)


def _text(table: Table, row: int, column: str) -> str:
    value: Any = table.records[row].get(column)
    if not isinstance(value, str):
        raise DataError(
            f"{table.where(row)}: column '{column}' holds {value!r:.40}, not a text; give the official file."
        )
    return value


def _label(task: str, table: Table, row: int) -> int | None:
    value: Any = table.records[row].get(LABEL)
    try:
        label = float(value)
        if label == -1:
            raise DataError(f"{table.where(row)}: the row has no label (-1); name files of rows that are labelled.")
        return GLUE[task].binary(label)
    except (TypeError, ValueError):
        raise DataError(f"{table.where(row)}: {value!r:.40} is no label of {task}; give the official file.") from None
