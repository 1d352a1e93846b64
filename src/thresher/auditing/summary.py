"""summary.json: every number that is shown, with the configuration that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from thresher.arrays import Indices
from thresher.auditing.calibration import calibration, shown_influence
from thresher.auditing.decide import Decision
from thresher.auditing.doubts import doubt_of
from thresher.auditing.looks import as_given
from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.detectors.baselines import oracle
from thresher.evaluate.detection import measured
from thresher.evaluate.knowledge import Knowledge
from thresher.evaluate.likelihood import AnswerKnowledge
from thresher.files import read_json
from thresher.influences.tensor import SIGN, TensorFile
from thresher.model.finetune import History
from thresher.model.losses import correct_rows
from thresher.model.predict import read_predictions
from thresher.model.rate_search import read_search
from thresher.scores.table import hurt_queries, lowest, said_of
from thresher.tasks.registry import TASKS

SHOWN_ROWS, SHOWN_SPOILED, SHOWN_QUERIES = 10, 5, 2


@dataclass(frozen=True)
class Findings:
    """What the stages found: the decision, and, where they ran, the first training and the retraining."""

    decision: Decision
    history: History | None
    judged: dict[str, dict[str, float]] | None


def summarise(job: Job, place: RunDirectory, found: Findings) -> dict[str, Any]:
    """The content of summary.json: ``detection`` where errors were planted, the task's measures of any test rows."""
    outputs = read_predictions(place.predictions, "query").outputs
    correct = correct_rows(outputs, job.encoded["query"].labels, job.subject.model.config)
    decision = found.decision
    summary: dict[str, Any] = {
        "sign": SIGN,
        "rows": len(decision.table),
        "queries": len(correct),
        "queries_predicted_correctly": int(correct.sum()),
        **({} if job.config.quick else _sizes(job)),
        **({"classes": job.subject.classes} if job.subject.classes else {}),
        "notes": job.notes,
        **({"knowledge": _knowledge(job, decision.knowledge)} if decision.knowledge else {}),
        "score": decision.name,
        "drop": len(decision.dropped),
        **calibration(job, decision),
        **({"shown_influence": shown.name} if (shown := shown_influence(decision)) else {}),
        **_suspicious(job, place, decision),
    }
    if found.history is not None:
        summary["training"] = _training(job, place, found.history)
    if job.config.plant:
        summary["planted"] = int(job.planted.sum())
        summary["plant_kind"] = job.planted_kind
        summary["detection"] = _detection(decision, job.planted)
    if place.cancellation.exists():  # none where gradients are projected
        summary["cancellation"] = _cancellation(pd.read_parquet(place.cancellation))
    if found.judged is not None:
        summary["test_rows"] = len(job.encoded["test"])
        judged = found.judged
        if job.auto:
            judged = judged | {"with_canaries": read_json(place.judged)}
        for key in judged["all_rows"]:
            summary[key] = {trained_on: values[key] for trained_on, values in judged.items()}
    return summary | {"seconds": place.seconds, "config": job.config.model_dump(mode="json")}


def _sizes(job: Job) -> dict[str, int]:
    return {"modules": len(job.modules), "gradient_bytes": job.gradient_bytes, "tensor_bytes": job.tensor_bytes}


def _knowledge(job: Job, known: Knowledge | AnswerKnowledge) -> dict[str, Any]:
    return knowledge_entry(known, doubt_of(known, trained=not job.config.quick, chosen=job.auto))


def knowledge_entry(known: Knowledge | AnswerKnowledge, doubt: str | None) -> dict[str, Any]:
    """How well the model knows the task by the clean queries, with ``learned`` and, where it has not, the ``doubt``."""
    probe = {"only_probe_knows": known.only_probe_knows} if isinstance(known, Knowledge) else {}
    return {"learned": known.learned, **probe, "doubt": doubt, **asdict(known)}


