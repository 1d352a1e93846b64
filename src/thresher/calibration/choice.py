"""What ranks the rows: a combination of candidates, or the one that finds canaries best, guarded against few canaries.

Everything that is chosen is chosen again without each fifth of the rows and judged on that fifth (nested resampling).
The strength of the prior is the largest within one standard error of the best; a single candidate is preferred to the
combination only where it is better by more than one.

Losses, probes and influence on queries that the model gets right find errors that it has not believed. Of errors that
follow a pattern they speak the wrong way, and canaries, a few beside many errors, do not show it. So with the
probability that there is a pattern its law (:mod:`thresher.detectors.error_law`) ranks the rows, and beside it Mean of
the influences over all layers: the sum over all queries, also those that the model gets wrong, who are the witnesses.
Otherwise the combination does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thresher.arrays import Flags, Floats, Indices
from thresher.calibration.candidates import Candidates, normal
from thresher.calibration.stack import Stack, fit_stack, found_canaries, witnesses
from thresher.folds import stratified_folds
from thresher.scores.names import ScoreName

FOLDS = 5
STRENGTHS = (10.0, 30.0, 100.0)
WITNESSES = 0.5
"""What a standard deviation of the witnesses' influence counts beside the law's log odds."""


@dataclass(frozen=True)
class Pattern:
    """What the law of the errors says: of each look the log odds that its label is wrong, ``odds`` [M], and how
    ``likely`` it is that errors follow a pattern."""

    odds: Floats
    likely: float


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    ``suspicion`` [M] are the combination's log odds of being a canary rather than another row, or the single
    candidate's normal deviates; larger = more suspicious. ``held_out`` [M] are the same by fits without the look's
    fold: a canary beside other rows can only be judged by these. ``single`` is the candidate that finds canaries best,
    and ``combined`` says that the ``stack`` is used and not that one, mixed with the law of the errors by the
    probability ``patterned`` that they follow a pattern. ``auroc`` and ``auroc_error`` say how well
    ``combination`` and ``single`` tell canaries from the rest where they were not fitted to them.
    """

    combined: bool
    stack: Stack
    single: ScoreName
    auroc: dict[str, float]
    auroc_error: dict[str, float]
    suspicion: Floats
    held_out: Floats
    patterned: float = 0.0

    @property
    def name(self) -> str:
        """``auto``, or the single candidate's name."""
        return "auto" if self.combined else self.single.name


def choose(candidates: Candidates, seed: int, pattern: Pattern | None = None) -> Choice:
    """Choose by the canaries among the looks, and mix with the law of the errors as far as there is a ``pattern``."""
    from sklearn.metrics import roc_auc_score

    pattern = pattern or Pattern(np.zeros(len(candidates.row)), 0.0)
    fold = folds(candidates, seed)
    by_strength = {strength: _fit_held_out(candidates, fold, strength) for strength in STRENGTHS}
    strength = _strongest(by_strength, candidates.canary)
    follows = pattern.odds + WITNESSES * witnesses(candidates)
    mixed = _mix(by_strength[strength], follows, pattern.likely)
    held_out = {"combination": mixed, "single": _pick_held_out(candidates, fold)}
    auroc = {name: float(roc_auc_score(candidates.canary, values)) for name, values in held_out.items()}
    errors = {name: auroc_error(value, candidates.canary) for name, value in auroc.items()}
    combined = pattern.likely > 0.5 or auroc["single"] <= auroc["combination"] + errors["combination"]
    everything = np.ones(len(candidates.row), dtype=bool)
    stack = fit_stack(candidates, everything, strength)
    single = candidates.names[int(found_canaries(candidates, everything).argmax())]
    raw = _mix(stack.suspicion(candidates), follows, pattern.likely) if combined else -normal(candidates.column(single))
    kept = held_out["combination" if combined else "single"]
    return Choice(combined, stack, single, auroc, errors, raw, kept, pattern.likely)


def _mix(combined: Floats, follows: Floats, likely: float) -> Floats:
    return likely * follows + (1 - likely) * combined


def folds(candidates: Candidates, seed: int) -> Indices:
    """A fold for every look, [M]: all looks at a row in one, canaries spread evenly."""
    ever = (np.bincount(candidates.row, candidates.canary) > 0).astype(np.int64)
    return stratified_folds(ever, FOLDS, np.random.default_rng([seed, 4]))[candidates.row]


def _fit_held_out(candidates: Candidates, fold: Indices, strength: float) -> Floats:
    """The combination's log odds of every look, fitted without the look's fold, [M]."""
    return _by_fold(fold, lambda used: fit_stack(candidates, used, strength).suspicion(candidates))


def _pick_held_out(candidates: Candidates, fold: Indices) -> Floats:
    """Normal deviate of the candidate that is best without the look's fold, [M]; larger = more suspicious."""
    return _by_fold(fold, lambda used: -normal(candidates.places[:, int(found_canaries(candidates, used).argmax())]))


def _by_fold(fold: Indices, fitted: Callable[[Flags], Floats]) -> Floats:
    """What is said of every look, [M], by what was ``fitted`` to the looks of the other folds."""
    found = np.empty(len(fold))
    for number in range(FOLDS):
        judged = fold == number
        found[judged] = fitted(~judged)[judged]
    return found


def _strongest(by_strength: dict[float, Floats], canary: Flags) -> float:
    """The largest strength whose loss is within one standard error of the least, looks compared in pairs."""
    losses = {strength: np.logaddexp(0, odds) - canary * odds for strength, odds in by_strength.items()}
    best = min(losses, key=lambda strength: float(losses[strength].mean()))

    def close(strength: float) -> bool:
        more = losses[strength] - losses[best]
        return bool(more.mean() <= more.std() / np.sqrt(len(more)))

    return max(strength for strength in losses if close(strength))


def auroc_error(auroc: float, canary: Flags) -> float:
    """Standard error of an AUROC by looks ``canary`` [M] (Hanley & McNeil 1982, exponential scores)."""
    positive, negative = int(canary.sum()), int((~canary).sum())
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (positive - 1) * (q1 - auroc**2) + (negative - 1) * (q2 - auroc**2)
    return float(np.sqrt(max(spread, 0.0) / (positive * negative)))
