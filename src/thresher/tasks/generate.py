"""Prompts with answers, of which only the answers are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from thresher.arrays import Flags, Indices
from thresher.config import AuditConfig, CanaryKind, ModelConfig, PlantKind, RowLoss
from thresher.data.answers import TEMPLATE_DATE, encode_dialogues, writes_date
from thresher.data.corruption.answers import SPOILED_ANSWERS, SWAP, plant_texts, swapped_at
from thresher.data.corruption.kinds import Guess
from thresher.data.dialogues import Dialogues, find_dialogue_columns, read_dialogues, refuse_missing
from thresher.data.encode import Cuts, EncodedRows
from thresher.data.parts import Part
from thresher.data.table import Table
from thresher.evaluate.likelihood import answer_tokens, summed_losses
from thresher.lines import one_line
from thresher.model.load import LoadedModel, load_generator
from thresher.model.predict import Predictions
from thresher.tasks.base import Described, Encoding, Measure, Task, describe_cuts


@dataclass(frozen=True)
class Generate(Task):
    """Dialogues by part; ``row_loss`` says how the losses of a row's answer tokens add up."""

    dialogues: dict[Part, Dialogues]
    row_loss: RowLoss

    canary_kinds: ClassVar[tuple[CanaryKind, ...]] = ("swap",)
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("test_loss", "loss of an answer token", ".3f"),
        Measure("test_perplexity", "perplexity", ".2f"),
    )

    @classmethod
    def plant_kinds(cls) -> tuple[PlantKind, ...]:
        """Those of the registry."""
        return (SWAP, *SPOILED_ANSWERS)

    @classmethod
    def read(cls, tables: Mapping[Part, Table], config: AuditConfig) -> Self:
        """Every row as a dialogue."""
        columns = find_dialogue_columns(tables["train"], config.prompt_column, config.completion_column)
        for table in tables.values():
            refuse_missing(table, columns.names)
        return cls({part: read_dialogues(table, columns) for part, table in tables.items()}, config.row_loss)

    def load(self, config: ModelConfig, seed: int) -> LoadedModel:
        """A causal LM; nothing of it is drawn at random."""
        return load_generator(config)

    def plant(self, share: float, kind: PlantKind, rng: np.random.Generator, guess: Guess) -> tuple[Self, Flags]:
        """Spoil the last answers of rows."""
        train = self.dialogues["train"]
        answers, planted = plant_texts([row.answer for row in train.rows], share, kind, rng)
        rows = [row.with_answer(answer) for row, answer in zip(train.rows, answers, strict=True)]
        return replace(self, dialogues={**self.dialogues, "train": replace(train, rows=rows)}), planted

    def texts(self, part: Part) -> Sequence[tuple[str, ...]]:
        """Prompt and completion."""
        return [(row.prompt, row.answer) for row in self.dialogues[part].rows]

    def asked(self, part: Part) -> Sequence[tuple[str, ...]]:
        """The prompt."""
        return [(row.prompt,) for row in self.dialogues[part].rows]

    def answers(self, part: Part) -> Sequence[tuple[str]]:
        """The completion."""
        return [(row.answer,) for row in self.dialogues[part].rows]

    def with_canaries(self, rows: Indices, kind: CanaryKind, rng: np.random.Generator, guess: Guess) -> Self:
        """Another row's completion."""
        train = self.dialogues["train"]
        answers = swapped_at([row.answer for row in train.rows], rows.tolist(), rng)
        spoiled = [row.with_answer(answer) for row, answer in zip(train.rows, answers, strict=True)]
        return replace(self, dialogues={"train": replace(train, rows=spoiled)})

    def encode(self, subject: LoadedModel, max_length: int) -> Encoding:
        """Labels are the tokens of answers; rows that had to be cut lose the left of their prompt first."""
        rows: dict[Part, EncodedRows] = {}
        cuts: dict[Part, Cuts] = {}
        for part, dialogues in self.dialogues.items():
            rows[part], cuts[part] = encode_dialogues(dialogues, subject.tokenizer, max_length, self.row_loss)
        notes = {"loss": f"{self.row_loss} over a row's answer tokens, their end included"}
        if self.dialogues["train"].chat and writes_date(subject.tokenizer):
            notes["date"] = f"the chat template writes one; every row has {TEMPLATE_DATE:%d %B %Y}"
        told = describe_cuts(cuts, {part: len(found) for part, found in rows.items()}, max_length)
        return Encoding(rows, notes | ({"cut": told} if told else {}), (told,) if told else ())

    def prediction_columns(self, subject: LoadedModel, train: EncodedRows, predictions: Predictions) -> dict[str, Any]:
        """Loss, and the share of answer tokens that are the model's first choice."""
        return {"loss": predictions.losses.numpy(), "token_accuracy": predictions.outputs[:, 0].numpy()}

    def evaluate(self, subject: LoadedModel, test: EncodedRows, predictions: Predictions) -> dict[str, float]:
        """Mean loss of an answer token over all rows, and its exponential.

        The margin is that of a ratio of sums over rows, for the tokens of one answer do not vary independently.
        """
        tokens = answer_tokens(list(test.labels))
        sums = summed_losses(predictions, tokens, self.row_loss)
        loss = float(sums.sum() / tokens.sum())
        margin = 1.96 * float(np.sqrt(np.square(sums - loss * tokens).sum()) / tokens.sum())
        return {"test_loss": loss, "test_loss_margin_95": margin, "test_perplexity": float(np.exp(loss))}

    def describe(self, part: Part, row: int) -> dict[str, Any]:
        """Prompt and completion."""
        dialogue = self.dialogues[part].rows[row]
        return {"prompt": dialogue.prompt, "completion": dialogue.answer}

    def with_rows(self, rows: Described) -> Self:
        """Other completions."""
        train = self.dialogues["train"]
        spoiled = list(train.rows)
        for row, about in rows.items():
            spoiled[row] = spoiled[row].with_answer(about["completion"])
        return replace(self, dialogues={**self.dialogues, "train": replace(train, rows=spoiled)})

    @staticmethod
    def headline(entry: Mapping[str, Any]) -> str:
        """Loss and share of tokens right."""
        return f"loss {entry['loss']:.2f}; {entry['token_accuracy']:.0%} of the answer's tokens are the model's choice"

    @staticmethod
    def format_text(entry: Mapping[str, Any], width: int) -> str:
        """The end of the prompt, and the beginning of the completion."""
        prompt = one_line(entry["prompt"], width // 2, end=True)
        return f"{prompt} => {one_line(entry['completion'], width - len(prompt))}"
