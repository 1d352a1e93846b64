"""Everything that the pages show of a run under review: rows in order, cards, reasons, causes."""

from __future__ import annotations

import io
from functools import cached_property, lru_cache
from typing import get_args

import numpy as np

from thresher.arrays import Indices
from thresher.auditing.run import read_audited_rows
from thresher.config import AuditConfig
from thresher.data.table import Table
from thresher.decisions import Verdict
from thresher.errors import ConfigError, ThresherError
from thresher.progress import Silent
from thresher.results.explain import Explanation, explain_rows, read_tasks
from thresher.review.card import SHOWN, Card, Evidence, card_of, weigh
from thresher.review.causes import Cause, Causes
from thresher.review.desk import Desk
from thresher.review.selection import Selection
from thresher.tasks.base import Task


class Room:
    """A run on a desk. With ``blind`` what the audit thinks of a row is shown when somebody has decided about it."""

    def __init__(self, desk: Desk, *, blind: bool = False) -> None:
        self.desk, self.blind = desk, blind
        self.name = str(desk.run.run_dir.path)

    def rows(self, asked: Selection) -> Indices:
        """Numbers of the rows that are asked for, in order."""
        scores = self.desk.scores
        causes = self._causes if asked.cause else Causes({}, len(scores))  # which reads the whole file
        return asked.rows(scores, self.desk.decided, causes)

    def next_row(self, asked: Selection, after: int | None) -> int | None:
        """The first of the rows that are asked for; where decided ones stay in the list the one ``after``."""
        rows = self.rows(asked)
        if not len(rows):
            return None
        place = np.flatnonzero(rows == after) if after is not None else np.empty(0)
        return int(rows[min(place[0] + 1, len(rows) - 1)]) if len(place) else int(rows[0])

    def probability(self, row: int) -> float | None:
        """How likely a row is wrong; None where nothing tells, or nobody is to see it."""
        if "probability_wrong" not in self.desk.scores or (self.blind and row not in self.desk.decided):
            return None
        return float(self.desk.scores.at[row, "probability_wrong"])

    def card(self, row: int) -> Card:
        """A row. Raises :class:`ConfigError` for one that there is not."""
        self._check(row)
        decision = self.desk.decided.get(row)
        return card_of(self.desk.run, self._tasks[1], self.desk.scores, row, decision, blind=self.blind)

    def why(self, row: int) -> Evidence:
        """Why a row is suspected; where nobody is to know yet, nothing."""
        self._check(row)
        if self.blind and row not in self.desk.decided:
            return Evidence(missing="The audit's reasons are shown when you have decided.")
        try:
            found = None if self._config.quick else self._explained(row)
        except ThresherError as error:
            return Evidence(missing=str(error))
        return weigh(self.desk.run, self._tasks[0], self.desk.scores, row, found)

    def layers(self, row: int) -> bytes:
        """The row's rank along the layers as SVG. Raises :class:`ConfigError` where nothing draws it."""
        from thresher.report.figures import check_matplotlib

        self._check(row)
        check_matplotlib("the picture of the layers")
        picture = io.BytesIO()
        self._explained(row).plot().savefig(picture, format="svg")
        return picture.getvalue()

    def worst_causes(self) -> list[Cause]:
        """What rows share that are suspicious more often than others, of those that nobody has decided about."""
        scores = self.desk.scores
        if "probability_wrong" not in scores or self.blind:
            return []
        likely = np.nan_to_num(scores["probability_wrong"].to_numpy(dtype=np.float64))
        likely[list(self.desk.decided)] = 0
        return self._causes.worst(likely)

    def decide(self, rows: list[int], verdict: str, label: str | None, note: str) -> None:
        """Write a decision; to ``accept`` is to relabel each row as suggested.

        Raises :class:`ConfigError` for what cannot be meant.
        """
        if verdict == "accept":
            return self._accept(rows, note)
        there = [one for one in get_args(Verdict) if one != "undo"]
        if verdict not in there:
            raise ConfigError(f"verdict: choose {', '.join(there)} or accept.")
        return self.desk.decide(rows, verdict, label if verdict == "relabel" else None, note)  # pyright: ignore

    def _accept(self, rows: list[int], note: str) -> None:
        suggested = {row: self.desk.run.suggested(row) for row in rows}
        if None in suggested.values():
            raise ConfigError("Nothing is suggested for rows of this run; drop, keep or relabel them.")
        self.desk.relabel({row: label for row, label in suggested.items() if label is not None}, note)

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.desk.run.scores):
            raise ConfigError(f"There is no row {row}; the run has rows 0 to {len(self.desk.run.scores) - 1}.")

    @property
    def _config(self) -> AuditConfig:
        return self.desk.run.summary.config

    @cached_property
    def _tasks(self) -> tuple[Task, Task]:
        return read_tasks(self.desk.run.run_dir, self._config)

    @cached_property
    def _table(self) -> Table | None:
        try:
            return read_audited_rows(self.desk.run.run_dir, self._config, "train")
        except ThresherError:  # causes do without its columns; a card will say what is the matter
            return None

    @cached_property
    def _causes(self) -> Causes:
        return Causes.of(self.desk.run, self._table)

    @lru_cache(maxsize=256)  # noqa: B019 (one room a server)
    def _explained(self, row: int) -> Explanation:
        return explain_rows(self.desk.run.run_dir.path, [row], (), None, SHOWN, Silent())[0]
