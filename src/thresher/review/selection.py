"""Which rows the reviewer wants to see, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self, get_args

import numpy as np
import pandas as pd

from thresher.arrays import Flags, Indices
from thresher.decisions import Decision
from thresher.errors import ConfigError
from thresher.review.causes import Causes
from thresher.scores.table import rank_of

State = Literal["open", "decided", "unsure", "all"]
Kind = Literal["", "label", "text", "copies", "contradicted"]
Order = Literal["suspicious", "telling", "random", "file"]

ORDERS: Mapping[Order, str] = {
    "suspicious": "most likely wrong first",
    "telling": "what tells most first",
    "random": "drawn at random",
    "file": "as in the file",
}
KINDS: Mapping[Kind, str] = {
    "": "every problem",
    "label": "label more likely wrong than right",
    "text": "text spoiled",
    "contradicted": "contradicted by a near copy",
    "copies": "near copy of another row",
}
STATES: Mapping[State, str] = {"open": "not decided", "decided": "decided", "unsure": "unsure", "all": "all rows"}

PAGE = 50
"""Rows in a list."""


@dataclass(frozen=True)
class Selection:
    """What is asked for: rows of a ``cause`` (:mod:`thresher.review.causes`), of a kind of problem, whose text holds
    some words; the ``page`` is counted from 0."""

    state: State = "open"
    kind: Kind = ""
    order: Order = "suspicious"
    cause: str = ""
    words: str = ""
    page: int = 0

    @classmethod
    def read(cls, asked: Mapping[str, str]) -> Self:
        """From a page's fields. Raises :class:`ConfigError` for what there is not."""
        choices = {"state": get_args(State), "kind": get_args(Kind), "order": get_args(Order)}
        given = {field.name: asked[field.name] for field in fields(cls) if field.name in asked}
        for name, there in choices.items():
            if name in given and given[name] not in there:
                raise ConfigError(f"{name}: choose {', '.join(filter(None, there))}.")
        page = given.pop("page", "0")
        if not page.isdecimal() or len(page) > 9:
            raise ConfigError("page: write a number from 0.")
        return cls(**given, page=int(page))  # pyright: ignore[reportArgumentType] (looked at above)

    def rows(self, scores: pd.DataFrame, decided: Mapping[int, Decision], causes: Causes) -> Indices:
        """Numbers of all rows that are asked for, in order."""
        wanted = self._in_state(len(scores), decided) & self._of_kind(scores) & causes.flags(self.cause)
        if self.words:
            wanted &= scores["text"].str.contains(self.words, case=False, regex=False).to_numpy(dtype=bool)
        rows = np.flatnonzero(wanted)
        return rows[np.argsort(self._places(scores)[rows], kind="stable")]

    def _in_state(self, count: int, decided: Mapping[int, Decision]) -> Flags:
        flags = np.zeros(count, dtype=bool)
        flags[[row for row, one in decided.items() if self.state != "unsure" or one.wrong is None]] = True
        return ~flags if self.state == "open" else np.ones(count, dtype=bool) if self.state == "all" else flags

    def _of_kind(self, scores: pd.DataFrame) -> Flags:
        everything = np.ones(len(scores), dtype=bool)
        if self.kind == "label" and "probability_wrong" in scores:
            return (scores["probability_wrong"] > 0.5).to_numpy(dtype=bool)
        if self.kind == "text" and "text_problem" in scores:
            return (scores["text_problem"] != "").to_numpy(dtype=bool)
        if self.kind == "contradicted" and "contradicted" in scores:
            return (scores["contradicted"] != "").to_numpy(dtype=bool)
        if self.kind == "copies" and "copy_of" in scores:
            first = scores["copy_of"].to_numpy()
            return np.bincount(first, minlength=len(scores))[first] > 1
        return ~everything if self.kind else everything

    def _places(self, scores: pd.DataFrame) -> Indices:
        if self.order == "file":
            return np.arange(len(scores))
        if self.order == "random":
            return np.random.default_rng(0).permutation(len(scores))
        if self.order == "telling" and "probability_wrong" in scores:
            likely = scores["probability_wrong"].to_numpy(dtype=np.float64)
            return rank_of(np.abs(np.nan_to_num(likely) - 0.5))
        return scores["rank"].to_numpy(dtype=np.int64)
