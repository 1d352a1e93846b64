"""Texts, or pairs of them, with classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from thresher.arrays import Flags, Floats, Indices
from thresher.config import AuditConfig, CanaryKind, ModelConfig, PlantKind
from thresher.data.corruption.kinds import PLANTED, Guess, plant_errors
from thresher.data.corruption.labels import flipped_at, likeliest_at
from thresher.data.encode import Cuts, EncodedRows, encode_texts
from thresher.data.examples import Examples, find_classes, find_columns, read_examples, spelled_alike
from thresher.data.parts import Part
from thresher.data.table import Table
from thresher.detectors.probe import out_of_fold
from thresher.evaluate.knowledge import other_numbering
from thresher.lines import one_line
from thresher.model.features import pooled_features
from thresher.model.load import LoadedModel, load_classifier
from thresher.model.predict import Predictions, accuracy, predict
from thresher.tasks.base import Described, Encoding, Measure, Task, describe_cuts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classify(Task):
    """Examples by part; their labels are places in ``classes``, which the model may number in another way.

    ``declared`` are the classes that the source of the training rows has names for, by their numbers there.
    """

    classes: tuple[str, ...]
    examples: dict[Part, Examples]
    declared: tuple[str, ...] = ()

    canary_kinds: ClassVar[tuple[CanaryKind, ...]] = ("alike", "uniform", "confusable")
    measures: ClassVar[tuple[Measure, ...]] = (Measure("accuracy", "accuracy", ".1%"),)

    @classmethod
    def plant_kinds(cls) -> tuple[PlantKind, ...]:
        """Those of the registry."""
        return tuple(PLANTED)

    @classmethod
    def read(cls, tables: Mapping[Part, Table], config: AuditConfig) -> Self:
        """Texts and classes of every row."""
        columns = find_columns(tables["train"], config.text_column, config.label_column)
        for table in tables.values():
            find_columns(table, columns.text, columns.label)  # every file must have the columns of the first
        declared = tables["train"].class_names
        known: dict[Part, Table] = {
            part: table if table.class_names else replace(table, class_names=declared) for part, table in tables.items()
        }
        classes = find_classes(known["train"], columns)
        _warn_of_spellings(known["train"].source, classes)
        places = {name: place for place, name in enumerate(classes)}
        examples: dict[Part, Examples] = {}
        for part, table in known.items():
            examples[part] = read_examples(table, columns, places, trained_on="the training rows")
        return cls(classes, examples, declared.get(columns.label, ()))

    def load(self, config: ModelConfig, seed: int) -> LoadedModel:
        """A sequence classifier."""
        return load_classifier(config, self.classes, seed, self.declared)

    def plant(self, share: float, kind: PlantKind, rng: np.random.Generator, guess: Guess) -> tuple[Self, Flags]:
        """Wrong labels or spoiled texts."""
        train, planted = plant_errors(self.examples["train"], share, kind, rng, guess)
        return replace(self, examples={**self.examples, "train": train}), planted

    def texts(self, part: Part) -> Sequence[tuple[str, ...]]:
        """One text, or a pair of them."""
        return self.examples[part].texts

    def guess(self, subject: LoadedModel, max_length: int, config: AuditConfig) -> Floats:
        """Out-of-fold probabilities of a logistic regression on the model's pooled features."""
        train = self.examples["train"]
        encoded, _ = encode_texts(train, subject.tokenizer, max_length)
        features = pooled_features(subject, encoded, config.rows_a_pass)
        return out_of_fold(features, train.labels, len(self.classes), config.seed)

    def with_canaries(self, rows: Indices, kind: CanaryKind, rng: np.random.Generator, guess: Guess) -> Self:
        """Another class, uniformly chosen or the likeliest."""
        train = self.examples["train"]
        if kind == "confusable":
            labels = likeliest_at(train.labels, rows, guess())
        else:
            labels = flipped_at(train.labels, rows, rng)
        return replace(self, examples={"train": replace(train, labels=labels)})

    def encode_separately(self, subject: LoadedModel, part: Part, max_length: int) -> list[EncodedRows]:
        """Each text of a pair by itself."""
        examples = self.examples[part]
        alone = [replace(examples, texts=[(text,) for text in texts]) for texts in zip(*examples.texts, strict=True)]
        return [encode_texts(texts, subject.tokenizer, max_length)[0] for texts in alone]

    def encode(self, subject: LoadedModel, max_length: int) -> Encoding:
        """Labels become the model's numbers."""
        numbers = np.array([subject.classes[name] for name in self.classes])
        rows: dict[Part, EncodedRows] = {}
        cuts: dict[Part, Cuts] = {}
        for part, examples in self.examples.items():
            numbered = replace(examples, labels=numbers[examples.labels])
            rows[part], cuts[part] = encode_texts(numbered, subject.tokenizer, max_length)
        classes = ", ".join(f"{name} = {number}" for name, number in subject.classes.items())
        assumed = f" ({subject.classes_assumed})" if subject.classes_assumed else ""
        told = describe_cuts(cuts, {part: len(found) for part, found in rows.items()}, max_length)
        notes = {"classes": classes + assumed} | ({"cut": told} if told else {})
        return Encoding(rows, notes, (told,) if told else ())

    def check_classes(self, subject: LoadedModel, query: EncodedRows, batch_size: int) -> None:
        """Warn where a model that was fine-tuned elsewhere contradicts the numbers that its classes are taken for."""
        if subject.kind == "lora" or not isinstance(query.labels, Tensor):
            return
        predicted = predict(subject, query, batch_size).outputs.argmax(-1).numpy()
        found = other_numbering(predicted, query.labels.numpy(), len(subject.classes))
        if found is not None:
            names = {number: name for name, number in subject.classes.items()}
            log.warning(
                "The model gets %d of %d clean queries right, and would get %d if its classes were numbered %s. Look "
                "whether model and data mean the same by a label; if not, use the model's numbers or names as labels.",
                found.right,
                len(query),
                found.right_then,
                ", ".join(f"{names[label]} = {number}" for label, number in found.numbers.items()),
            )

    def prediction_columns(self, subject: LoadedModel, train: EncodedRows, predictions: Predictions) -> dict[str, Any]:
        """Label as trained on, the model's class, and its probability for the label."""
        names = {number: name for name, number in subject.classes.items()}
        labels, logits = torch.as_tensor(train.labels), predictions.outputs
        probabilities: Tensor = logits.softmax(-1)
        return {
            "label": [names[int(label)] for label in labels],
            "predicted": [names[int(number)] for number in logits.argmax(-1)],
            "probability": probabilities.gather(1, labels[:, None])[:, 0].numpy(),
            "loss": predictions.losses.numpy(),
        }

    def evaluate(self, subject: LoadedModel, test: EncodedRows, predictions: Predictions) -> dict[str, float]:
        """Accuracy."""
        right = accuracy(subject, test, predictions.outputs)
        return {"accuracy": right, "accuracy_margin_95": 1.96 * sqrt(right * (1 - right) / len(test))}

    def describe(self, part: Part, row: int) -> dict[str, Any]:
        """Texts and label."""
        examples = self.examples[part]
        return {"text": list(examples.texts[row]), "label": self.classes[examples.labels[row]]}

    def with_rows(self, rows: Described) -> Self:
        """Texts and labels."""
        train = self.examples["train"]
        texts, labels = list(train.texts), train.labels.copy()
        for row, about in rows.items():
            texts[row], labels[row] = tuple(about["text"]), self.classes.index(about["label"])
        return replace(self, examples={**self.examples, "train": Examples(texts, labels)})

    @staticmethod
    def headline(entry: Mapping[str, Any]) -> str:
        """Label and prediction."""
        says = f"the model says {entry['predicted']} ({entry['probability']:.0%} for the label)"
        return f"label {entry['label']}; {says}"

    @staticmethod
    def format_text(entry: Mapping[str, Any], width: int) -> str:
        """One text or a pair."""
        return one_line(entry["text"], width)

    @staticmethod
    def tag(entry: Mapping[str, Any]) -> str:
        """Its label."""
        return f" ({entry['label']})"


def _warn_of_spellings(source: str, classes: Sequence[str]) -> None:
    for names in spelled_alike(classes):
        log.warning(
            "%s: %s are classes of their own, though they differ only in how they are spelled; mend the labels if one "
            "class is meant.",
            source,
            " and ".join(f"'{name}'" for name in names),
        )
