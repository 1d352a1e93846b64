"""summary.json: every number that is shown, with the configuration that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from thresher.evaluate.detection import auroc, average_precision, noise_detection_auc, noise_detection_rate
from thresher.influences.tensor import SIGN, TensorFile
from thresher.model.finetune import History
from thresher.model.losses import correct_rows
from thresher.model.predict import read_predictions
from thresher.prepare import Job
from thresher.run import RunDirectory
from thresher.scores.aggregate import Floats
from thresher.scores.table import Configuration, hurt_queries, rows_to_drop

SHOWN_ROWS, SHOWN_QUERIES = 10, 2


@dataclass(frozen=True)
class Findings:
    """What the stages found: every score, the chosen one, scores.parquet, and, where they ran, (re)training."""

    scores: Mapping[Configuration, Floats]
    chosen: Configuration
    table: pd.DataFrame
    history: History | None
    judged: dict[str, dict[str, float]] | None


def summarise(job: Job, place: RunDirectory, found: Findings) -> dict[str, Any]:
    """The content of summary.json: ``detection`` where errors were planted, the task's measures of any test rows."""
    outputs = read_predictions(place.predictions, "query").outputs
    correct = correct_rows(outputs, job.encoded["query"].labels, job.subject.model.config)
    summary: dict[str, Any] = {
        "sign": SIGN,
        "rows": len(found.table),
        "queries": len(correct),
        "queries_predicted_correctly": int(correct.sum()),
        "modules": len(job.modules),
        "gradient_bytes": job.gradient_bytes,
        "tensor_bytes": job.tensor_bytes,
        **({"classes": job.subject.classes} if job.subject.classes else {}),
        "notes": job.notes,
        "score": found.chosen.name,
        "drop": len(rows_to_drop(found.table, job.config.drop)),
        "suspicious": _suspicious(job, place, found),
    }
    if found.history is not None:
        losses = [{"train_loss": e.train_loss, "query_loss": e.query_loss} for e in found.history.epochs]
        summary["training"] = {"epochs": losses, "chosen_epoch": found.history.chosen + 1}
    if job.config.plant:
        summary["planted"] = int(job.planted.sum())
        summary["detection"] = _detection(found.scores, job.planted)
    if place.cancellation.exists():  # none where gradients are projected
        summary["cancellation"] = _cancellation(pd.read_parquet(place.cancellation))
    if found.judged is not None:
        summary["test_rows"] = len(job.encoded["test"])
        for key in found.judged["all_rows"]:
            summary[key] = {trained_on: values[key] for trained_on, values in found.judged.items()}
    return summary | {"seconds": place.seconds, "config": job.config.model_dump(mode="json")}


def _cancellation(table: pd.DataFrame) -> list[dict[str, Any]]:
    """C of every layer group, with median, min and max over weights; None where not finite (JSON has no infinity)."""
    columns = ["name", "cancellation", "median", "min", "max", "weights", "untouched", "infinite"]
    groups = table.loc[table["kind"] == "group", columns].rename(columns={"name": "group"})
    return [
        {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in record.items()}
        for record in groups.to_dict("records")
    ]


def _detection(scores: Mapping[Configuration, Floats], planted: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """NDR@30, AUC-NDR, AUROC and average precision of every configuration, and of chance (all rows tied)."""
    rows: list[tuple[dict[str, Any], Floats]] = [
        ({"influence": c.influence, "group": c.group, "aggregation": c.aggregation, "k": c.k}, values)
        for c, values in scores.items()
    ]
    rows.append(({"influence": "random", "group": None, "aggregation": None, "k": None}, np.zeros(len(planted))))
    return [
        about
        | {
            "ndr30": noise_detection_rate(values, planted),
            "auc_ndr": noise_detection_auc(values, planted),
            "auroc": auroc(values, planted),
            "average_precision": average_precision(values, planted),
        }
        for about, values in rows
    ]


def _suspicious(job: Job, place: RunDirectory, found: Findings) -> list[dict[str, Any]]:
    """The most detrimental rows with their text, what the model says, and the queries they hurt most."""
    lowest = [int(row) for row in rows_to_drop(found.table, 1.0)[:SHOWN_ROWS]]
    influence = TensorFile(place.tensor).open()[found.chosen.influence]
    hurt = hurt_queries(influence, job.modules, found.chosen.group, lowest, SHOWN_QUERIES)
    said = [name for name in found.table.columns if "|" not in name and name != "rank"]
    records = found.table.loc[lowest, said].to_dict("records")
    return [
        {
            **record,
            **job.task.describe("train", row),
            "hurts": [{"query": query, **job.task.describe("query", query)} for query in hurt_of_row],
        }
        for row, record, hurt_of_row in zip(lowest, records, hurt, strict=True)
    ]
