"""What clean queries tell of the rows: their classes, by which law labels go wrong, and how many do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.arrays import Flags, Floats
from thresher.calibration.candidates import Candidates
from thresher.calibration.choice import Pattern
from thresher.calibration.error_rate import Known
from thresher.detectors.evidence import WHICH, Evidence
from thresher.detectors.label_noise import estimate_share, noise_of, query_gain
from thresher.detectors.probe import predict_held_out, query_likeness

Said = Mapping[str, npt.NDArray[Any]]


def opinions_of(evidence: Evidence, wrong: Flags) -> dict[str, npt.NDArray[Any]]:
    """What is said of the classes of rows, and of which of them are ``wrong`` [n] by our own doing.

    ``truth_frozen``, ``truth_second`` and ``truth_tuned`` [n, C] are probabilities of the rows' classes given their
    labels, by features of the model before fine-tuning, of another encoder and of the model after fine-tuning. Each
    counting by what it says of the queries, ``odds`` [n] are the log odds that a label is wrong, and ``patterned`` is
    how likely errors follow a pattern, 0 where it says nothing. By features of what was not trained ``share`` [2] is
    how many of the other rows are wrong and its standard error, where queries tell it, and ``query_likeness`` [n] how
    dense the queries lie where each row lies; by those of the model as it came ``probe`` [n + Q, C] are its
    probabilities of rows and queries.
    """
    if not evidence.has("classes"):
        return {}
    learned = {which: noise_of(evidence, which) for which in WHICH if evidence.has(which)}
    probe = None if evidence.frozen is None else ask_probe(evidence)
    opinions: dict[str, npt.NDArray[Any]] = {f"truth_{which}": noise.truth for which, noise in learned.items()}
    gains = np.array([query_gain(noise, evidence.query_labels) or 0.0 for noise in learned.values()])
    weights = gains / gains.sum() if gains.any() else np.full(len(gains), 1 / len(gains))
    odds = weights @ np.stack([-noise.log_odds for noise in learned.values()])
    likely = weights @ [noise.law.patterned for noise in learned.values()] * bool(gains.any())
    opinions |= {"odds": odds, "patterned": np.array(likely, dtype=np.float64)}
    untrained = evidence.untrained
    if untrained is None:
        return opinions
    labels, query_labels, seed = evidence.labels, evidence.query_labels, evidence.seed
    told = estimate_share(learned[untrained], labels, query_labels, seed, ~wrong, probe)
    if told is not None:
        opinions["share"] = np.array([told.share, told.error])
    if probe is not None:
        opinions["probe"] = probe
    opinions["query_likeness"] = query_likeness(evidence, untrained)
    return opinions


def ask_probe(evidence: Evidence) -> Floats:
    """Probabilities of the classes of rows, and after them of queries, by a probe that did not learn from either.

    The mean over its splits, [n + Q, C].
    """
    return predict_held_out(evidence).mean(0)


@dataclass(frozen=True)
class Opinions:
    """Probabilities of the classes of the rows given their labels, by those that judge the looks, each [M, C].

    ``known`` is what clean queries tell of the share of errors, with a number a look [M] where it is a row's, and
    ``pattern`` what they tell of its law.
    """

    judges: tuple[Floats, ...]
    pattern: Pattern | None = None
    known: Known | None = None

    @classmethod
    def of(cls, rounds: Sequence[Said]) -> Opinions | None:
        """Of what :func:`opinions_of` says in each round; None where it says nothing."""
        judges = tuple(
            np.concatenate([found[f"truth_{which}"] for found in rounds])
            for which in WHICH
            if f"truth_{which}" in rounds[0]
        )
        if not judges:
            return None
        odds = np.concatenate([found["odds"] for found in rounds])
        pattern = Pattern(odds, float(np.mean([found["patterned"].item() for found in rounds])))
        told = np.array([found["share"] for found in rounds if "share" in found])
        if not len(told):
            return cls(judges, pattern)
        density = np.concatenate([found["query_likeness"] for found in rounds])
        share, error = told.mean(axis=0).tolist()
        return cls(judges, pattern, Known(share, error, density))

    def of_probe(self) -> Opinions:
        """What is said by frozen features alone: for a model that has learned less than a probe on them."""
        return replace(self, judges=self.judges[:-1] or self.judges)  # tuned features come last

    def merge_pattern(self, candidates: Candidates) -> Pattern | None:
        """What the law says of each row as it was given."""
        return self.pattern and replace(self.pattern, odds=candidates.merged(self.pattern.odds))

    def merged(self, candidates: Candidates) -> Floats:
        """Their geometric mean over rounds and judges, [n, C]."""
        logs = np.mean([np.log(judge.clip(1e-9)) for judge in self.judges], axis=0)
        merged = np.exp(np.stack([candidates.merged(column) for column in logs.T], axis=1))
        return merged / merged.sum(axis=1, keepdims=True)

    def merge_known(self, candidates: Candidates) -> Known | None:
        """What they tell of the share of errors, with a number a row that was seen as it was given."""
        return self.known and replace(self.known, density=candidates.merged(self.known.density)[candidates.seen])
