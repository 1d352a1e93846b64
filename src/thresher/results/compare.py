"""Several finished audits with planted errors: which score is best, and which differ beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from thresher.auditing.run import read_finished
from thresher.errors import ConfigError, DataError, RunError, first_line
from thresher.evaluate.detection import ACCURACY, METRICS
from thresher.evaluate.ranking import Friedman, friedman, fronts, means, nemenyi, wilcoxon_holm, win_rate

TOP = 10
BOUNDS = ("chance", "oracle")
RUN = ("model", "task", "seed")
"""Columns of a table of outcomes that tell its runs apart."""
TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class Comparison:
    """Scores side by side, best mean first; larger ``metric`` = better.

    ``outcomes`` has one line a run and one column a score, chosen of the ``shared`` scores that all runs have.
    ``table`` has one line a score: ``mean`` and ``margin_95`` over runs, ``front`` and ``mean_rank`` (1 = best),
    ``win_rate``, and against the ``reference`` ``difference`` (negative = worse), ``p`` and ``p_holm`` (NaN for
    itself). ``pairs`` is Nemenyi's p, [score, score]; None where Friedman's test is not defined, or scikit-posthocs is
    missing.
    """

    metric: str
    outcomes: pd.DataFrame
    shared: int
    table: pd.DataFrame
    reference: str
    friedman: Friedman
    pairs: pd.DataFrame | None


def compare_runs(
    folders: Sequence[Path],
    metric: str = "ndr30",
    scores: Sequence[str] = (),
    top: int | None = None,
    reference: str | None = None,
) -> Comparison:
    """Compare the scores of the runs by ``metric``, a name of :data:`METRICS` or "accuracy" (after retraining).

    ``scores`` are the ones to compare (default: all that every run has), of which the ``top`` of largest mean (default:
    10, or all that were named) and the ``reference`` (default: the best) are kept; everything is computed among these.
    Raises :class:`ConfigError` for a name that there is not, or fewer than two scores, and what :func:`outcomes_of`
    raises.
    """
    return compare_outcomes(outcomes_of(folders, metric), metric, scores, top, reference)


def compare(
    tables: Sequence[pd.DataFrame], wrong: Sequence[npt.ArrayLike], metric: str = "ndr30", reference: str | None = None
) -> Comparison:
    """Which of several scores finds known errors best, and which differ by more than chance.

    Args:
        tables: Scores of the rows of several data sets, trainings or draws of errors: one line a row and one column a
            score, larger = helpful. Scores that are not in every table are left out.
        wrong: Which rows have a wrong label, one bool array a table.
        metric: "ndr30", "auc_ndr", "auroc", "average_precision" or "precision50".
        reference: The score that the others are tested against; by default the best.

    Returns:
        The scores side by side, best mean first.

    Raises:
        ConfigError: For a metric or reference that there is not, or fewer than two tables or scores.
        DataError: For arrays that do not fit one another.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> wrong = [rng.random(200) < 0.2 for _ in range(6)]
        >>> tables = [pd.DataFrame({"good": rng.normal(size=200) - w, "chance": rng.normal(size=200)}) for w in wrong]
        >>> compare(tables, wrong, "auroc").reference
        'good'
    """
    if metric not in METRICS:
        raise ConfigError(f"metric = {metric}: choose {', '.join(METRICS)}.")
    flags = [np.asarray(one, dtype=bool) for one in wrong]
    if len(tables) != len(flags) or any(len(one) != len(two) for one, two in zip(tables, flags, strict=False)):
        raise DataError("wrong: one bool array a table is needed, with an entry a row.")
    if len(tables) < 2:
        raise ConfigError("One table says nothing of chance; give two or more.")
    shared = [name for name in tables[0] if all(name in table for table in tables)]
    lines = [
        [METRICS[metric](table[name].to_numpy(), one) for name in shared]
        for table, one in zip(tables, flags, strict=True)
    ]
    outcomes = pd.DataFrame(lines, columns=[str(name) for name in shared])
    return compare_outcomes(outcomes, metric, reference=reference, top=max(len(shared), 2))


def compare_outcomes(
    outcomes: pd.DataFrame,
    metric: str,
    scores: Sequence[str] = (),
    top: int | None = None,
    reference: str | None = None,
) -> Comparison:
    """:func:`compare_runs` of what every score (column) reached in every run (line)."""
    for name in scores:
        _check(outcomes, "--score", name)
    if reference is not None:
        _check(outcomes, "--reference", reference)
    if top is not None and top < 2:
        raise ConfigError(f"--top {top}: write how many scores to compare, 2 or more.")
    order: list[str] = list(outcomes.mean().sort_values(ascending=False, kind="stable").index)
    named = [name for name in order if name in scores]
    best = (named or order)[: top or len(named) or TOP]
    chosen = [name for name in order if name in best or name == reference]
    if len(chosen) < 2:
        raise ConfigError(f"There is only {chosen[0]} to compare; name another --score, or runs that share more.")
    kept: Any = outcomes[chosen]
    return _compare(kept, metric, reference or chosen[0], len(order))


def outcomes_of(folders: Sequence[Path], metric: str) -> pd.DataFrame:
    """What every score reached in every run: one line a run, one column a score that all runs have, float.

    A folder is an audit, which is one run. A .csv or .parquet file is a table of the outcomes of several: one line a
    run and score, with the columns ``score`` and those of the metrics (NaN where nothing was measured), and what tells
    the runs apart in some of ``model``, ``task`` and ``seed``; a first line that begins with # is passed over.

    Raises :class:`ConfigError` for a metric that there is not, fewer than two runs, or one named twice;
    :class:`RunError` for a folder that is no finished audit with planted errors, or runs without a score in common;
    :class:`DataError` for a file that is no such table.
    """
    if metric not in (*METRICS, ACCURACY):
        raise ConfigError(f"--metric {metric}: choose {', '.join(METRICS)}, {ACCURACY}.")
    places = [folder.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise ConfigError(f"{folders[number]}: this run is named twice, and would count twice; name it once.")
    found: dict[str, dict[str, float]] = {}
    for folder in folders:
        table = folder.suffix.lower() in TABLES and not folder.is_dir()
        found |= _of_table(folder, metric) if table else {str(folder): _read_measures(folder, metric)}
    if len(found) < 2:
        raise ConfigError(
            "One run says nothing of chance; name two run directories or more, or a table of several runs."
        )
    first, *others = found.values()
    shared = [name for name in first if all(name in other for other in others)]
    if not shared:
        raise RunError("These runs have no score in common; audit them with the same --methods.")
    values = [[one[name] for name in shared] for one in found.values()]
    return pd.DataFrame(values, index=list(found), columns=shared)


def _read_measures(folder: Path, metric: str) -> dict[str, float]:
    _, _, _, summary = read_finished(folder)
    if metric == ACCURACY:
        if ACCURACY not in summary.measures:
            raise RunError(f"{folder}: this audit has no accuracy after retraining; use --retrain.")
        return {rows: one.value for rows, one in summary.measures[ACCURACY].items()}
    if not summary.detection:
        raise RunError(
            f"{folder}: no errors were planted in this audit, so nothing tells which score is right; use --plant."
        )
    return {one.score: getattr(one, metric) for one in summary.detection if one.score not in BOUNDS}


def _of_table(file: Path, metric: str) -> dict[str, dict[str, float]]:
    """Every run of a table of outcomes; lines without the metric say nothing of it."""
    table = _read_table(file)
    keys = [name for name in RUN if name in table]
    lacking = [name for name in ("score", metric) if name not in table] or ([] if keys else ["task"])
    if lacking:
        have = ", ".join(map(str, table.columns))
        raise DataError(f"{file}: there is no column '{lacking[0]}'; the table has: {have}.")
    values: Any = pd.to_numeric(table[metric], errors="coerce")
    wrong = np.flatnonzero(values.isna() & table[metric].notna())
    if len(wrong):
        raise DataError(f"{file}, row {wrong[0]}: {metric} is {table[metric].iloc[wrong[0]]!r:.40}, not a number.")
    table = table.assign(**{metric: values, "run": table[keys].agg("-".join, axis=1)})[values.notna()]
    if table.empty:
        raise RunError(f"{file}: no score of this table has a value of {metric}.")
    lines: list[tuple[str, str]] = list(zip(table["run"], table["score"], strict=True))
    if len(set(lines)) < len(lines):
        (run, score), _ = Counter(lines).most_common(1)[0]
        raise DataError(f"{file}: {score} of {run} is there more than once; keep one line of each.")
    runs: Any = table.groupby("run", sort=False)
    return {f"{file}: {run}": dict(zip(part["score"], part[metric], strict=True)) for run, part in runs}


def _read_table(file: Path) -> pd.DataFrame:
    """Names as texts, so that a task may be called 01 or NA; everything else as the file has it."""
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
        else:
            texts = dict.fromkeys((*RUN, "score"), str)
            options: Any = {"dtype": texts, "keep_default_na": False, "na_values": [""]}
            with file.open(encoding="utf-8") as stream:
                remarks = stream.readline().startswith("#")
            table = pd.read_csv(file, float_precision="round_trip", skiprows=int(remarks), **options)
    except (OSError, ValueError) as error:  # pyarrow's and pandas' own are among them
        raise DataError(f"{file}: cannot be read as a table of outcomes ({first_line(error)}).") from None
    for name in (*RUN, "score"):
        if name in table:
            table[name] = table[name].astype(str)
    return table


def _check(outcomes: pd.DataFrame, option: str, name: str) -> None:
    if name not in outcomes:
        near = get_close_matches(name, list(outcomes), 5, 0.4)
        hint = f"; there is {', '.join(near)}" if near else f", such as {outcomes.columns[0]}"
        raise ConfigError(f"{option} {name}: not among the {outcomes.shape[1]} scores that all these runs have{hint}.")


def _compare(outcomes: pd.DataFrame, metric: str, reference: str, shared: int) -> Comparison:
    tested = friedman(outcomes)
    table = means(outcomes).assign(front=fronts(outcomes), win_rate=win_rate(outcomes), mean_rank=tested.mean_ranks)
    pairs = None
    if tested.p is not None:
        with suppress(ConfigError):  # the report says what is missing
            pairs = nemenyi(outcomes)
    table = table.join(wilcoxon_holm(outcomes, reference))
    return Comparison(metric, outcomes, shared, table, reference, tested, pairs)
