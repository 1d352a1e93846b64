"""Which columns mean what: a table becomes texts with class numbers."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.data.table import Table
from thresher.errors import DataError

LABEL_COLUMNS = ("label", "labels", "category", "class", "target")
TEXT_COLUMNS = (
    ("text",),
    ("sentence",),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("content",),
)
MOST_CLASSES = 1000
LONGEST_TEXT, LONGEST_LABEL = 1_000_000, 1000
"""Characters: of a text longer than any that a model reads, over which tokenizers sit for minutes; and of a name."""

NO_LABEL = frozenset({"nan", "NaN", "None", "<NA>", "null", "NaT"})
"""How pandas, Python and JSON write a value that is missing; a class that is called none in another spelling is one."""

_DIGITS = re.compile(r"([0-9]+)")
_WHOLE = re.compile(r"-?[0-9]+")
_WHOLE_AS_FLOAT = re.compile(r"(-?[0-9]+)\.0+")


@dataclass(frozen=True)
class Columns:
    """The one or two columns that hold text, and the one that holds the label."""

    text: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Examples:
    """Texts (one or two a row) with their class numbers ``labels`` [n] int64."""

    texts: Sequence[tuple[str, ...]]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


def find_columns(table: Table, text: Sequence[str], label: str | None) -> Columns:
    """The columns the user named, or else the first known names that the table has."""
    have = ", ".join(table.columns)
    for name in [*text, *([label] if label else [])]:
        if name not in table.columns:
            raise DataError(f"{table.source}: there is no column '{name}'; the file has: {have}.")
    if not text:
        known = [names for names in TEXT_COLUMNS if all(name in table.columns for name in names)]
        if not known:
            raise DataError(
                f"{table.source}: cannot tell which column is the text; name it with --text-column ({have})."
            )
        text = max(known, key=len)
    if len(text) > 2:
        raise DataError(f"{table.source}: a row is one text or a pair, but {len(text)} text columns are named.")
    if label is None:
        label = next((name for name in LABEL_COLUMNS if name in table.columns and name not in text), None)
        if label is None:
            raise DataError(
                f"{table.source}: cannot tell which column is the label; name it with --label-column ({have})."
            )
    if label in text:
        raise DataError(f"{table.source}: column '{label}' is named as text and as label; a model would only copy it.")
    return Columns(tuple(text), label)


def find_classes(table: Table, columns: Columns) -> tuple[str, ...]:
    """The class names among the labels: in number order where all are numbers, else sorted, numbers in them as such.

    Numbers that the table has names for are those names, in the order of the numbers.

    Raises :class:`DataError` for a missing label, a single class, or labels that look like measurements.
    """
    names = {_class_name(table, columns, row) for row in range(len(table))}
    if len(names) == 1:
        raise DataError(
            f"{table.source}: every row has the label '{names.pop()}' in column '{columns.label}'; "
            "training needs rows of two classes or more."
        )
    if len(names) > min(MOST_CLASSES, max(2, len(table) // 2)):
        raise DataError(
            f"{table.source}: column '{columns.label}' has {len(names)} different values in {len(table)} rows; "
            "is it the label? Name another with --label-column, or turn the numbers into classes first."
        )
    declared = table.class_names.get(columns.label, ())
    if declared and names <= set(declared):
        return tuple(name for name in declared if name in names)
    if all(_WHOLE.fullmatch(name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names, key=_natural))


def spelled_alike(classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of class names that differ by upper and lower case, or in the width of letters, only."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(fold_name(name), []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def fold_name(name: str) -> str:
    """A class name without what tells spellings of it apart."""
    return unicodedata.normalize("NFKC", name).casefold()


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in a name count as numbers: LABEL_10 comes after LABEL_9."""
    parts = _DIGITS.split(name)
    return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)]


def read_examples(table: Table, columns: Columns, classes: Mapping[str, int], *, trained_on: str) -> Examples:
    """Texts and class numbers of every row.

    ``classes`` maps a class name to its number; ``trained_on`` says in the message where the classes come from.
    Raises :class:`DataError` naming the row for a missing column, an empty text or an unknown label.
    """
    texts: list[tuple[str, ...]] = []
    labels = np.empty(len(table), np.int64)
    for row in range(len(table)):
        texts.append(tuple(text_value(table, row, column) for column in columns.text))
        name = _class_name(table, columns, row)
        if name not in classes:
            known = ", ".join(list(classes)[:10])
            raise DataError(
                f"{table.where(row)}: label '{name}' in column '{columns.label}' is not among the classes of "
                f"{trained_on} ({known}); mend the label or add training rows of that class."
            )
        labels[row] = classes[name]
    return Examples(texts, labels)


