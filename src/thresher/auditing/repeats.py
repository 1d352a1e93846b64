"""Clean rows that are also trained on."""

from __future__ import annotations

import logging
from collections.abc import Collection

from thresher.data.parts import Part
from thresher.tasks.base import Task

log = logging.getLogger(__name__)


def warn_of_repeats(task: Task, parts: Collection[Part]) -> dict[str, str]:
    """Clean rows that are also training rows, warned of and noted: what is learned by heart counts as known there."""
    places = {_plain(texts): row for row, texts in reversed(list(enumerate(task.texts("train"))))}
    told: list[str] = []
    for part in parts:
        if part == "train":
            continue
        rows = list(enumerate(task.texts(part)))
        same = [(row, places[_plain(texts)]) for row, texts in rows if _plain(texts) in places]
        if same:
            first = f"the first: {part} row {same[0][0]} is training row {same[0][1]}"
            told.append(f"{len(same):,} of {len(rows):,} {part} rows are also training rows ({first})")
    if not told:
        return {}
    log.warning(
        "%s; what the model has learned by heart counts as right there. Give rows that are not trained on.",
        "; ".join(told),
    )
    return {"repeated": "; ".join(told)}


def _plain(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).casefold() for text in texts)
