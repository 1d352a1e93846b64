"""Who labelled each row, where a column says so."""

from __future__ import annotations

from thresher.data.table import Table
from thresher.errors import DataError


def read_annotators(table: Table, column: str) -> tuple[str | None, ...]:
    """The names in a column, None where a row has none.

    Raises :class:`DataError` where there is no such column, or it does not name people.
    """
    if column not in table.columns:
        raise DataError(f"{table.source}: there is no column '{column}'; the file has: {', '.join(table.columns)}.")
    found = tuple(_read_name(table, row, column) for row in range(len(table)))
    if not any(found):
        raise DataError(f"{table.source}: column '{column}' names nobody; fill it, or name another column.")
    return found


def _read_name(table: Table, row: int, column: str) -> str | None:
    value = table.records[row].get(column)
    if isinstance(value, (list, dict)):
        raise DataError(f"{table.where(row)}: column '{column}' holds {value!r:.40}; write one name a row.")
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 (no number)
        return None
    return str(value).strip() or None
