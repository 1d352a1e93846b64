"""A finished run with what people decided about its rows: what that teaches of the others, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, softmax
from scipy.stats import rankdata

from thresher.arrays import Floats, Indices
from thresher.auditing.looks import read_candidates, rounds_as_given
from thresher.auditing.run import RunDirectory, read_finished
from thresher.auditing.witnesses import untrained_features
from thresher.calibration.candidates import RANDOM, normal, side_by_side
from thresher.calibration.decided import Lesson, Traits, learn
from thresher.calibration.opinions import Opinions
from thresher.calibration.stack import family_of
from thresher.decisions import DECISIONS, Decision, DecisionLog, standing
from thresher.detectors.evidence import Features
from thresher.detectors.neighbours import nearest_rows
from thresher.model.predict import read_predictions
from thresher.scores.names import ScoreName
from thresher.scores.stored import read_scores
from thresher.scores.table import known_by
from thresher.summary import Summary
from thresher.tensors import read_tensors


@dataclass(frozen=True, eq=False)
class DecidedRun:
    """A finished run, ``scores`` as in scores.parquet."""

    run_dir: RunDirectory
    scores: pd.DataFrame
    summary: Summary

    @classmethod
    def open(cls, folder: Path) -> DecidedRun:
        """Raises :class:`RunError` where the run is not finished, or a file of it is damaged."""
        run_dir, _, scores, summary = read_finished(folder)
        return cls(run_dir, scores, summary)

    @property
    def log(self) -> DecisionLog:
        """Where decisions are written."""
        return DecisionLog(self.run_dir.path / DECISIONS)

    @cached_property
    def known(self) -> list[str]:
        """What each row is known by: its text and its label as trained on, [n]."""
        return known_by(self.scores)

    def standing(self, decisions: Iterable[Decision]) -> dict[int, Decision]:
        """The decision that stands about each row that there is one about, by the row's number here."""
        stands = standing(decisions)
        return {row: stands[one] for row, one in enumerate(self.known) if one in stands}

    @cached_property
    def likely(self) -> Indices | None:
        """The class of each row that is likeliest but for its own, as a number, [n]; None of rows without classes."""
        return None if self._classes is None else self._classes.argmax(axis=1)

    @cached_property
    def class_names(self) -> list[str]:
        """Names of classes by their numbers."""
        return sorted(self.summary.classes, key=lambda name: self.summary.classes[name])

    def suggested(self, row: int) -> str | None:
        """The label that the row likeliest has if its own is wrong."""
        return None if self.likely is None else self.class_names[self.likely[row]]

    def predicted(self, row: int) -> dict[str, float] | None:
        """How likely the model finds each class for a row, in the first round in which the row was no canary."""
        if len(self.summary.classes) < 2:
            return None
        number = next(number for number, rows in rounds_as_given(self.run_dir, [row]).items() if rows)
        outputs = self._outputs(number)[row].astype(np.float64)
        return dict(zip(self.class_names, softmax(outputs).tolist(), strict=True))

    def places(self, row: int) -> dict[str, float]:
        """By family of scores, which share of the rows is less suspicious than this one; 1 = it is the worst."""
        names, places = self._places
        families: dict[str, list[float]] = {}
        for name, place in zip(names, places[row], strict=True):
            family = family_of(name)
            if family is not None:
                families.setdefault(family.name, []).append(float(place))
        return {family: float(np.mean(found)) for family, found in families.items()}

    def nearest(self, row: int, count: int) -> tuple[Indices, Floats]:
        """The other training rows most like a row, by frozen features, and how like; none where there are none."""
        if self._features is None:
            return np.empty(0, dtype=np.int64), np.empty(0)
        return nearest_rows(self._features, row, count)

    def lesson(self, decided: Mapping[int, Decision]) -> Lesson:
        """What is to be thought of every row, with what was decided about some; nobody's doubt teaches anything."""
        rows = [row for row, decision in decided.items() if decision.wrong is not None]
        wrong = np.array([bool(decided[row].wrong) for row in rows], dtype=bool)
        return learn(self._traits, np.array(rows, dtype=np.int64), wrong)

    @cached_property
    def _labels(self) -> Indices:
        return np.array([self.summary.classes[str(one)] for one in self.scores["label"]], dtype=np.int64)

    @cached_property
    def _classes(self) -> Floats | None:
        """What is said of the classes other than the label, [n, C]."""
        if "label" not in self.scores or len(self.summary.classes) < 2:
            return None
        rounds = self._rounds
        if not all(one.opinions.exists() for one in rounds):
            return None
        said = [{name: one.numpy() for name, one in read_tensors(found.opinions)[0].items()} for found in rounds]
        opinions = Opinions.of(said)
        if opinions is None:
            return None
        merged = opinions.merged(side_by_side([read_candidates(one) for one in rounds]))
        merged[np.arange(len(merged)), self._labels] = -1
        return merged

    @property
    def _rounds(self) -> list[RunDirectory]:
        found = [self.run_dir]
        while (one := self.run_dir.round(len(found))).path.is_dir():
            found.append(one)
        return found

    @cache  # noqa: B019 (as long as the run is open)
    def _outputs(self, number: int) -> Floats:
        return read_predictions(self.run_dir.round(number).predictions, "train").outputs.numpy()

    @cached_property
    def _places(self) -> tuple[list[ScoreName], Floats]:
        """The scores that tell rows apart, and the share of the rows that each finds less suspicious, [n, K]."""
        scores = read_scores(self.run_dir.all_scores)
        told = {name: one for name, one in scores.items() if name != RANDOM and np.ptp(one) > 0}
        count = len(self.scores)
        columns = [1 - (rankdata(one) - 0.5) / count for one in told.values()]
        return list(told), np.stack(columns, axis=1) if columns else np.empty((count, 0))

    @cached_property
    def _traits(self) -> Traits:
        places = normal(self._places[1])
        features = None if self._features is None else self._features.train.astype(np.float64)
        return Traits(self._said, places, self._groups, features)

    @cached_property
    def _features(self) -> Features | None:
        found = untrained_features(self.run_dir)
        return found and replace(found, train=found.train[: len(self.scores)])

    @property
    def _said(self) -> Floats:
        """What the audit says; where it only ranks, something that falls with the rank."""
        by_rank = expit(-2 - normal((self.scores["rank"].to_numpy() - 0.5) / len(self.scores)))
        if "probability_wrong" not in self.scores:
            return by_rank
        said = self.scores["probability_wrong"].to_numpy(dtype=np.float64)
        return np.where(np.isfinite(said), said, by_rank)

    @property
    def _groups(self) -> list[Indices]:
        found: list[Indices] = []
        if self.likely is not None:
            found += [self._labels * len(self.class_names) + self.likely, self._labels]
        if "annotator" in self.scores:
            found.append(pd.factorize(self.scores["annotator"])[0].astype(np.int64))
        return found


def rank_by(scores: pd.DataFrame, lesson: Lesson) -> pd.DataFrame:
    """The verdicts with the probabilities and the ranks of a lesson; who is as likely wrong goes by the rank it had."""
    order = np.lexsort((scores["rank"].to_numpy(), -lesson.probability))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return scores.assign(probability_wrong=lesson.probability, rank=rank)