def change_labels(table: Table, columns: Columns, classes: Mapping[int, str]) -> Table:
    """The table with other classes in some rows, by row number, each written as the file writes that class.

    A class that no row has is written by its number where the table numbers its classes, else by its name.
    """
    spelled: dict[str, Any] = {name: number for number, name in enumerate(table.class_names.get(columns.label, ()))}
    spelled |= {_class_name(table, columns, row): _value(table, row, columns.label) for row in range(len(table))}
    records = list(table.records)
    for row, name in classes.items():
        records[row] = {**records[row], columns.label: spelled.get(name, name)}
    return replace(table, records=records)


def _value(table: Table, row: int, column: str) -> Any:
    record = table.records[row]
    if column not in record:
        raise DataError(f"{table.where(row)}: there is no column '{column}' in this row.")
    return record[column]


def text_value(table: Table, row: int, column: str) -> str:
    """The text in a column of a row. Raises :class:`DataError` naming the row where there is none."""
    value = _value(table, row, column)
    if not isinstance(value, str):
        raise DataError(f"{table.where(row)}: column '{column}' holds {value!r:.40}, not a text.")
    if not value.strip():
        raise DataError(f"{table.where(row)}: the text in column '{column}' is empty; fill it or remove the row.")
    refuse_unusable(table, row, f"the text in column '{column}'", value)
    return value


def refuse_unusable(table: Table, row: int, what: str, text: str, longest: int = LONGEST_TEXT) -> None:
    """Raise :class:`DataError` naming the row where a text is too long, or is none that can be written down."""
    if len(text) > longest:
        raise DataError(f"{table.where(row)}: {what} has {len(text):,} characters; cut it to {longest:,} at most.")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can hold a lone surrogate, which no tokenizer, table or terminal takes
        raise DataError(f"{table.where(row)}: {what} holds half a character; mend it.") from None


def _class_name(table: Table, columns: Columns, row: int) -> str:
    """One name for a class however the file spells it: 1, 1.0, True and ``"1"`` stay what a person would call them."""
    value = _value(table, row, columns.label)
    if (
        value is None
        or (isinstance(value, str) and (not value.strip() or value.strip() in NO_LABEL))
        or (isinstance(value, float) and math.isnan(value))
    ):
        says = f" (it says '{value}'; if that is a class, write it in another way)" if isinstance(value, str) else ""
        raise DataError(f"{table.where(row)}: column '{columns.label}' has no label{says}; fill it or remove the row.")
    if isinstance(value, float):
        if not value.is_integer():
            raise DataError(
                f"{table.where(row)}: label {value} in column '{columns.label}' is a measurement, not a class; "
                "turn the numbers into classes first."
            )
        value = int(value)
    if isinstance(value, (list, dict, bytes)):
        raise DataError(f"{table.where(row)}: column '{columns.label}' holds {value!r:.40}; a row has one label.")
    name = str(value).strip()
    refuse_unusable(table, row, f"the label in column '{columns.label}'", name, LONGEST_LABEL)
    as_float = _WHOLE_AS_FLOAT.fullmatch(name)  # a csv file writes 1 as 1.0 where a label was missing somewhere
    name = as_float[1] if as_float else unicodedata.normalize("NFC", name)
    names = table.class_names.get(columns.label, ())
    as_it_is = not names or (isinstance(value, str) and name in names) or not _WHOLE.fullmatch(name)
    return name if as_it_is else _name_of(table, columns, row, name)


def _name_of(table: Table, columns: Columns, row: int, name: str) -> str:
    """A number as the name that the data set has for it."""
    names = table.class_names[columns.label]
    if name == "-1":
        raise DataError(f"{table.where(row)}: column '{columns.label}' has no label (-1); fill it or remove the row.")
    if not 0 <= int(name) < len(names):
        raise DataError(
            f"{table.where(row)}: label {name} in column '{columns.label}', whose classes are 0 to {len(names) - 1} "
            f"({', '.join(names[:10])}); mend the label."
        )
    return names[int(name)]
