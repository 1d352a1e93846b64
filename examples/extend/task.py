"""A task of your own: reviews with one to five stars, of which a classifier learns good and bad.

    python examples/extend/task.py

A task reads rows, loads the model they need, and says how errors are planted, rows encoded, predictions judged and rows
shown (:class:`thresher.tasks.base.Task`). One that ends as texts with classes takes all but the reading from
``Classify``. By an entry point in the group ``thresher.tasks`` it is ``--task stars``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from thresher.config import AuditConfig
from thresher.data.parts import Part
from thresher.data.table import Table
from thresher.errors import DataError
from thresher.extend import TASKS
from thresher.tasks.classify import Classify


@dataclass(frozen=True)
class Stars(Classify):
    """Texts in ``text``, stars in ``stars``: four and five are good, one and two bad."""

    @classmethod
    def read(cls, tables: Mapping[Part, Table], config: AuditConfig) -> Self:
        """Stars become classes; a row of three stars is neither."""
        classes: dict[Part, Table] = {part: with_classes(table) for part, table in tables.items()}
        return super().read(classes, config.model_copy(update={"text_column": ("text",), "label_column": "stars"}))


def with_classes(table: Table) -> Table:
    """The table with "good" or "bad" for stars. Raises :class:`DataError` naming the row that has other stars."""
    names = {"1": "bad", "2": "bad", "4": "good", "5": "good"}
    for row, record in enumerate(table.records):
        if str(record.get("stars")) not in names:
            raise DataError(f"{table.where(row)}: {record.get('stars')} stars are neither good nor bad; leave it out.")
    return replace(table, records=[{**record, "stars": names[str(record["stars"])]} for record in table.records])


if __name__ == "__main__":
    TASKS.register("stars", Stars)
    rows = [{"text": "a fine film", "stars": 5}, {"text": "a waste of time", "stars": 1}]
    table = Table("reviews", rows, ("text", "stars"))
    config = AuditConfig(train="reviews", validation="reviews", model="packaged:minilm", task="stars")
    tables: dict[Part, Table] = {"train": table, "query": table}
    task = TASKS[config.task].read(tables, config)
    for row in range(2):
        print(task.describe("train", row))  # noqa: T201
