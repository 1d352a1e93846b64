"""What the canaries told, for summary.json; and the influence by which a ranking made of much else is explained."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from thresher.auditing.decide import Decision
from thresher.auditing.prepare import Job
from thresher.calibration import error_rate
from thresher.influences.registry import INFLUENCE
from thresher.scores.names import Configuration
from thresher.summary import ByChoice, Calibration, ErrorKind, ErrorPair, ErrorRate, Reliable, Share

BY_DEFAULT = Configuration("datainf", "layers", "vote", 0.3)


def calibration(job: Job, decision: Decision) -> Calibration | None:
    """The canaries, what they chose, and how sure that makes the ranking; None where a score was named."""
    choice, sure = decision.choice, decision.confidence
    if choice is None or sure is None:
        return None
    return Calibration(
        canaries=tuple(int(one.wrong.sum()) for one in job.rounds),
        canary_kind=job.canary_kind,
        learned=job.subject.kind == "lora",
        combined=choice.combined,
        members={family: tuple(one.name for one in names) for family, names in choice.stack.members.items()},
        weights=dict(choice.stack.weights),
        strength_of_prior=choice.stack.strength,
        best_single=choice.single.name,
        canaries_auroc=ByChoice.model_validate(choice.auroc),
        canaries_auroc_error=ByChoice.model_validate(choice.auroc_error),
        error_rate=_error_rate(sure.rate),
        kind=_kind(job, decision),
        text_problems=dict(Counter(filter(None, decision.table["text_problem"]))),
        more_likely_wrong=sure.more_likely_wrong,
        reliability=tuple(map(Reliable.model_validate, decision.reliability)),
    )


def _kind(job: Job, decision: Decision) -> ErrorKind | None:
    """Of what kind errors are, for rows with classes."""
    if decision.choice is None or len(job.subject.classes) < 2:
        return None
    names = {number: name for name, number in job.subject.classes.items()}
    pairs = tuple(
        ErrorPair.model_validate(asdict(pair) | {"label": names[pair.label], "likely": names[pair.likely]})
        for pair in decision.pairs
    )
    return ErrorKind(patterned=decision.choice.patterned, pairs=pairs)


def _error_rate(rate: error_rate.ErrorRate) -> ErrorRate:
    return ErrorRate(
        estimate=rate.share.estimate,
        low=rate.share.low,
        high=rate.share.high,
        canaries=Share.model_validate(rate.canaries),
        queries=None if rate.queries is None else Share.model_validate(rate.queries),
        plausible=rate.plausible,
        alike=rate.alike,
    )


def shown_influence(decision: Decision) -> Configuration | None:
    """The influence that says which queries a row hurts: the ranking's own, or the best that it is made of, but for
    those that are alike for every query.

    None after a first look, which computes no influence.
    """
    first = [one for one in decision.scores if one.name == decision.name]
    if decision.choice is not None:
        first += decision.choice.stack.members.get("influence", ())
    for one in (*first, BY_DEFAULT, *decision.scores):
        if isinstance(one, Configuration) and one in decision.scores and not INFLUENCE[one.influence].alike:
            return one
    return None
