"""What the stages of an audit found, gathered for summary.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from thresher.arrays import Indices
from thresher.auditing.beside import summarise_annotators
from thresher.auditing.calibration import calibration, shown_influence
from thresher.auditing.copies import summarise_copies
from thresher.auditing.decide import Decision
from thresher.auditing.doubts import doubt_of
from thresher.auditing.looks import rounds_as_given
from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.auditing.witnesses import find_witnesses
from thresher.checksums import verified
from thresher.detectors.baselines import oracle
from thresher.evaluate.detection import measure_detection
from thresher.evaluate.knowledge import Knowledge
from thresher.evaluate.likelihood import AnswerKnowledge
from thresher.files import read_json
from thresher.influences.tensor import SIGN, TensorFile
from thresher.model.finetune import History
from thresher.model.losses import correct_rows
from thresher.model.predict import read_predictions
from thresher.model.rate_search import read_trials
from thresher.scores.names import Configuration
from thresher.scores.sinks import read_queries
from thresher.scores.table import hurt_queries, lowest, said_of
from thresher.summary import (
    Detected,
    Epoch,
    GroupCancellation,
    KnowledgeOfAnswers,
    KnowledgeOfClasses,
    Measured,
    SpoiledText,
    Summary,
    SuspiciousRow,
    Training,
    Trial,
)

SHOWN_ROWS, SHOWN_SPOILED, SHOWN_QUERIES, SHOWN_WITNESSES = 10, 5, 2, 1


@dataclass(frozen=True)
class Findings:
    """What the stages found: the decision, and, where they ran, the first training and the retraining."""

    decision: Decision
    history: History | None
    judged: dict[str, dict[str, float]] | None


def summarise(job: Job, run_dir: RunDirectory, found: Findings) -> Summary:
    """What the stages found, as summary.json has it."""
    outputs = read_predictions(run_dir.predictions, "query").outputs
    correct = correct_rows(outputs, job.encoded["query"].labels, job.subject.model.config)
    decision, looked, plants = found.decision, job.config.quick, bool(job.config.plant)
    shown = shown_influence(decision)
    suspicious, spoiled = _suspicious(job, run_dir, decision)
    return Summary(
        sign=SIGN,
        rows=len(decision.table),
        queries=len(correct),
        queries_predicted_correctly=int(correct.sum()),
        modules=None if looked else len(job.modules),
        gradient_bytes=None if looked else job.gradient_bytes,
        tensor_bytes=None if looked else job.tensor_bytes,
        classes=job.subject.classes,
        notes=job.notes,
        knowledge=_knowledge(job, decision.knowledge) if decision.knowledge else None,
        score=decision.name,
        dropped_rows=len(decision.dropped),
        auto=calibration(job, decision),
        annotators=summarise_annotators(job, decision.annotators),
        shown_influence=shown and shown.name,
        suspicious=suspicious,
        spoiled_texts=spoiled,
        copies=summarise_copies(job, run_dir, decision.table["rank"].to_numpy()),
        training=_training(job, run_dir, found.history) if found.history else None,
        planted=int(job.planted.sum()) if plants else None,
        plant_kind=job.planted_kind if plants else None,
        detection=_detection(decision, job.planted) if plants else (),
        cancellation=_cancellation(run_dir.cancellation),
        test_rows=len(job.encoded["test"]) if found.judged else None,
        measures=_measures(job, run_dir, found.judged) if found.judged else {},
        seconds=run_dir.seconds,
        config=job.config,
    )


def _knowledge(job: Job, known: Knowledge | AnswerKnowledge) -> KnowledgeOfClasses | KnowledgeOfAnswers:
    return knowledge_entry(known, doubt_of(known, trained=not job.config.quick, chosen=job.auto))


def knowledge_entry(known: Knowledge | AnswerKnowledge, doubt: str | None) -> KnowledgeOfClasses | KnowledgeOfAnswers:
    """How well the model knows the task by the clean queries, with ``learned`` and, where it has not, the ``doubt``."""
    more = {"learned": known.learned, "doubt": doubt, **asdict(known)}
    if isinstance(known, Knowledge):
        return KnowledgeOfClasses.model_validate(more | {"only_probe_knows": known.only_probe_knows})
    return KnowledgeOfAnswers.model_validate(more)


def _training(job: Job, run_dir: RunDirectory, history: History) -> Training:
    """Losses by epoch, the kept epoch, counted from 1, the learning rate, and how it was found."""
    return Training(
        epochs=tuple(map(Epoch.model_validate, history.epochs)),
        chosen_epoch=history.chosen + 1,
        learning_rate=job.config.peak_rate,
        trials=tuple(map(Trial.model_validate, read_trials(run_dir.search))),
    )


def _measures(
    job: Job, run_dir: RunDirectory, judged: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, Measured]]:
    """Each measure of the task, of every training set; of an audit with canaries also of the first round's training."""
    if job.auto:
        judged = {**judged, "with_canaries": read_json(run_dir.judged)}
    return {
        one.key: {
            trained_on: Measured(value=values[one.key], margin_95=values.get(f"{one.key}_margin_95"))
            for trained_on, values in judged.items()
        }
        for one in job.task.measures
    }


