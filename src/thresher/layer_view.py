"""One training row looked at closely: at which layers it looks bad, and which queries it hurts and helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from thresher.config import Aggregation, AuditConfig
from thresher.data.examples import Examples, find_columns, read_examples
from thresher.errors import ConfigError, RunError
from thresher.influences.registry import INFLUENCE
from thresher.influences.tensor import TensorFile, described
from thresher.progress import Progress, Silent
from thresher.run import RunDirectory, open_finished, read_audited
from thresher.scores.aggregate import Floats
from thresher.scores.layers import layer_ranks
from thresher.scores.table import AGGREGATIONS, available, choose, query_influence, rows_to_drop, wanted


@dataclass(frozen=True)
class QueryInfluence:
    """What a row does to one query: ``influence`` is the mean over the score's modules, 1 = a typical size.

    Larger = helpful. ``correct`` says whether the model gets the query right.
    """

    query: int
    text: tuple[str, ...]
    label: str
    correct: bool
    influence: float


@dataclass(frozen=True)
class Explanation:
    """Where a row stands at every layer, and whom it hurts and helps.

    ``ranks`` has one line a layer (``WE``, ``0``, ``1``, ..., ``CL``) and one Int64 column a method: the row's rank
    among all ``rows`` when only that layer's modules are added up by ``aggregation`` (0 = most detrimental; ties share
    the lower rank; <NA> where there is none). ``rank`` is its rank by ``score``, the audit's own, and the audit drops
    ranks below ``drop``. ``label`` is what was trained on and ``given_label`` what the file says; they differ where an
    error was planted. ``probability`` is the model's for ``label``. ``hurts`` begins with the query hurt most,
    ``helps`` with the one helped most, both by the influence function and the modules of ``score``.
    """

    row: int
    text: tuple[str, ...]
    label: str
    given_label: str
    predicted: str
    probability: float
    score: str
    rank: int
    rows: int
    drop: int
    aggregation: str
    ranks: pd.DataFrame
    hurts: tuple[QueryInfluence, ...]
    helps: tuple[QueryInfluence, ...]

    @property
    def percentiles(self) -> pd.DataFrame:
        """``ranks`` as the share of rows below, in percent: 0 = most detrimental; float, NaN where there is none."""
        return self.ranks.astype("Float64").astype(float) * (100 / self.rows)


@dataclass(frozen=True)
class _Run:
    """What is read of a finished run."""

    config: AuditConfig
    scores: pd.DataFrame
    tensor: xr.Dataset
    examples: dict[str, Examples]
    class_names: Mapping[int, str]


def explain(
    run: str | Path,
    row: int,
    *,
    methods: Sequence[str] = (),
    aggregation: Aggregation | None = None,
    queries: int = 5,
) -> Explanation:
    """Where training row ``row`` (counted from 0) of a finished audit stands at every layer, and whom it hurts most.

    ``run`` is the run directory. ``methods`` are the influence functions to show (default: all of the run),
    ``aggregation`` how columns add up (default: as in the audit), ``queries`` how many queries to name at most.

    Raises :class:`ConfigError` for a row, method or aggregation that there is not, :class:`RunError` where the run is
    not finished or its rows have changed since.
    """
    return explain_rows(Path(run), [row], methods, aggregation, queries, Silent())[0]


def explain_rows(
    folder: Path,
    rows: Sequence[int],
    methods: Sequence[str],
    aggregation: str | None,
    queries: int,
    progress: Progress,
) -> list[Explanation]:
    """:func:`explain` for several rows of a run at once: the tensor is read once for all of them."""
    run = _open(folder)
    config, rows = run.config, list(dict.fromkeys(rows))
    methods = _methods(run, methods)
    how = _aggregation(aggregation or config.aggregation)
    _check(run, rows, queries)
    modules = described(run.tensor)
    chosen = choose(available(modules, config.methods, config.k), wanted(config))
    ranks = layer_ranks(run.tensor, modules, methods, rows, how, config.k, progress)
    influence = query_influence(run.tensor[chosen.influence], modules, chosen.group, rows)
    return [
        Explanation(
            **_about(run, row),
            score=chosen.name,
            rows=len(run.scores),
            drop=len(rows_to_drop(run.scores, config.drop)),
            aggregation=f"{how}@{config.k:g}" if how == "vote" else how,
            ranks=ranks[number],
            hurts=_queries(run, influence[:, number], _negative(influence[:, number], queries)),
            helps=_queries(run, influence[:, number], _negative(-influence[:, number], queries)),
        )
        for number, row in enumerate(rows)
    ]


def _open(folder: Path) -> _Run:
    place, config, scores, summary = open_finished(folder)
    file = TensorFile(place.tensor)
    if not file.path.is_dir():
        raise RunError(f"{file.path}: the influence tensor is gone, and the layers with it; audit the rows again.")
    names = {number: name for name, number in summary["classes"].items()}
    return _Run(config, scores, file.open(), _examples(place, config, summary["classes"]), names)


def _examples(place: RunDirectory, config: AuditConfig, classes: Mapping[str, int]) -> dict[str, Examples]:
    """Text and label of every row, as the files have them."""
    tables = {"train": read_audited(place, config, "train"), "query": read_audited(place, config, "query")}
    columns = find_columns(tables["train"], config.text_column, config.label_column)
    return {part: read_examples(table, columns, classes, trained_on="the audit") for part, table in tables.items()}


def _methods(run: _Run, asked: Sequence[str]) -> list[str]:
    there = [name for name in INFLUENCE if name in run.tensor]
    for name in asked:
        if name not in there:
            raise ConfigError(f"--method {name}: this run has {', '.join(there)}.")
    return list(dict.fromkeys(asked)) or there


def _aggregation(asked: str) -> Aggregation:
    for how in AGGREGATIONS:
        if how == asked:
            return how
    raise ConfigError(f"--aggregation {asked}: choose {', '.join(AGGREGATIONS)}.")


def _check(run: _Run, rows: Sequence[int], queries: int) -> None:
    last = len(run.scores) - 1
    for row in rows:
        if not 0 <= row <= last:
            raise ConfigError(f"--row {row}: {run.config.train} has rows 0 to {last}.")
    if queries < 0:
        raise ConfigError(f"--queries {queries}: write how many queries to name, 0 or more.")


def _about(run: _Run, row: int) -> dict[str, Any]:
    """Who the row is: what the file says, and what scores.parquet does."""
    examples = run.examples["train"]
    stored = run.scores.loc[row, ["label", "predicted", "probability", "rank"]].to_dict()
    given = run.class_names[int(examples.labels[row])]
    return {"row": row, "text": examples.texts[row], "given_label": given, **stored}


def _negative(values: Floats, count: int) -> list[int]:
    """Positions of the ``count`` lowest values, as far as they are below zero, lowest first."""
    return [int(i) for i in np.argsort(values, kind="stable")[:count] if values[i] < 0]


def _queries(run: _Run, influence: Floats, chosen: Sequence[int]) -> tuple[QueryInfluence, ...]:
    examples = run.examples["query"]
    correct = np.asarray(run.tensor["correct"].values, dtype=bool)
    return tuple(
        QueryInfluence(
            query=query,
            text=examples.texts[query],
            label=run.class_names[int(examples.labels[query])],
            correct=bool(correct[query]),
            influence=float(influence[query]),
        )
        for query in chosen
    )
