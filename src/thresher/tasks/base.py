"""What an audit asks of a task. Adding one is a class of these methods and a line in the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from thresher.arrays import Flags, Floats, Indices
from thresher.config import AuditConfig, CanaryKind, ModelConfig, PlantKind
from thresher.data.corruption.kinds import Guess
from thresher.data.encode import Cuts, EncodedRows
from thresher.data.parts import Part
from thresher.data.table import Table
from thresher.model.load import LoadedModel
from thresher.model.predict import Predictions

Described = Mapping[int, Mapping[str, Any]]
"""Training rows by number, as :meth:`Task.describe` tells them."""


@dataclass(frozen=True)
class Encoding:
    """Rows as the model takes them, lines for the plan by title, and what the user should be warned of."""

    rows: dict[Part, EncodedRows]
    notes: dict[str, str]
    warnings: tuple[str, ...] = ()


def describe_cuts(cuts: Mapping[Part, Cuts], counts: Mapping[Part, int], limit: int) -> str:
    """Which rows are longer than ``limit`` tokens and what they lose, for plan and report; "" where none is."""
    lines = [
        f"{cut.rows:,} of {counts[part]:,} {part} rows lose {cut.tokens:,} of {cut.of:,} tokens"
        + f" ({cut.answers:,} of them a part of an answer)" * bool(cut.answers)
        for part, cut in cuts.items()
        if cut.rows
    ]
    return f"{'; '.join(lines)} (over {limit:,} a row)" if lines else ""


@dataclass(frozen=True)
class Measure:
    """A number that test rows are judged by: its key in summary.json's ``measures``, its title, its value's format."""

    key: str
    title: str
    form: str


class Task(ABC):
    """The rows of an audit as one task understands them, checked. Frozen; a row is known by its part and number."""

    canary_kinds: ClassVar[tuple[CanaryKind, ...]]
    """Kinds of canaries, the default first."""

    measures: ClassVar[tuple[Measure, ...]]
    """What :meth:`evaluate` measures, without margins; the most telling first."""

    @classmethod
    @abstractmethod
    def plant_kinds(cls) -> tuple[PlantKind, ...]:
        """Kinds of errors that can be planted, the default first."""

    @classmethod
    @abstractmethod
    def read(cls, tables: Mapping[Part, Table], config: AuditConfig) -> Self:
        """Understand the rows. Raises :class:`DataError` naming the row that cannot be."""

    @abstractmethod
    def load(self, config: ModelConfig, seed: int) -> LoadedModel:
        """The model that these rows need."""

    @abstractmethod
    def plant(self, share: float, kind: PlantKind, rng: np.random.Generator, guess: Guess) -> tuple[Self, Flags]:
        """The same rows with errors in the training part, and which rows those are, [n].

        Only the kinds that depend on what the rows look like to the model call ``guess``; its columns are the task's
        classes in their order.
        """

    @abstractmethod
    def texts(self, part: Part) -> Sequence[tuple[str, ...]]:
        """What the model reads of every row, and is to write."""

    def asked(self, part: Part) -> Sequence[tuple[str, ...]]:
        """What the model reads of every row: of ``texts`` what it is not to write."""
        return self.texts(part)

    def answers(self, part: Part) -> Sequence[tuple[str]]:
        """What it is to write, of every row; nothing where that is a class."""
        return ()

    def guess(self, subject: LoadedModel, max_length: int, config: AuditConfig) -> Floats:
        """What :meth:`plant` and :meth:`with_canaries` may ask; only of a task with classes."""
        raise NotImplementedError

    def encode_separately(self, subject: LoadedModel, part: Part, max_length: int) -> list[EncodedRows]:
        """The rows' texts, each by itself: what features of the model as it came are made of; as :meth:`guess`."""
        raise NotImplementedError

    @abstractmethod
    def with_canaries(self, rows: Indices, kind: CanaryKind, rng: np.random.Generator, guess: Guess) -> Self:
        """The training part alone, the named rows with a wrong label. Raises :class:`ConfigError` where impossible."""

    @abstractmethod
    def encode(self, subject: LoadedModel, max_length: int) -> Encoding:
        """Tokenize every part."""

    def check_classes(self, subject: LoadedModel, query: EncodedRows, batch_size: int) -> None:
        """Warn where the model as loaded contradicts what was assumed about it; nothing to doubt by default."""
        return

    @abstractmethod
    def prediction_columns(self, subject: LoadedModel, train: EncodedRows, predictions: Predictions) -> dict[str, Any]:
        """What the model says about the training rows: columns of scores.parquet."""

    @abstractmethod
    def evaluate(self, subject: LoadedModel, test: EncodedRows, predictions: Predictions) -> dict[str, float]:
        """Every one of ``measures``, and for those with an interval KEY_margin_95, half its width."""

    @abstractmethod
    def describe(self, part: Part, row: int) -> dict[str, Any]:
        """The row for summary.json."""

    @abstractmethod
    def with_rows(self, rows: Described) -> Self:
        """The same task with some training rows as they were described, errors and all."""

    @staticmethod
    @abstractmethod
    def headline(entry: Mapping[str, Any]) -> str:
        """A suspicious row of summary.json, in a line: what is given, what the model says."""

    @staticmethod
    @abstractmethod
    def format_text(entry: Mapping[str, Any], width: int) -> str:
        """The text of a row of summary.json, in about ``width`` characters."""

    @staticmethod
    def tag(entry: Mapping[str, Any]) -> str:
        """What marks a query row of summary.json beside its number; nothing by default."""
        return ""
