"""Rows of a local file or of a hub data set, read and written without changing a value.

Rows are counted from 0 everywhere in Thresher; for text files the messages add the line, counted from 1.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.errors import DataError
from thresher.files import written

SUFFIXES = (".jsonl", ".csv", ".parquet")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows as they were given.

    ``lines[i]`` is the line of a text file on which row i starts; empty for other sources. ``schema`` is kept for
    parquet, so that writing rows back gives the same types.
    """

    source: str
    records: Sequence[Record]
    columns: tuple[str, ...]
    lines: tuple[int, ...] = ()
    schema: pa.Schema | None = None

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
        return Table(self.source, [self.records[i] for i in kept], self.columns, lines, self.schema)


def read_table(source: str, split: str = "train") -> Table:
    """Read a ``.jsonl``, ``.csv`` or ``.parquet`` file, a data set folder, or a hub id ``NAME[:CONFIG[:SPLIT]]``.

    ``split`` is used for folders and hub ids that do not name one. Raises :class:`DataError` naming the file, and the
    row where one can be named.
    """
    path = Path(source)
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise DataError(f"{source}: there is no such file; give a .jsonl, .csv or .parquet file or a hub id.")
        reader = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}[path.suffix]
        table = reader(path)
    elif path.is_file():
        raise DataError(f"{source}: cannot tell the format from '{path.suffix}'; use {', '.join(SUFFIXES)}.")
    else:
        table = _read_dataset(source, split)
    if len(table) == 0:
        raise DataError(f"{source}: the file has no rows; give at least one.")
    return table


def write_table(table: Table, target: Path) -> None:
    """Write all rows and columns, in their order, in the format that the suffix of ``target`` names."""
    if target.suffix not in SUFFIXES:
        raise DataError(f"{target}: cannot write '{target.suffix}'; name a {', '.join(SUFFIXES)} file.")
    with written(target) as temporary:
        if target.suffix == ".parquet":
            pq.write_table(_arrow(table, target), temporary)
        elif target.suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, table.columns)
                writer.writeheader()
                writer.writerows(table.records)
        else:
            with temporary.open("w", encoding="utf-8") as stream:
                lines = (json.dumps(dict(r), ensure_ascii=False, default=_as_text) for r in table.records)
                stream.writelines(line + "\n" for line in lines)


def _arrow(table: Table, target: Path) -> pa.Table:
    columns = {name: [record.get(name) for record in table.records] for name in table.columns}
    try:
        return pa.table(columns, schema=table.schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{target}: a column holds values of several kinds ({reason}); write .jsonl instead.") from None


def _as_text(value: Any) -> str:
    if isinstance(value, (date, time, Decimal)):
        return str(value)
    raise DataError(f"A value of type {type(value).__name__} has no JSON form; write .parquet instead.")


def fingerprint(table: Table) -> str:
    """Hash of the rows' content: equal tables, equal fingerprints, wherever they were read from."""
    digest = hashlib.sha256()
    for record in table.records:
        digest.update(json.dumps(dict(record), sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def _read_jsonl(path: Path) -> Table:
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(_text_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, row {len(records)} (line {number})"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not valid JSON ({error.msg}); mend or remove the line.") from None
        if not isinstance(record, dict):
            raise DataError(f"{where}: a row must be a JSON object with one value a column.")
        records.append(cast(dict[str, Any], record))
        lines.append(number)
    columns = tuple(dict.fromkeys(key for record in records for key in record))
    return Table(str(path), records, columns, tuple(lines))


def _read_csv(path: Path) -> Table:
    reader = csv.reader(_text_lines(path), strict=True)
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    columns: list[str] = []
    started = 1
    try:
        columns = next(reader, [])
        if len(set(columns)) < len(columns):
            raise DataError(f"{path}: two columns of the header have the same name; rename one.")
        started = reader.line_num + 1
        for values in reader:
            if values and len(values) != len(columns):
                raise DataError(
                    f"{path}, row {len(records)} (line {started}): {len(values)} fields where the header has "
                    f"{len(columns)}; quote texts that hold commas."
                )
            if values:
                records.append(dict(zip(columns, values, strict=True)))
                lines.append(started)
            started = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, row {len(records)} (line {started}): not valid CSV ({error}).") from None
    return Table(str(path), records, tuple(columns), tuple(lines))


def _text_lines(path: Path) -> Iterable[str]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    with stream:
        for number, raw in enumerate(stream, start=1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise DataError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8.") from None


def _read_parquet(path: Path) -> Table:
    try:
        arrow = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]}).") from None
    return Table(str(path), arrow.to_pylist(), tuple(arrow.column_names), schema=arrow.schema)


def _read_dataset(source: str, split: str) -> Table:
    from datasets import load_dataset

    is_folder = Path(source).is_dir()
    name, *rest = [source] if is_folder else source.split(":")
    config = rest[0] if rest and rest[0] else None
    split = rest[1] if len(rest) > 1 else split
    try:
        rows = load_dataset(name, config, split=split)
    except Exception as error:  # the library raises many kinds, from network to parsing
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{source}: neither a local file nor a data set that can be loaded with split '{split}' ({reason})"
        ) from None
    return Table(source, rows.to_list(), tuple(rows.column_names))
