"""The most suspicious rows of a report: what is given, what would be right, and why each is suspected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from thresher.decisions import Decision
from thresher.report.facts import Facts
from thresher.report.passages import Passage, passages_of
from thresher.report.titles import FAMILIES, VERDICT_TITLES
from thresher.summary import Query, SuspiciousRow
from thresher.tasks.base import Task
from thresher.tasks.registry import TASKS

EXCERPT = 220


@dataclass(frozen=True)
class ShownRow:
    """A row as the report shows it; ``why`` are sentences, ``queries`` clean rows that speak against it."""

    row: int
    rank: int
    said: str
    tags: tuple[str, ...]
    passages: tuple[Passage, ...]
    why: tuple[str, ...]
    queries: tuple[tuple[str, str], ...] = ()


def worst_rows(facts: Facts) -> list[ShownRow]:
    """The most suspicious rows, the worst first."""
    shown = facts.summary.suspicious
    places = facts.places([one.row for one in shown])
    return [
        _shown(facts, one, {family: float(found[number]) for family, found in places.items()})
        for number, one in enumerate(shown)
    ]


def spoiled_rows(facts: Facts) -> list[ShownRow]:
    """Some of the rows whose text is spoiled."""
    return [
        ShownRow(one.row, _rank(facts, one.row), f"text: {one.text_problem}", (), passages_of(one.about), ())
        for one in facts.summary.spoiled_texts
    ]


def _shown(facts: Facts, one: SuspiciousRow, places: Mapping[str, float]) -> ShownRow:
    task = TASKS[facts.summary.config.task]
    return ShownRow(
        one.row,
        _rank(facts, one.row),
        task.headline(one.about),
        tuple(_tags(one, facts.decided.get(one.row))),
        passages_of(one.about),
        tuple(_why(facts, one, places)),
        tuple(_queries(task, one)),
    )


def _rank(facts: Facts, row: int) -> int:
    return int(facts.scores.at[row, "rank"])


def _tags(one: SuspiciousRow, decision: Decision | None) -> Iterator[str]:
    if one.probability_wrong is not None:
        yield f"{one.probability_wrong:.0%} likely wrong"
    if one.suggested is not None:
        yield f"suggested: {one.suggested} ({one.suggestion_confidence or 0:.0%})"
    if one.planted is not None:
        yield "a planted error" if one.planted else "not a planted error"
    if decision is not None:
        who = f" by {decision.who}" * bool(decision.who)
        yield f"decided{who}: {VERDICT_TITLES.get(decision.verdict, decision.verdict)}" + (
            f" as {decision.label}" if decision.label else ""
        )


def _why(facts: Facts, one: SuspiciousRow, places: Mapping[str, float]) -> Iterator[str]:
    if one.contradicted:
        what = "clean row" if one.contradicted == "query" else "training row"
        yield f"A {what} with almost the same text says otherwise."
    by = next((found for found in facts.summary.annotators if found.name == one.annotator), None)
    if by is not None:
        yield f"{by.name}, who labelled it, is wrong in {by.estimate:.0%} ({by.low:.0%} to {by.high:.0%})."
    if places:
        order = sorted(places, key=lambda family: -places[family])
        worse = "; ".join(f"{FAMILIES.get(family, family)} {places[family]:.0%}" for family in order)
        yield f"Share of the rows that are less suspicious, by evidence: {worse}."


def _queries(task: type[Task], one: SuspiciousRow) -> Iterator[tuple[str, str]]:
    def told(query: Query) -> str:
        return f"{task.format_text(query.about, EXCERPT)}{task.tag(query.about)}"

    for query in one.contradicted_by:
        yield f"Contradicted by clean row {query.query}", told(query)
    for query in one.hurts:
        yield f"Hurts clean row {query.query}", told(query)
