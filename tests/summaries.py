"""A summary of an audit that was never made, and parts of summaries that the audits of a test have."""

from __future__ import annotations

from typing import Any

import thresher
from thresher.config import AuditConfig
from thresher.summary import Calibration, KnowledgeOfAnswers, KnowledgeOfClasses, Summary, Training

NDR30 = {"auc_ndr": 0.5, "auroc": 0.5, "average_precision": 0.5, "precision50": 0.5}
SHARE = {"estimate": 0.2, "low": 0.1, "high": 0.3}
AUTO: dict[str, Any] = {
    "canaries": [8, 8],
    "canary_kind": "alike",
    "learned": True,
    "combined": True,
    "members": {"probe": ["detector/probe_frozen"]},
    "weights": {"probe": 1.5},
    "strength_of_prior": 1.0,
    "best_single": "detector/loss",
    "canaries_auroc": {"single": 0.8, "combination": 0.9},
    "canaries_auroc_error": {"single": 0.02, "combination": 0.01},
    "error_rate": {**SHARE, "canaries": SHARE, "queries": SHARE, "plausible": True, "alike": 0.9},
    "kind": {"patterned": 0.1, "pairs": [{"label": "a", "likely": "b", "rows": 20, "alike": 5, "wrong": 4.2}]},
    "text_problems": {"empty": 1},
    "more_likely_wrong": 9,
}


def made_up(**changes: Any) -> Summary:
    """A summary with what is changed of it, as JSON or as parts."""
    query = {"query": 3, "text": ["a query"], "label": "b"}
    said = {"label": "a", "predicted": "b", "probability": 0.2, "loss": 1.6, "planted": True}
    given: dict[str, Any] = {
        "sign": thresher.SIGN,
        "rows": 48,
        "queries": 16,
        "queries_predicted_correctly": 12,
        "modules": 19,
        "classes": {"a": 0, "b": 1},
        "notes": {"classes": "a = 0, b = 1"},
        "score": "auto",
        "dropped_rows": 9,
        "auto": AUTO,
        "shown_influence": "datainf/layers/vote@0.3",
        "suspicious": [{"row": 5, "score": -1.5, **said, "text": ["one", "other"], "hurts": [query]}],
        "spoiled_texts": [{"row": 7, "text_problem": "empty", "text": ["-"], "label": "a"}],
        "planted": 10,
        "plant_kind": "flip",
        "detection": [{"score": name, "ndr30": 0.6, **NDR30} for name in ("auto", "detector/loss", "chance", "oracle")],
        "test_rows": 30,
        "measures": {"accuracy": {"all_rows": {"value": 0.8, "margin_95": 0.14}, "dropped": {"value": 0.9}}},
        "seconds": {"fine-tuning": 12.5},
        "config": AuditConfig(model="m", train="t.jsonl", validation="v.jsonl"),
    }
    return Summary.model_validate(given | changes)


def training(rate: float) -> Training:
    """A training at this learning rate."""
    return Training.model_validate({"epochs": [], "chosen_epoch": 1, "learning_rate": rate})


def told_by_canaries(result: thresher.AuditResult) -> Calibration:
    """What the canaries of an audit told."""
    assert result.summary.auto is not None
    return result.summary.auto


def known_of_classes(result: thresher.AuditResult) -> KnowledgeOfClasses:
    """What the classifier of an audit knows."""
    assert isinstance(result.summary.knowledge, KnowledgeOfClasses)
    return result.summary.knowledge


def known_of_answers(result: thresher.AuditResult) -> KnowledgeOfAnswers:
    """What the generator of an audit knows."""
    assert isinstance(result.summary.knowledge, KnowledgeOfAnswers)
    return result.summary.knowledge
