"""What lies before the reviewer: the rows with what is thought of them now, and decisions, each on the disk at once.

Whatever asks may do so from several threads. What decisions teach is worked out behind the scenes, so nobody waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from uuid import uuid4

import numpy as np
import pandas as pd

from thresher.calibration.decided import Left, Lesson
from thresher.decisions import Decision, Verdict
from thresher.errors import ConfigError, ThresherError
from thresher.results.decided import DecidedRun, rank_by
from thresher.review.standing import Standing, stand

log = logging.getLogger(__name__)


class Desk:
    """A run under review by ``who``."""

    def __init__(self, run: DecidedRun, who: str) -> None:
        self.run, self.who = run, who
        self._lock = threading.RLock()
        self._written: int | None = None
        self._made: list[Decision] = []
        self._decided: dict[int, Decision] = {}
        self._lesson: Lesson | None = None
        self._scores = run.scores
        self._taught = threading.Condition()
        self._waiting = False
        threading.Thread(target=self._teach, daemon=True).start()
        self._learn()

    @property
    def scores(self) -> pd.DataFrame:
        """scores.parquet, with the probabilities and ranks that the decisions so far lead to."""
        with self._lock:
            return self._scores

    @property
    def lesson(self) -> Lesson | None:
        """What decisions have taught; None before the first."""
        with self._lock:
            return self._lesson

    @property
    def decided(self) -> Mapping[int, Decision]:
        """The decision that stands about each row, those of other reviewers too."""
        with self._lock:
            file = self.run.log.path
            written = file.stat().st_size if file.exists() else 0
            if written != self._written:
                self._made = self.run.log.read()
                self._decided = self.run.standing(self._made)
                self._written = written
            return dict(self._decided)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes; none where rows have none."""
        return tuple(self.run.class_names)

    @property
    def standing(self) -> Standing:
        """Where the review stands."""
        return stand(self.scores, self.decided, self.lesson.left if self.lesson else self._said_left)

    @cached_property
    def _said_left(self) -> Left | None:
        """As the audit says, before anybody has looked."""
        auto, count = self.run.summary.auto, len(self.run.scores)
        if auto is None:
            return None
        rate = auto.error_rate
        return Left(rate.estimate * count, rate.low * count, rate.high * count)

    def decide(self, rows: Sequence[int], verdict: Verdict, label: str | None = None, note: str = "") -> None:
        """Write a decision about each of the rows, together: one undo takes them back.

        Raises :class:`ConfigError` for a row or a label that there is not, :class:`RunError` where the disk refuses.
        """
        self._write(verdict, dict.fromkeys(rows, label), note)

    def relabel(self, labels: Mapping[int, str], note: str = "") -> None:
        """Write that each of the rows has another label, as :meth:`decide` does."""
        self._write("relabel", labels, note)

    def _write(self, verdict: Verdict, labels: Mapping[int, str | None], note: str) -> None:
        count = len(self.run.scores)
        for row, label in labels.items():
            if not 0 <= row < count:
                raise ConfigError(f"There is no row {row}; the run has rows 0 to {count - 1}.")
            if verdict == "relabel" and label not in self.labels:
                raise ConfigError(f"'{label}' is no class of this run; it has {', '.join(self.labels)}.")
        together = uuid4().hex[:12] if len(labels) > 1 else ""
        self.run.log.append([self._decision(row, verdict, label, note, together) for row, label in labels.items()])
        self._learn()

    def undo(self) -> list[int]:
        """Take back the last decision of this reviewer that stands, or all that were made together; their rows."""
        mine = [one for one in self.decided.values() if one.who == self.who]
        made = {id(one): number for number, one in enumerate(self._made)}
        if not mine:
            return []
        last = max(mine, key=lambda one: made[id(one)])
        rows = [
            row
            for row, one in self.decided.items()
            if one is last or (last.together and one.together == last.together and one.who == self.who)
        ]
        self.run.log.append([self._decision(row, "undo") for row in rows])
        self._learn()
        return rows

    def _decision(
        self, row: int, verdict: Verdict, label: str | None = None, note: str = "", together: str = ""
    ) -> Decision:
        scores = self.run.scores
        given = str(scores.at[row, "label"]) if "label" in scores else None
        after = label if verdict == "relabel" else None
        known = self.run.known[row]
        return Decision(
            row=row,
            fingerprint=known,
            verdict=verdict,
            given=given,
            label=after,
            who=self.who,
            note=note,
            together=together,
        )

    def _learn(self) -> None:
        """Have what is decided worked out, soon."""
        with self._taught:
            self._waiting = True
            self._taught.notify()

    def _teach(self) -> None:
        while True:
            with self._taught:
                self._taught.wait_for(lambda: self._waiting)
                self._waiting = False
            try:
                decided = self.decided
                told = any(one.wrong is not None for one in decided.values())
                lesson = self.run.lesson(decided) if told else None
                scores = self.run.scores if lesson is None else rank_by(self.run.scores, lesson)
                with self._lock:
                    self._lesson, self._scores = lesson, scores
            except (ThresherError, OSError, ValueError, np.linalg.LinAlgError) as error:  # the review goes on without
                log.warning("The decisions could not be learned from (%s); rows keep the order they had.", error)
