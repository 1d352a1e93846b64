"""Clean rows that are also trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from thresher.data.parts import Part
from thresher.data.table import Table
from thresher.errors import DataError
from thresher.tasks.base import Task

log = logging.getLogger(__name__)


def warn_of_repeats(task: Task, tables: Mapping[Part, Table]) -> dict[str, str]:
    """Clean rows that are also training rows, warned of and noted: what is learned by heart counts as known there.

    Raises :class:`DataError` where they are all of the training rows, and no others.
    """
    places = {_plain(texts): row for row, texts in reversed(list(enumerate(task.texts("train"))))}
    told: list[str] = []
    for part in tables:
        if part == "train":
            continue
        rows = list(enumerate(task.texts(part)))
        if places.keys() == {_plain(texts) for _, texts in rows}:
            raise DataError(f"{tables[part].source}: these {part} rows are the training rows; give rows held out.")
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
