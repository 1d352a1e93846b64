"""One row as the reviewer sees it: its text, its label and what may take its place, and why it is suspected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from thresher.decisions import Decision
from thresher.report.detection import count_pair
from thresher.report.passages import Passage, passages_of
from thresher.report.titles import FAMILIES
from thresher.results.contradicted import SimilarQuery, told_by_queries
from thresher.results.decided import DecidedRun
from thresher.results.explain import Explanation
from thresher.scores.table import said_of
from thresher.tasks.base import Task

SHOWN = 3
"""Clean rows to show of each kind, and training rows."""


@dataclass(frozen=True)
class Choice:
    """A label to choose, with what the model says of it and the key that chooses it, if there is one."""

    label: str
    probability: float | None
    key: str = ""


@dataclass(frozen=True)
class Card:
    """``row`` of the run, as it was trained on; ``choices`` are its other classes, likeliest first."""

    row: int
    rank: int
    passages: tuple[Passage, ...]
    label: str | None
    suggested: str | None
    probability: float | None
    said: str
    choices: tuple[Choice, ...]
    decision: Decision | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Neighbour:
    """A training row whose text is like another's: ``likeness`` is the cosine of features, 1 = the same."""

    row: int
    text: str
    label: str | None
    likeness: float


@dataclass(frozen=True)
class Evidence:
    """What speaks ``against`` a row and for it, each a sentence; the clean rows like it that have another label, the
    training rows most like it, and its influence on the clean rows. ``missing`` says why there is none of it."""

    against: tuple[str, ...] = ()
    speaks_for: tuple[str, ...] = ()
    contradicted_by: tuple[SimilarQuery, ...] = ()
    alike: tuple[Neighbour, ...] = ()
    explanation: Explanation | None = None
    missing: str = ""


def card_of(
    run: DecidedRun, task: Task, scores: pd.DataFrame, row: int, decision: Decision | None, *, blind: bool
) -> Card:
    """The card of a row. ``blind`` leaves out what the audit thinks of it until there is a decision."""
    hidden = blind and decision is None
    said = said_of(scores, row)
    about = task.describe("train", row)
    label = about.get("label")
    likely = None if label is None else run.suggested(row)
    return Card(
        row=row,
        rank=int(said["rank"]),
        passages=passages_of(about),
        label=label,
        suggested=None if hidden else likely,
        probability=None if hidden else said.get("probability_wrong"),
        said="" if hidden else type(task).headline(about | said),
        choices=_choices(run, row, label, hidden=hidden),
        decision=decision,
        problems=() if hidden else _problems(said, decided=decision is not None),
    )


def _choices(run: DecidedRun, row: int, label: str | None, *, hidden: bool) -> tuple[Choice, ...]:
    if label is None:
        return ()
    said = None if hidden else run.predicted(row)
    names = [name for name in run.class_names if name != label]
    if said is not None:
        names.sort(key=lambda name: -said[name])
    keys = [str(number) for number in range(1, 10)]
    return tuple(
        Choice(name, None if said is None else said[name], keys[place] if place < len(keys) else "")
        for place, name in enumerate(names)
    )


def _problems(said: Mapping[str, Any], *, decided: bool) -> tuple[str, ...]:
    found: list[str] = []
    if said.get("text_problem"):
        found.append(f"text: {said['text_problem']}")
    if said.get("contradicted"):
        other = "a clean query" if said["contradicted"] == "query" else "a row"
        found.append(f"contradicted by {other} with nearly the same text")
    if decided and said.get("planted"):
        found.append("an error that the audit planted")
    return tuple(found)


def weigh(run: DecidedRun, given: Task, scores: pd.DataFrame, row: int, found: Explanation | None) -> Evidence:
    """The evidence about a row, in words; ``found`` is its influence on the clean rows, where it is known."""
    said = said_of(scores, row)
    told: Mapping[str, Any]  # an explanation has heard the clean rows already
    told = vars(found) if found else told_by_queries(run.run_dir, run.summary, scores, given, [row], SHOWN)[row]
    against: list[str] = []
    speaks_for: list[str] = []

    def add(sentence: str, *, bad: bool) -> None:
        (against if bad else speaks_for).append(sentence)

    if said.get("probability") is not None:
        add(f"the model finds its label {said['probability']:.0%} likely", bad=said["probability"] < 0.5)
    if told.get("near"):
        count, near = told["against"], told["near"]
        add(f"{count} of the {near} clean rows most like it have another label", bad=2 * count > near)
    pair, who = told.get("pair"), told.get("annotator")
    if pair is not None:
        add(count_pair(pair), bad=True)
    if who is not None:
        rate = f"{who.estimate:.0%} ({who.low:.0%} to {who.high:.0%})"
        add(f"{who.name}, who labelled it, is wrong in {rate}", bad=who.estimate > 0.5)
    for family, place in run.places(row).items():
        title = FAMILIES.get(family, family)
        better = (
            f"{title}: worse than {place:.0%} of the rows" if place >= 0.5 else f"{title}: better than {1 - place:.0%}"
        )
        add(better, bad=place >= 0.5)
    return Evidence(tuple(against), tuple(speaks_for), told.get("contradicted_by", ()), _alike(run, scores, row), found)


def _alike(run: DecidedRun, scores: pd.DataFrame, row: int) -> tuple[Neighbour, ...]:
    rows, likeness = run.nearest(row, SHOWN)
    labels = scores["label"].astype(str) if "label" in scores else None
    return tuple(
        Neighbour(one, str(scores.at[one, "text"]), None if labels is None else str(labels[one]), alike)
        for one, alike in zip(rows.tolist(), likeness.tolist(), strict=True)
    )
