"""Which of the data's classes is which number of a model that was fine-tuned elsewhere.

A wrong number would turn helpful into detrimental. Where neither names nor numbers tell, sorted order is assumed, said
in the plan, and held against the clean queries.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thresher.errors import DataError, ModelError
from thresher.files import read_json
from thresher.model.adapters import of_whole_layer, saved_shapes

CLASSES_FILE = "classes.json"
"""Class numbers by name, saved beside an adapter that was fine-tuned here."""

_HEAD_MATRIX = re.compile(r"(^|\.)(classifier|score|out_proj|logits_proj|out_layer)\.(.*\.)?weight$")


def class_numbers(settings: Any, classes: Sequence[str], adapter: str | None) -> tuple[dict[str, int], bool]:
    """Class numbers by name for a fine-tuned model (its config ``settings``), or for an adapter on it.

    Taken, in this order, from the file that Thresher saves beside an adapter, from the model's own names, from labels
    that are numbers themselves, and from the sorted order of as many classes; the flag says that it was the last.
    Raises :class:`DataError` where none of them fits.
    """
    if adapter is not None and (saved := read_json(Path(adapter) / CLASSES_FILE)) is not None:
        return _known(saved, classes, "the adapter's"), False
    names = {str(settings.id2label[number]): int(number) for number in sorted(settings.id2label)}
    generic = all(name == f"LABEL_{number}" for name, number in names.items())
    count = len(names) if adapter is None else _outputs(Path(adapter)) or len(names)
    if count < 2:
        raise ModelError("The model predicts one number, not classes; audit such a model with thresher.influence.")
    if count == len(names) and all(name in names for name in classes):
        return names, False
    if all(name.isdecimal() and str(int(name)) == name and int(name) < count for name in classes):
        return {str(number): number for number in range(count)}, False
    if generic and count == len(classes):
        return {name: number for number, name in enumerate(classes)}, True
    if generic or count != len(names):
        raise DataError(
            f"The training rows have {len(classes)} classes ({', '.join(classes[:10])}) and the model {count} "
            f"without names; use 0 to {count - 1} as labels, set id2label in its config.json, or say --finetune."
        )
    return _known(names, classes, "the model's"), False


def _known(names: dict[str, int], classes: Sequence[str], whose: str) -> dict[str, int]:
    for name in classes:
        if name not in names:
            raise DataError(
                f"Label '{name}' of the training rows is not among {whose} classes ({', '.join(list(names)[:10])}); "
                "mend the labels, or say --finetune to train a new head."
            )
    return names


def _outputs(adapter: Path) -> int | None:
    """How many classes the head saved with an adapter has; None where it holds no head."""
    saved = saved_shapes(adapter).items()
    heads = [shape for name, shape in saved if _HEAD_MATRIX.search(name) and of_whole_layer(name) and len(shape) == 2]
    return min((shape[0] for shape in heads), default=None)
