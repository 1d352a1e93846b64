"""Rows of a local file or of a hub data set, read and written without changing a value.

Rows are counted from 0 everywhere in Thresher; for text files the messages add the line, counted from 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from thresher.data.formats import FORMATS, Contents, Record, ending, endings, read_file, write_file
from thresher.errors import DataError, first_line
from thresher.files import atomic_write

_METADATA = b"huggingface"

ClassNames = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """Rows as they were given.

    ``lines[i]`` is the line of a text file on which row i starts; empty for other sources. ``schema`` is kept for
    parquet, so that writing rows back gives the same types. ``class_names`` has for a column of numbers the names
    that they stand for, in their order, where the source knows them (the ``ClassLabel`` of a data set).
    """

    source: str
    records: Sequence[Record]
    columns: tuple[str, ...]
    lines: tuple[int, ...] = ()
    schema: pa.Schema | None = None
    class_names: ClassNames = field(default_factory=dict[str, tuple[str, ...]])

    def __len__(self) -> int:
        return len(self.records)

    def where(self, row: int) -> str:
        """``train.jsonl, row 17 (line 18)``: how a message names a row."""
        line = f" (line {self.lines[row]})" if self.lines else ""
        return f"{self.source}, row {row}{line}"

    def take(self, rows: Iterable[int]) -> Table:
        """The named rows, in the order given."""
        kept = list(rows)
        lines = tuple(self.lines[i] for i in kept) if self.lines else ()
        return Table(self.source, [self.records[i] for i in kept], self.columns, lines, self.schema, self.class_names)


def read_table(source: str, split: str = "train") -> Table:
    """Read a file of rows, a data set folder, or a hub id ``NAME[:CONFIG[:SPLIT]]``.

    Files are .jsonl, .json, .csv, .tsv (each also with .gz) and .parquet; a folder holds such files as the hub lays
    them out, or is one that ``datasets`` saved with ``save_to_disk``. ``split`` is used for folders and hub ids that do
    not name one. Raises :class:`DataError` naming the file, and the row where one can be named.
    """
    path = Path(source)
    if path.is_dir():
        table = _read_folder(source, split)
    elif ending(path) in endings():
        if not path.is_file():
            raise DataError(f"{source}: there is no such file; give a {_formats()} file or a hub id.")
        table = _of_file(source, read_file(path))
    elif path.is_file():
        raise DataError(f"{source}: cannot tell the format from '{ending(path)}'; use {_formats()}.")
    else:
        table = _read_hub(source, split)
    if len(table) == 0:
        raise DataError(f"{source}: the file has no rows; give at least one.")
    return table


def write_table(table: Table, target: Path) -> None:
    """Write all rows and columns, in their order, in the format that the ending of ``target`` names."""
    form = ending(target)
    if form not in endings():
        raise DataError(f"{target}: cannot write '{form}'; name a {_formats()} file.")
    with atomic_write(target) as temporary:
        try:
            write_file(temporary, Contents(table.records, table.columns, schema=table.schema), form)
        except DataError as error:
            raise DataError(f"{target}: {error}") from None


def _formats() -> str:
    return f"{', '.join(FORMATS)} (text files also .gz)"


def fingerprint(table: Table) -> str:
    """Hash of the rows' content: equal tables, equal fingerprints, wherever they were read from."""
    digest = hashlib.sha256()
    for record in table.records:
        digest.update(json.dumps(dict(record), sort_keys=True, default=str).encode())
    if table.class_names:
        digest.update(json.dumps(table.class_names, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _of_file(source: str, read: Contents) -> Table:
    return Table(source, read.records, read.columns, read.lines, read.schema, _names_in_schema(read.schema))


def _names_in_schema(schema: pa.Schema | None) -> ClassNames:
    """Names of classes as ``datasets`` keeps them in a parquet file's metadata."""
    if schema is None or not schema.metadata or _METADATA not in schema.metadata:
        return {}
    try:
        features: Any = json.loads(schema.metadata[_METADATA])["info"]["features"]
        return {
            name: tuple(str(one) for one in about["names"])
            for name, about in features.items()
            if isinstance(about, dict) and cast(dict[str, Any], about).get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):  # metadata of another shape tells nothing
        return {}


def _read_folder(source: str, split: str) -> Table:
    """A folder of data files, or one that ``save_to_disk`` wrote: one data set, or several by split."""
    folder = Path(source)
    if not ((folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()):
        return _load(source, source, None, split)
    from datasets import Dataset, load_from_disk

    try:
        saved = load_from_disk(source)
    except Exception as error:  # the library raises many kinds
        raise DataError(f"{source}: cannot be read as a saved data set ({first_line(error)}).") from None
    if isinstance(saved, Dataset):
        return _of_dataset(source, saved)
    if split not in saved:
        raise DataError(
            f"{source}: there is no split '{split}' in this folder, only {', '.join(map(str, saved))}; "
            "name the folder of the split."
        )
    return _of_dataset(source, saved[split])


def _read_hub(source: str, split: str) -> Table:
    name, *rest = source.split(":")
    config = rest[0] if rest and rest[0] else None
    return _load(source, name, config, rest[1] if len(rest) > 1 else split)


def _load(source: str, name: str, config: str | None, split: str) -> Table:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, config, split=split)
    except Exception as error:  # the library raises many kinds, from network to parsing
        raise DataError(
            f"{source}: neither a local file nor a data set that can be loaded with split '{split}' "
            f"({first_line(error)})"
        ) from None
    return _of_dataset(source, rows)


def _of_dataset(source: str, rows: Any) -> Table:
    from datasets import ClassLabel

    names = {name: tuple(about.names) for name, about in rows.features.items() if isinstance(about, ClassLabel)}
    return Table(source, rows.to_list(), tuple(rows.column_names), class_names=names)
