"""From every round's candidates to one score a row, how sure it is, and what to do with the row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from thresher.arrays import Flags, Floats, Indices
from thresher.auditing.known import knowledge_of
from thresher.auditing.looks import as_given
from thresher.auditing.prepare import Job
from thresher.auditing.run import OTHER_VERSION, RunDirectory
from thresher.calibrate.candidates import Candidates, side_by_side
from thresher.calibrate.choice import Choice, Pattern, choose
from thresher.calibrate.confidence import Confidence, confidence
from thresher.calibrate.error_rate import Known, Posterior, error_rate
from thresher.calibrate.repair import ErrorPair, error_pairs, suggest
from thresher.calibrate.stack import of_frozen_features
from thresher.detectors.label_noise import WHICH
from thresher.detectors.texts import text_problems
from thresher.errors import RunError
from thresher.evaluate.knowledge import Knowledge
from thresher.evaluate.likelihood import AnswerKnowledge
from thresher.files import written
from thresher.influences.tensor import SIGN
from thresher.model.predict import Predictions, read_predictions
from thresher.scores.table import is_score, lowest, resolve
from thresher.tensors import read_tensors

DROP = 0.3
"""Share of the rows to drop where no canaries tell how many are wrong (method.md 6)."""


@dataclass(frozen=True)
class Decision:
    """``name`` is the score that ranks the rows, ``table`` what is in scores.parquet.

    ``dropped`` are the rows to drop, most detrimental first; ``choice``, ``confidence`` and ``pairs`` of labels (of
    rows with classes) those of ``--detector auto``.
    """

    name: str
    table: pd.DataFrame
    dropped: Indices
    choice: Choice | None = None
    confidence: Confidence | None = None
    pairs: tuple[ErrorPair, ...] = ()
    knowledge: Knowledge | AnswerKnowledge | None = None


def decide(job: Job, place: RunDirectory) -> Decision:
    """Rank the rows, and write scores.parquet: one line a training row, in the order of the file."""
    tables = [pd.read_parquet(place.round(one.number).candidates) for one in job.rounds]
    said = job.task.said(job.subject, job.encoded["train"], _said(job, place))
    known = knowledge_of(job, place)
    if job.auto:
        return replace(_by_canaries(job, place, side_by_side(tables), said, known), knowledge=known)
    scores = {name: tables[0][name].to_numpy() for name in tables[0] if is_score(name)}
    name = resolve(job.config.detector, scores, job.config.k)
    table = _written(job, place, name, scores[name], said, scores)
    return Decision(name, table, lowest(table, job.config.drop or DROP), knowledge=known)


def _by_canaries(
    job: Job, place: RunDirectory, every: Candidates, said: Mapping[str, Any], known: Knowledge | AnswerKnowledge | None
) -> Decision:
    opinions, candidates = _Opinions.read(job, place), every
    if opinions is not None and isinstance(known, Knowledge) and known.only_probe_knows:
        opinions, candidates = opinions.of_probe(), every.only(of_frozen_features)
    choice = choose(candidates, job.config.seed, opinions and opinions.pattern)
    posterior = _posterior(job, candidates, choice, opinions)
    problems = _text_problems(job)
    spoiled = problems != ""
    suspicion = candidates.merged(choice.suspicion)
    suspicion[spoiled] += np.ptp(suspicion) + 1  # before all others, in their order
    pattern = opinions.merged_pattern(candidates) if opinions is not None and choice.combined else None
    sure = confidence(suspicion, posterior, spoiled, pattern)
    found = {"probability_wrong": sure.probability, "q_value": sure.q_value, "text_problem": problems}
    pairs: tuple[ErrorPair, ...] = ()
    if opinions is not None:
        merged, labels = opinions.merged(candidates), job.encoded["train"].classes.numpy()
        found |= _suggestions(job, merged, sure, spoiled)
        pairs = error_pairs(labels, merged, np.where(spoiled, 0.0, sure.probability))
    scores = {name: every.merged(every.column(name)) for name in every.names}
    if not choice.combined:
        scores[choice.single] = -suspicion  # in the unit of the ranking that was judged
    table = _written(job, place, choice.name, -suspicion, {**said, **found}, scores)
    share = job.config.drop or sure.more_likely_wrong / len(table)
    return Decision(choice.name, table, lowest(table, share), choice, sure, pairs)


def _text_problems(job: Job) -> npt.NDArray[np.object_]:
    if not job.config.check_texts:
        return np.full(len(job.encoded["train"]), "", dtype=object)
    return text_problems(job.task.texts("train"), job.task.texts("query"))


def _suggestions(job: Job, opinions: Floats, sure: Confidence, spoiled: Flags) -> dict[str, Any]:
    """Another label for every row, and how sure it is; no label mends a spoiled text."""
    suggested, confident = suggest(job.encoded["train"].classes.numpy(), opinions, sure.probability)
    names = {number: name for name, number in job.subject.classes.items()}
    return {
        "suggested": [names[int(number)] for number in suggested],
        "suggestion_confidence": np.where(spoiled, 0.0, confident),
    }


def _written(
    job: Job, place: RunDirectory, name: str, score: Floats, about: Mapping[str, Any], scores: Mapping[str, Floats]
) -> pd.DataFrame:
    order = np.argsort(score, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    columns: dict[str, Any] = {"row": np.arange(len(order)), "score": score, "rank": rank, **about}
    if job.config.plant:
        columns["planted"] = job.planted
    arrow = pa.table(columns | dict(scores)).replace_schema_metadata({"sign": SIGN, "score": name})
    with written(place.scores) as temporary:
        pq.write_table(arrow, temporary)
    return pd.read_parquet(place.scores)


def _said(job: Job, place: RunDirectory) -> Predictions:
    """What the model of the first round in which it was no canary says of each row."""
    first = read_predictions(place.predictions, "train")
    count = len(job.encoded["train"])  # copies of rows come after them
    losses, outputs = first.losses[:count].clone(), first.outputs[:count].clone()
    for number, rows in as_given(place, range(count)).items():
        found = read_predictions(place.round(number).predictions, "train") if number else first
        losses[rows], outputs[rows] = found.losses[rows], found.outputs[rows]
    return Predictions(losses, outputs)


@dataclass(frozen=True)
class _Opinions:
    """Probabilities of the classes of the rows given their labels, by those that judge the looks, each [M, C].

    ``known`` is what clean queries tell of the share of errors, with a number a look [M] where it is a row's, and
    ``pattern`` what they tell of its law.
    """

    judges: tuple[Floats, ...]
    pattern: Pattern | None = None
    known: Known | None = None

    @classmethod
    def read(cls, job: Job, place: RunDirectory) -> _Opinions | None:
        rounds = [read_tensors(place.round(one.number).opinions)[0] for one in job.rounds]
        if rounds[0] and "odds" not in rounds[0]:
            raise RunError(OTHER_VERSION.format(place.path))
        judges = tuple(
            np.concatenate([found[f"truth_{which}"].numpy() for found in rounds])
            for which in WHICH
            if f"truth_{which}" in rounds[0]
        )
        if not judges:
            return None
        odds = np.concatenate([found["odds"].numpy() for found in rounds])
        pattern = Pattern(odds, float(np.mean([found["patterned"].item() for found in rounds])))
        told = np.array([found["share"].numpy() for found in rounds if "share" in found])
        if not len(told):
            return cls(judges, pattern)
        density = np.concatenate([found["query_likeness"].numpy() for found in rounds])
        share, error = told.mean(axis=0).tolist()
        return cls(judges, pattern, Known(share, error, density))

    def of_probe(self) -> _Opinions:
        """What is said by frozen features alone: for a model that has learned less than a probe on them."""
        return replace(self, judges=self.judges[:1])

    def merged_pattern(self, candidates: Candidates) -> Pattern | None:
        """What the law says of each row as it was given."""
        return self.pattern and replace(self.pattern, odds=candidates.merged(self.pattern.odds))

    def merged(self, candidates: Candidates) -> Floats:
        """Their geometric mean over rounds and judges, [n, C]."""
        logs = np.mean([np.log(judge.clip(1e-9)) for judge in self.judges], axis=0)
        merged = np.exp(np.stack([candidates.merged(column) for column in logs.T], axis=1))
        return merged / merged.sum(axis=1, keepdims=True)


def _posterior(job: Job, candidates: Candidates, choice: Choice, opinions: _Opinions | None) -> Posterior:
    known = opinions and opinions.known
    if known is not None:
        known = replace(known, density=candidates.merged(known.density))
    return error_rate(choice.held_out, candidates.canary, known, len(job.subject.classes))