def _training(job: Job, place: RunDirectory, history: History) -> dict[str, Any]:
    """Losses by epoch, the kept epoch, counted from 1, the learning rate, and how it was found."""
    search = read_search(place.search)
    return {
        "epochs": [asdict(epoch) for epoch in history.epochs],
        "chosen_epoch": history.chosen + 1,
        "learning_rate": job.config.peak_rate,
        **({"trials": [asdict(trial) for trial in search.trials]} if search else {}),
    }


def results(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that runs are compared by, named by their place in ``summary``.

    What the ranking score finds of planted errors, what the test rows say of each training set, the share of wrong
    labels with its interval, and seconds by stage: each where the run has it.
    """
    found = {entry["score"]: entry for entry in summary.get("detection", ())}
    rate = summary["auto"]["error_rate"] if "auto" in summary else {}
    groups: dict[str, Mapping[str, Any]] = {
        "detection": {name: value for name, value in found.get(summary["score"], {}).items() if name != "score"},
        **{one.key: summary.get(one.key, {}) for one in TASKS[summary["config"]["task"]].measures},
        "error_rate": {name: rate[name] for name in ("estimate", "low", "high") if name in rate},
        "seconds": summary["seconds"],
    }
    return {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}


def _cancellation(table: pd.DataFrame) -> list[dict[str, Any]]:
    """C of every layer group, with median, min and max over weights; None where not finite (JSON has no infinity)."""
    columns = ["name", "cancellation", "median", "min", "max", "weights", "untouched", "infinite"]
    groups = table.loc[table["kind"] == "group", columns].rename(columns={"name": "group"})
    return [
        {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in record.items()}
        for record in groups.to_dict("records")
    ]


def _detection(decision: Decision, planted: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """NDR@30, AUC-NDR, AUROC, average precision and precision at 50 of every score, of chance and of the oracle."""
    scores = {one.name: values for one, values in decision.scores.items()}
    if decision.choice is not None:
        scores = {"auto": decision.table["score"].to_numpy(), **scores}
    return [
        {"score": name, **measured(values, planted)}
        for name, values in (scores | {"chance": np.zeros(len(planted)), "oracle": oracle(planted)}).items()
    ]


def _suspicious(job: Job, place: RunDirectory, decision: Decision) -> dict[str, Any]:
    """``suspicious``, the most detrimental rows, and apart from them rows of ``spoiled_texts``, if any."""
    ranked = lowest(decision.table, 1.0)
    if "text_problem" not in decision.table:
        return {"suspicious": _described(job, place, decision, ranked[:SHOWN_ROWS])}
    problems = decision.table["text_problem"].to_numpy()
    fine = problems[ranked] == ""
    spoiled = [
        {"row": row, "text_problem": problems[row], **job.task.describe("train", row)}
        for row in ranked[~fine][:SHOWN_SPOILED].tolist()
    ]
    shown = _described(job, place, decision, ranked[fine][:SHOWN_ROWS])
    return {"suspicious": shown, **({"spoiled_texts": spoiled} if spoiled else {})}


def _described(job: Job, place: RunDirectory, decision: Decision, ranked: Indices) -> list[dict[str, Any]]:
    """Rows with their text, what the model says, and the queries they hurt most."""
    rows = ranked.tolist()
    shown = shown_influence(decision)
    hurt: dict[int, list[int]] = {}
    if shown is not None:
        for number, here in as_given(place, rows).items():
            influence = TensorFile(place.round(number).tensor).open()[shown.influence]
            found = hurt_queries(influence, job.modules, shown.group, here, SHOWN_QUERIES) if here else []
            hurt |= dict(zip(here, found, strict=True))
    return [
        {
            **{name: value for name, value in said_of(decision.table, row).items() if name != "rank"},
            **job.task.describe("train", row),
            "hurts": [{"query": query, **job.task.describe("query", query)} for query in hurt.get(row, ())],
        }
        for row in rows
    ]
