"""One training row looked at closely: at which layers it looks bad, and which queries it hurts and helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from thresher.arrays import Flags, Floats
from thresher.auditing.drawn import read_planted
from thresher.auditing.influence import tensor_of_rows
from thresher.auditing.looks import rounds_as_given
from thresher.auditing.prepare import Job
from thresher.auditing.rounds import read_job
from thresher.auditing.run import RunDirectory, read_audited_rows, read_finished
from thresher.checksums import verified
from thresher.config import Aggregation, AuditConfig, TaskName
from thresher.data.parts import Part
from thresher.data.table import Table
from thresher.errors import ConfigError, RunError
from thresher.influences.registry import INFLUENCE
from thresher.influences.tensor import TensorFile, read_modules
from thresher.progress import Progress, Silent
from thresher.results.contradicted import SimilarQuery, told_by_queries
from thresher.scores.aggregate import AGGREGATIONS
from thresher.scores.layers import layer_ranks
from thresher.scores.names import Configuration
from thresher.scores.stored import scores_in
from thresher.scores.table import query_influence, said_of
from thresher.summary import Annotator, ErrorPair, Summary
from thresher.tasks.base import Task
from thresher.tasks.registry import TASKS
from thresher.terminal import PAGE, as_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class QueryInfluence:
    """What a row does to one query: ``influence`` is the mean over the score's modules, 1 = a typical size.

    Larger = helpful. ``correct`` says whether the model gets the query right; ``about`` is the query's row as in
    summary.json.
    """

    query: int
    about: Mapping[str, Any]
    correct: bool
    influence: float


@dataclass(frozen=True, repr=False)
class Explanation:
    """Where a row stands at every layer, and whom it hurts and helps.

    ``ranks`` has one line a layer (``WE``, ``0``, ``1``, ..., ``CL``) and one Int64 column a method: the row's rank
    among all ``rows`` when only that layer's modules are added up by ``aggregation`` (1 = most detrimental; ties share
    the lower rank; <NA> where there is none). ``rank`` is its rank by ``score``, the audit's own, and the audit drops
    ranks up to ``dropped``. ``about`` is the row as it was trained on, with what the model says, as in summary.json;
    ``given`` is the row as the file has it, which differs where an error was ``planted``. ``hurts`` begins with the
    query hurt most, ``helps`` with the one helped most, both by ``influence``: a function and its modules.

    Of rows with classes ``against`` of the ``near`` clean queries that are most like the row have another label, of
    which ``contradicted_by`` are the most alike; ``pair`` is the kind of error that it would be, which other rows of
    its label show: what the label stands for, and how often. ``annotator`` is who labelled it, and how often they are
    wrong. Both are None where nothing is known.
    """

    row: int
    task: TaskName
    about: Mapping[str, Any]
    given: Mapping[str, Any]
    planted: bool
    score: str
    influence: str
    rank: int
    rows: int
    dropped: int
    aggregation: str
    ranks: pd.DataFrame
    hurts: tuple[QueryInfluence, ...]
    helps: tuple[QueryInfluence, ...]
    pair: ErrorPair | None = None
    near: int = 0
    against: int = 0
    contradicted_by: tuple[SimilarQuery, ...] = ()
    annotator: Annotator | None = None

    @property
    def percentiles(self) -> pd.DataFrame:
        """``ranks`` as the share of rows below, in percent: 0 = most detrimental; float, NaN where there is none."""
        return (self.ranks.astype("Float64").astype(float) - 1) * (100 / self.rows)

    def plot(self) -> Figure:
        """The ranks over the layers, one line a method. Raises :class:`ConfigError` where matplotlib is missing."""
        from thresher.report.figures import check_matplotlib
        from thresher.report.layer_plot import layer_figure

        check_matplotlib("plot")
        return layer_figure([self])

    def __repr__(self) -> str:
        verdict = "dropped" if self.rank <= self.dropped else "kept"
        return f"Explanation(row {self.row}: rank {self.rank:,} of {self.rows:,} by {self.score}, {verdict})"

    def _repr_html_(self) -> str:
        from thresher.report.layers import explanation_lines

        return as_html(explanation_lines(self, PAGE))


@dataclass(frozen=True)
class _Run:
    """What is read of a finished run; ``shown`` is the influence that explains the ranking."""

    run_dir: RunDirectory
    config: AuditConfig
    summary: Summary
    scores: pd.DataFrame
    given: Task
    trained_on: Task
    shown: Configuration


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
    """:func:`explain` for several rows of a run at once.

    Of a round that kept its tensor this is read, once for all of them; else the model is asked for the rows and, for
    what they are compared with, the reference rows.
    """
    run = _open(folder)
    rows = list(dict.fromkeys(rows))
    methods = _methods(run, methods)
    how = _aggregation(aggregation or run.shown.aggregation)
    _check(run, rows, queries)
    found: dict[int, Explanation] = {}
    name = f"{how}@{run.config.k:g}" if AGGREGATIONS[how].votes else how
    job: Job | None = None
    for number, here in rounds_as_given(run.run_dir, rows).items():
        if here:
            file = TensorFile(run.run_dir.round(number).tensor)
            if file.path.is_dir():
                tensor, places = file.open(), here
            else:
                job = job or read_job(run.run_dir, run.config)
                tensor = tensor_of_rows(job, job.rounds[number], run.run_dir.round(number), here, progress)
                places = np.searchsorted(tensor["row"].values, here).tolist()
            among = len(pd.read_parquet(verified(run.run_dir.round(number).candidates), columns=["row"]))
            ranks = layer_ranks(tensor, methods, places, how, run.config.k, among=among, progress=progress)
            influence = query_influence(tensor[run.shown.influence], read_modules(tensor), run.shown.group, places)
            correct = np.asarray(tensor["correct"].values, dtype=bool)
            found |= _explain_round(run, here, ranks, influence, correct, name, queries)
    return [found[row] for row in rows]


def _explain_round(
    run: _Run,
    rows: Sequence[int],
    ranks: Sequence[pd.DataFrame],
    influence: Floats,
    correct: Flags,
    aggregation: str,
    queries: int,
) -> dict[int, Explanation]:
    shown = run.shown
    told = told_by_queries(run.run_dir, run.summary, run.scores, run.given, rows, queries)
    return {
        row: Explanation(
            **_about(run, row),
            **told[row],
            score=run.summary.score,
            influence=f"{shown.influence}/{shown.group}",
            rows=len(run.scores),
            dropped=run.summary.dropped_rows,
            aggregation=aggregation,
            ranks=ranks[number] + 1,
            hurts=_queries(run, influence[:, number], correct, _negative(influence[:, number], queries)),
            helps=_queries(run, influence[:, number], correct, _negative(-influence[:, number], queries)),
        )
        for number, row in enumerate(rows)
    }


def _open(folder: Path) -> _Run:
    run_dir, config, scores, summary = read_finished(folder)
    refuse_look(folder, config)
    given, trained_on = read_tasks(run_dir, config)
    there = [one for one in scores_in(run_dir.all_scores) if isinstance(one, Configuration)]
    shown = next(one for one in there if one.name == summary.shown_influence)
    return _Run(run_dir, config, summary, scores, given, trained_on, shown)


def read_tasks(run_dir: RunDirectory, config: AuditConfig) -> tuple[Task, Task]:
    """The rows of a run as its files have them, and as they were trained on.

    Raises :class:`RunError` where they have changed since.
    """
    parts: tuple[Literal["train", "query"], ...] = ("train", "query")
    tables: dict[Part, Table] = {part: read_audited_rows(run_dir, config, part) for part in parts}
    given = TASKS[config.task].read(tables, config)
    return given, given.with_rows(read_planted(run_dir))


def refuse_look(folder: Path, config: AuditConfig) -> None:
    """Raise :class:`RunError` where a run only took a first look, which computes no influence."""
    if config.quick:
        raise RunError(f"{folder}: a first look computes no influence; run the same command without --quick.")


def _methods(run: _Run, asked: Sequence[str]) -> list[str]:
    there = [name for name in INFLUENCE if name in run.config.methods]
    for name in asked:
        if name not in there:
            raise ConfigError(f"--method {name}: this run has {', '.join(there)}.")
    return list(dict.fromkeys(asked)) or there


def _aggregation(asked: str) -> Aggregation:
    if asked in AGGREGATIONS:
        return asked
    raise ConfigError(f"--aggregation {asked}: choose {', '.join(AGGREGATIONS)}.")


def _check(run: _Run, rows: Sequence[int], queries: int) -> None:
    last = len(run.scores) - 1
    for row in rows:
        if not 0 <= row <= last:
            raise ConfigError(f"--row {row}: {run.config.train} has rows 0 to {last}.")
    if queries < 0:
        raise ConfigError(f"--queries {queries}: write how many queries to name, 0 or more.")


def _about(run: _Run, row: int) -> dict[str, Any]:
    """Who the row is: as the file has it, as it was trained on, and what scores.parquet says of it."""
    stored = said_of(run.scores, row)
    kept = {name: value for name, value in stored.items() if name not in ("row", "score", "rank", "planted")}
    return {
        "row": row,
        "task": run.config.task,
        "about": run.trained_on.describe("train", row) | kept,
        "given": run.given.describe("train", row),
        "planted": bool(stored.get("planted", False)),
        "rank": stored["rank"],
    }


def _negative(values: Floats, count: int) -> list[int]:
    """Positions of the ``count`` lowest values, as far as they are below zero, lowest first."""
    return [int(i) for i in np.argsort(values, kind="stable")[:count] if values[i] < 0]


def _queries(run: _Run, influence: Floats, correct: Flags, chosen: Sequence[int]) -> tuple[QueryInfluence, ...]:
    return tuple(
        QueryInfluence(query, run.given.describe("query", query), bool(correct[query]), float(influence[query]))
        for query in chosen
    )
