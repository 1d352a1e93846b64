"""What contradicts a row: clean queries like it that have another label, and how often such labels are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from thresher.auditing.run import RunDirectory
from thresher.auditing.witnesses import Witnesses, find_witnesses
from thresher.scores.table import said_of
from thresher.summary import ErrorPair, Summary
from thresher.tasks.base import Task


@dataclass(frozen=True)
class SimilarQuery:
    """A clean query like the row that has another label: ``likeness`` is the cosine of features of a model that was not
    trained, 1 = the same; ``about`` is the query's row as in summary.json."""

    query: int
    about: Mapping[str, Any]
    likeness: float


def told_by_queries(
    run_dir: RunDirectory, summary: Summary, scores: pd.DataFrame, given: Task, rows: Sequence[int], count: int
) -> dict[int, dict[str, Any]]:
    """Of each row what an explanation says of it but for its ranks: at most ``count`` queries that contradict it, the
    kind of error that it would be by them, and who made it."""
    people = {one.name: one for one in summary.annotators}
    labelled = [str(said_of(scores, row).get("annotator")) for row in rows]
    found: dict[int, dict[str, Any]] = {
        row: {"annotator": people.get(who)} for row, who in zip(rows, labelled, strict=True)
    }
    if len(summary.classes) < 2:
        return found
    labels = [str(scores.at[row, "label"]) for row in rows]
    of_queries = [str(given.describe("query", query)["label"]) for query in range(summary.queries)]
    for row, label, one in zip(rows, labels, find_witnesses(run_dir, rows, labels, of_queries), strict=True):
        others = Counter(of_queries[query] for query in one.queries)
        suggested = said_of(scores, row).get("suggested")
        likely = suggested or next(iter(others.most_common(1)), ("", 0))[0]
        found[row] |= {
            "pair": _pair(summary, label, likely),
            "near": one.near,
            "against": len(one.queries),
            "contradicted_by": _similar(given, one, count),
        }
    return found


def _similar(given: Task, found: Witnesses, count: int) -> tuple[SimilarQuery, ...]:
    shown = list(zip(found.queries, found.likeness, strict=True))[:count]
    return tuple(SimilarQuery(query, given.describe("query", query), alike) for query, alike in shown)


def _pair(summary: Summary, label: str, likely: str) -> ErrorPair | None:
    if summary.auto is None or summary.auto.kind is None:
        return None
    return next((one for one in summary.auto.kind.pairs if (one.label, one.likely) == (label, likely)), None)