def results(found: Summary) -> dict[str, float]:
    """The numbers that runs are compared by, named by their place in the summary.

    What the ranking score finds of planted errors, what the test rows say of each training set, the share of wrong
    labels with its interval, and seconds by stage: each where the run has it.
    """
    ranking = [one.model_dump(exclude={"score"}) for one in found.detection if one.score == found.score]
    groups: dict[str, Mapping[str, float]] = {
        "detection": ranking[0] if ranking else {},
        **{name: {rows: one.value for rows, one in values.items()} for name, values in found.measures.items()},
        "error_rate": found.auto.error_rate.model_dump(include={"estimate", "low", "high"}) if found.auto else {},
        "seconds": found.seconds,
    }
    return {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}


def _cancellation(file: Path) -> tuple[GroupCancellation, ...]:
    """C of every layer group, with median, min and max over weights; none where gradients are projected."""
    if not file.exists():
        return ()
    table: Any = pd.read_parquet(verified(file))
    groups = table[table["kind"] == "group"].rename(columns={"name": "group"})
    names = list(GroupCancellation.model_fields)
    return tuple(
        GroupCancellation.model_validate(
            # JSON has no infinity
            {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in one.items()}
        )
        for one in groups[names].to_dict("records")
    )


def _detection(decision: Decision, planted: npt.NDArray[np.bool_]) -> tuple[Detected, ...]:
    """NDR@30, AUC-NDR, AUROC, average precision and precision at 50 of every score, of chance and of the oracle."""
    scores = {one.name: values for one, values in decision.scores.items()}
    if decision.choice is not None:
        scores = {"auto": decision.table["score"].to_numpy(), **scores}
    return tuple(
        Detected(score=name, **measure_detection(values, planted))
        for name, values in (scores | {"chance": np.zeros(len(planted)), "oracle": oracle(planted)}).items()
    )


def _suspicious(
    job: Job, run_dir: RunDirectory, decision: Decision
) -> tuple[tuple[SuspiciousRow, ...], tuple[SpoiledText, ...]]:
    """The most detrimental rows, and apart from them those whose text is spoiled, if any."""
    ranked = lowest(decision.table, 1.0)
    if "text_problem" not in decision.table:
        return _describe_rows(job, run_dir, decision, ranked[:SHOWN_ROWS]), ()
    problems: npt.NDArray[np.object_] = decision.table["text_problem"].to_numpy()
    fine = problems[ranked] == ""
    spoiled = tuple(
        SpoiledText(row=row, text_problem=str(problems[row]), **job.task.describe("train", row))
        for row in ranked[~fine][:SHOWN_SPOILED].tolist()
    )
    return _describe_rows(job, run_dir, decision, ranked[fine][:SHOWN_ROWS]), spoiled


def _contradicting(
    job: Job, run_dir: RunDirectory, decision: Decision, rows: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Of each row the queries most like it that have another label; none where rows have no classes."""
    if len(job.subject.classes) < 2:
        return dict.fromkeys(rows, ())
    names = {number: name for name, number in job.subject.classes.items()}
    queries = [names[number] for number in job.encoded["query"].classes.tolist()]
    labels: list[str] = decision.table["label"].iloc[list(rows)].tolist()
    found = find_witnesses(run_dir, rows, labels, queries)
    return {row: one.queries[:SHOWN_WITNESSES] for row, one in zip(rows, found, strict=True)}


def _describe_rows(job: Job, run_dir: RunDirectory, decision: Decision, ranked: Indices) -> tuple[SuspiciousRow, ...]:
    """Rows with their text, what the model says, and the queries they hurt most."""
    rows = ranked.tolist()
    shown = shown_influence(decision)
    hurt: dict[int, list[int]] = {}
    if shown is not None:
        for number, here in rounds_as_given(run_dir, rows).items():
            hurt |= dict(zip(here, _hurt(job, run_dir.round(number), shown, here), strict=True)) if here else {}
    against = _contradicting(job, run_dir, decision, rows)
    return tuple(
        SuspiciousRow.model_validate(
            {
                **{name: value for name, value in said_of(decision.table, row).items() if name != "rank"},
                **job.task.describe("train", row),
                "hurts": [{"query": query, **job.task.describe("query", query)} for query in hurt.get(row, ())],
                "contradicted_by": [{"query": query, **job.task.describe("query", query)} for query in against[row]],
            }
        )
        for row in rows
    )


def _hurt(job: Job, run_dir: RunDirectory, shown: Configuration, rows: Sequence[int]) -> list[list[int]]:
    """The queries that rows hurt most, of what the round kept; none where it kept nothing."""
    if job.keeps == "tensor":
        influence = TensorFile(run_dir.tensor).open()[shown.influence]
        return hurt_queries(influence, job.modules, shown.group, rows, SHOWN_QUERIES)
    if job.keeps == "top":
        return [queries[:SHOWN_QUERIES] for queries in read_queries(run_dir.queries, shown, rows)]
    return [[] for _ in rows]
