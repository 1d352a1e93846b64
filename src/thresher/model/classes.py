"""Which of the data's classes is which number of a model that was fine-tuned elsewhere.

A wrong number would turn helpful into detrimental. What is assumed where names do not tell is said in the plan, and
every numbering is held against the clean queries.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresher.data.examples import fold_name
from thresher.errors import DataError, ModelError
from thresher.files import read_given
from thresher.model.adapters import of_whole_layer, saved_shapes

CLASSES_FILE = "classes.json"
"""Class numbers by name, saved beside an adapter that was fine-tuned here."""

log = logging.getLogger(__name__)

_HEAD_MATRIX = re.compile(r"(^|\.)(classifier|score|out_proj|logits_proj|out_layer)\.(.*\.)?weight$")


@dataclass(frozen=True)
class Numbering:
    """Numbers of a model's classes by name, and in words what was ``assumed`` where nothing told them, else ""."""

    numbers: dict[str, int]
    assumed: str = ""


def class_numbers(
    settings: Any, classes: Sequence[str], adapter: str | None, declared: Sequence[str] = ()
) -> Numbering:
    """Class numbers by name for a fine-tuned model (its config ``settings``), or for an adapter on it.

    Taken, in this order, from the file that Thresher saves beside an adapter, from the model's own names, from the
    names that the data set has ``declared`` in the order of its numbers, from labels that are numbers themselves, and
    from the sorted order of as many classes; the last three are assumptions, and said. Raises :class:`DataError` where
    none of them fits.
    """
    if adapter is not None and (Path(adapter) / CLASSES_FILE).exists():
        saved = read_given(Path(adapter) / CLASSES_FILE, dict[str, int])
        if sorted(saved.values()) != list(range(len(saved))):
            raise DataError(f"{Path(adapter) / CLASSES_FILE}: the classes are not numbered from 0; mend the file.")
        return Numbering(_known(saved, classes, "the adapter's"))
    names = {str(settings.id2label[number]): int(number) for number in sorted(settings.id2label)}
    generic = all(name == f"LABEL_{number}" for name, number in names.items())
    count = len(names) if adapter is None else _outputs(Path(adapter)) or len(names)
    if count < 2:
        raise ModelError("The model predicts one number, not classes; audit such a model with thresher.influence.")
    if count == len(names) and len(_match(names, classes)) == len(classes):
        return Numbering(_known(names, classes, "the model's"))
    unnamed = generic or count != len(names)
    if unnamed and count == len(declared):
        return Numbering(
            {name: number for number, name in enumerate(declared)},
            "numbered as the data set numbers them: the model does not name them",
        )
    if all(name.isdecimal() and str(int(name)) == name and int(name) < count for name in classes):
        return Numbering(
            {str(number): number for number in range(count)},
            "labels are taken for the numbers that the model counts by",
        )
    if generic and count == len(classes):
        return Numbering(
            {name: number for number, name in enumerate(classes)}, "sorted order: the model does not name them"
        )
    if unnamed:
        raise DataError(
            f"The training rows have {len(classes)} classes ({', '.join(classes[:10])}) and the model {count} "
            f"without names; use 0 to {count - 1} as labels, set id2label in its config.json, or say --finetune."
        )
    return Numbering(_known(names, classes, "the model's"))


def _known(names: dict[str, int], classes: Sequence[str], whose: str) -> dict[str, int]:
    """The numbers under the data's own spelling of the names."""
    matched = _match(names, classes)
    for name in classes:
        if name not in matched:
            raise DataError(
                f"Label '{name}' of the training rows is not among {whose} classes ({', '.join(list(names)[:10])}); "
                "mend the labels, or say --finetune to train a new head."
            )
    other = [f"'{name}' for '{known}'" for name, known in matched.items() if name != known]
    if other:
        log.warning("Labels are spelled otherwise than %s classes; taken are %s.", whose, ", ".join(other))
    spelled = {known: name for name, known in matched.items()}
    return {spelled.get(name, name): number for name, number in names.items()}


def _match(names: Mapping[str, int], classes: Sequence[str]) -> dict[str, str]:
    """Which of the model's ``names`` each class is: the same, or the only one but for case and form of letters."""
    alike = {fold_name(name): name for name in names}
    fold = len(alike) == len(names) and len({fold_name(name) for name in classes}) == len(classes)
    meant = {name: name if name in names or not fold else alike.get(fold_name(name), "") for name in classes}
    return {name: known for name, known in meant.items() if known in names}


def _outputs(adapter: Path) -> int | None:
    """How many classes the head saved with an adapter has; None where it holds no head."""
    saved = saved_shapes(adapter).items()
    heads = [shape for name, shape in saved if _HEAD_MATRIX.search(name) and of_whole_layer(name) and len(shape) == 2]
    return min((shape[0] for shape in heads), default=None)
