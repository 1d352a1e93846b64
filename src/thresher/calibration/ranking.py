"""From candidates and their canaries to a ranking: what ranks the rows, how sure it is, a better label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from thresher.arrays import Flags, Floats, Indices
from thresher.calibration.annotators import AnnotatorRate
from thresher.calibration.beside import Beside, inform
from thresher.calibration.candidates import Candidates
from thresher.calibration.choice import Choice, choose
from thresher.calibration.confidence import Confidence, confidence
from thresher.calibration.error_rate import error_rate
from thresher.calibration.opinions import Opinions
from thresher.calibration.reliability import Reliable, reliability
from thresher.calibration.repair import ErrorPair, error_pairs, suggest


@dataclass(frozen=True)
class Ranking:
    """Of n rows as they were given.

    Attributes:
        suspicion: Larger = more suspicious, [n].
        choice: What ranks them.
        confidence: How likely each is wrong, and what share of them is.
        suggested: The likeliest class other than the label, [n]; None where nothing is said of classes.
        suggestion_confidence: The probability that it is the right one, [n].
        pairs: What wrong labels stand for what.
        annotators: How often each is wrong, by their number.
        reliability: Whether probabilities are what they say, by canaries; before copies and annotators are heard.
    """

    suspicion: Floats
    choice: Choice
    confidence: Confidence
    suggested: Indices | None = None
    suggestion_confidence: Floats | None = None
    pairs: tuple[ErrorPair, ...] = ()
    annotators: tuple[AnnotatorRate, ...] = ()
    reliability: tuple[Reliable, ...] = ()


def rank_rows(
    candidates: Candidates,
    labels: Indices,
    classes: int,
    seed: int,
    spoiled: Flags,
    opinions: Opinions | None,
    beside: Beside | None = None,
) -> Ranking:
    """Choose by the canaries, and say of each row how likely it is wrong.

    Args:
        candidates: Scores of all looks at n rows. A row that was a canary in each of them is not judged.
        labels: The rows' classes as given, [n].
        classes: How many there are.
        seed: Fixes the folds.
        spoiled: Rows that are wrong whatever their label, [n]: they come first.
        opinions: What clean queries tell.
        beside: What near copies and annotators tell.
    """
    choice, seen = choose(candidates, seed, opinions and opinions.pattern), candidates.seen
    posterior = error_rate(choice.held_out, candidates.canary, opinions and opinions.merge_known(candidates), classes)
    suspicion, labels, spoiled = candidates.merged(choice.suspicion)[seen], labels[seen], spoiled[seen]
    suspicion[spoiled] += np.ptp(suspicion) + 1  # before all others, in their order
    pattern = opinions.merge_pattern(candidates) if opinions is not None and choice.combined else None
    looks = confidence(choice.held_out, posterior, None, opinions.pattern if opinions and pattern else None)
    reliable = reliability(looks.probability, candidates.canary, posterior.rate.share.estimate, classes)
    sure = confidence(suspicion, posterior, spoiled, pattern and replace(pattern, odds=pattern.odds[seen]))
    rates: tuple[AnnotatorRate, ...] = ()
    if beside is not None:
        heard = inform(suspicion, sure, spoiled, classes, beside.take(seen))
        suspicion, sure, rates = heard.suspicion, heard.confidence, heard.rates
    ranking = Ranking(suspicion, choice, sure, annotators=rates, reliability=reliable)
    if opinions is None:
        return _for_all(ranking, seen)
    merged = opinions.merged(candidates)[seen]
    suggested, confident = suggest(labels, merged, sure.probability)
    pairs = error_pairs(labels, merged, np.where(spoiled, 0.0, sure.probability))
    confident = np.where(spoiled, 0.0, confident)
    return _for_all(replace(ranking, suggested=suggested, suggestion_confidence=confident, pairs=pairs), seen)


def _for_all(ranking: Ranking, seen: Flags) -> Ranking:
    """The same for all rows, of which only those ``seen`` [n] as they were given were judged: NaN for the others."""
    if seen.all():
        return ranking

    def spread(values: Any, unknown: float) -> Any:
        found = np.full(len(seen), unknown, dtype=values.dtype)
        found[seen] = values
        return found

    sure = ranking.confidence
    better = (ranking.suggested, ranking.suggestion_confidence)
    return replace(
        ranking,
        suspicion=spread(ranking.suspicion, np.nan),
        confidence=replace(sure, probability=spread(sure.probability, np.nan), q_value=spread(sure.q_value, np.nan)),
        suggested=None if better[0] is None else spread(better[0], -1),
        suggestion_confidence=None if better[1] is None else spread(better[1], np.nan),
    )
