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

from thresher.arrays import Floats, Indices
from thresher.auditing.beside import annotator_column, known_beside
from thresher.auditing.copies import copy_columns
from thresher.auditing.known import knowledge_of
from thresher.auditing.looks import read_candidates, rounds_as_given
from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.calibration.annotators import AnnotatorRate
from thresher.calibration.candidates import Candidates, side_by_side
from thresher.calibration.choice import Choice
from thresher.calibration.confidence import Confidence
from thresher.calibration.opinions import Opinions
from thresher.calibration.ranking import rank_rows
from thresher.calibration.reliability import Reliable
from thresher.calibration.repair import SURE, ErrorPair
from thresher.calibration.stack import of_frozen_features
from thresher.detectors.texts import text_problems
from thresher.evaluate.knowledge import Knowledge
from thresher.evaluate.likelihood import AnswerKnowledge
from thresher.files import atomic_write
from thresher.influences.tensor import SIGN
from thresher.model.predict import Predictions, read_predictions
from thresher.scores.names import ScoreName, resolve
from thresher.scores.stored import write_scores
from thresher.scores.table import lowest, rank_of
from thresher.tensors import read_tensors

DROP = 0.3
"""Share of the rows to drop where no canaries tell how many are wrong (method.md 6)."""


@dataclass(frozen=True)
class Decision:
    """``name`` is the score that ranks the rows, ``table`` what is in scores.parquet, ``scores`` [n] all there are.

    ``dropped`` are the rows to drop, most detrimental first; ``choice``, ``confidence``, its ``reliability``, ``pairs``
    of labels (of rows with classes) and rates of ``annotators`` those of ``--detector auto``.
    """

    name: str
    table: pd.DataFrame
    scores: Mapping[ScoreName, Floats]
    dropped: Indices
    choice: Choice | None = None
    confidence: Confidence | None = None
    pairs: tuple[ErrorPair, ...] = ()
    annotators: tuple[AnnotatorRate, ...] = ()
    knowledge: Knowledge | AnswerKnowledge | None = None
    reliability: tuple[Reliable, ...] = ()


def decide(job: Job, run_dir: RunDirectory) -> Decision:
    """Rank the rows, and write all_scores.parquet and scores.parquet: one line a training row, in the file's order."""
    rounds = [read_candidates(run_dir.round(one.number)) for one in job.rounds]
    said = job.task.prediction_columns(job.subject, job.encoded["train"], _predictions_as_given(job, run_dir))
    said |= copy_columns(job, run_dir) | annotator_column(job)
    known = knowledge_of(job, run_dir)
    if job.auto:
        return replace(_by_canaries(job, run_dir, side_by_side(rounds), said, known), knowledge=known)
    scores = rounds[0].scores
    one = resolve(job.config.detector, scores, job.config.k)
    table = _write_verdicts(job, run_dir, one.name, scores[one], said, scores)
    return Decision(one.name, table, scores, lowest(table, job.config.drop or DROP), knowledge=known)


def _by_canaries(
    job: Job,
    run_dir: RunDirectory,
    every: Candidates,
    said: Mapping[str, Any],
    known: Knowledge | AnswerKnowledge | None,
) -> Decision:
    opinions, candidates = _opinions(job, run_dir), every
    if opinions is not None and isinstance(known, Knowledge) and known.only_probe_knows:
        opinions, candidates = opinions.of_probe(), every.only(of_frozen_features)
    problems, labels = _text_problems(job), job.encoded["train"].classes.numpy()
    classes, beside = len(job.subject.classes), known_beside(job, run_dir)
    ranking = rank_rows(candidates, labels, classes, job.config.seed, problems != "", opinions, beside)
    sure, choice = ranking.confidence, ranking.choice
    found: dict[str, Any] = {"probability_wrong": sure.probability, "q_value": sure.q_value, "text_problem": problems}
    if ranking.suggested is not None and ranking.suggestion_confidence is not None:
        names = {number: name for name, number in job.subject.classes.items()}
        sure_enough = ranking.suggestion_confidence > SURE
        better = zip(ranking.suggested, sure_enough, strict=True)
        found["suggested"] = pa.array([names[int(one)] if sure else None for one, sure in better], pa.string())
        found["suggestion_confidence"] = ranking.suggestion_confidence
    scores = {one: every.merged(every.column(one)) for one in every.names}
    if not choice.combined:
        scores[choice.single] = -ranking.suspicion  # in the unit of the ranking that was judged
    table = _write_verdicts(job, run_dir, choice.name, -ranking.suspicion, {**said, **found}, scores)
    share = job.config.drop or sure.more_likely_wrong / len(table)
    return Decision(
        choice.name,
        table,
        scores,
        lowest(table, share),
        choice,
        sure,
        ranking.pairs,
        ranking.annotators,
        reliability=ranking.reliability,
    )


def _opinions(job: Job, run_dir: RunDirectory) -> Opinions | None:
    rounds = [read_tensors(run_dir.round(one.number).opinions)[0] for one in job.rounds]
    return Opinions.of([{name: tensor.numpy() for name, tensor in found.items()} for found in rounds])


def _text_problems(job: Job) -> npt.NDArray[np.object_]:
    if not job.config.check_texts:
        return np.full(len(job.encoded["train"]), "", dtype=object)
    return text_problems(job.task.texts("train"), job.task.texts("query"))


def _write_verdicts(
    job: Job,
    run_dir: RunDirectory,
    name: str,
    score: Floats,
    about: Mapping[str, Any],
    scores: Mapping[ScoreName, Floats],
) -> pd.DataFrame:
    columns: dict[str, Any] = {"row": np.arange(len(score)), "score": score, "rank": rank_of(score), **about}
    if job.config.plant:
        columns["planted"] = job.planted
    columns["text"] = [" | ".join(texts) for texts in job.task.texts("train")]
    write_scores(run_dir.all_scores, scores, {"row": columns["row"]})
    arrow = pa.table(columns).replace_schema_metadata({"sign": SIGN, "score": name})
    with atomic_write(run_dir.scores) as temporary:
        pq.write_table(arrow, temporary)
    return pd.read_parquet(run_dir.scores)


def _predictions_as_given(job: Job, run_dir: RunDirectory) -> Predictions:
    """What the model of the first round in which it was no canary says of each row."""
    first = read_predictions(run_dir.predictions, "train")
    count = len(job.encoded["train"])  # copies of rows come after them
    losses, outputs = first.losses[:count].clone(), first.outputs[:count].clone()
    for number, rows in rounds_as_given(run_dir, range(count)).items():
        found = read_predictions(run_dir.round(number).predictions, "train") if number else first
        losses[rows], outputs[rows] = found.losses[rows], found.outputs[rows]
    return Predictions(losses, outputs)
