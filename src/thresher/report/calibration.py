"""What the canaries told, for summary.json; and the influence by which a ranking made of much else is explained."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from thresher.calibrate.error_rate import ErrorRate
from thresher.decide import Decision
from thresher.prepare import Job
from thresher.scores.table import Configuration, is_score

BY_DEFAULT = Configuration("datainf", "layers", "vote", 0.3)


def calibration(job: Job, decision: Decision) -> dict[str, Any]:
    """``auto``: the canaries, what they chose, and how sure that makes the ranking; nothing where a score was named."""
    choice, sure = decision.choice, decision.confidence
    if choice is None or sure is None:
        return {}
    return {
        "auto": {
            "canaries": [int(one.wrong.sum()) for one in job.rounds],
            "canary_kind": job.canary_kind,
            "learned": job.subject.kind == "lora",
            "combined": choice.combined,
            "members": {family: list(names) for family, names in choice.stack.members.items()},
            "weights": dict(choice.stack.weights),
            "class_weights": {str(number): weight for number, weight in choice.stack.classes.items()},
            "strength_of_prior": choice.stack.strength,
            "best_single": choice.single,
            "canaries_auroc": choice.auroc,
            "canaries_auroc_error": choice.auroc_error,
            "error_rate": _error_rate(sure.rate),
            "evenness": decision.spread and decision.spread.evenness,
            "text_problems": dict(Counter(filter(None, decision.table["text_problem"]))),
            "more_likely_wrong": sure.more_likely_wrong,
        }
    }


def _error_rate(rate: ErrorRate) -> dict[str, Any]:
    ways = {"canaries": rate.canaries, "queries": rate.queries}
    by = {name: share and asdict(share) for name, share in ways.items()}
    return {**asdict(rate.share), **by, "plausible": rate.plausible, "alike": rate.alike}


def shown_influence(decision: Decision) -> Configuration | None:
    """The influence that says which queries a row hurts: the ranking's own, or the best that it is made of.

    None after a first look, which computes no influence.
    """
    names = [decision.name]
    if decision.choice is not None:
        names += decision.choice.stack.members.get("influence", ())
    names += [BY_DEFAULT.name, *filter(is_score, decision.table.columns)]
    there = set(decision.table.columns)
    parsed = (Configuration.parse(name) for name in names if name in there)
    return next((found for found in parsed if found is not None), None)
