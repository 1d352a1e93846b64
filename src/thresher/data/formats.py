"""Files of rows by their ending: JSON lines, JSON arrays, csv, tsv and parquet; text files packed by gzip or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.data.bounds import Bounds
from thresher.errors import DataError, first_line
from thresher.parsing import UnclearError, parse_json
from thresher.registry import Registry

Record = Mapping[str, Any]

PACKED = ".gz"


@dataclass(frozen=True)
class Contents:
    """Rows of a file; ``lines`` on which each starts, none where lines mean nothing; ``schema`` of a parquet file."""

    records: Sequence[Record]
    columns: tuple[str, ...]
    lines: tuple[int, ...] = ()
    schema: pa.Schema | None = None


@dataclass(frozen=True)
class Format:
    """How a file of rows is read and written.

    Attributes:
        read: Gives all rows of a file. Raises :class:`DataError` naming the row, and the line where there is one.
        write: Writes rows: of a ``text`` format to a stream, otherwise to a path.
        text: Lines of text, which may be packed by gzip; :func:`lines_of` reads both.

    Example:
        >>> def read(path):
        ...     return Contents([{"text": line.strip()} for line in lines_of(path)], ("text",))
        >>> def write(stream, contents):
        ...     stream.writelines(f"{record['text']}\\n" for record in contents.records)
        >>> Format(read, write).text
        True
    """

    read: Callable[[Path], Contents]
    write: Callable[[Any, Contents], None]
    text: bool = True


def ending(path: Path) -> str:
    """What a file's name says of its format: ``.csv``, or ``.csv.gz`` for one that is packed, in lower case."""
    suffix = path.suffix.lower()
    return path.with_suffix("").suffix.lower() + suffix if suffix == PACKED else suffix


def read_file(path: Path) -> Contents:
    """All rows of a file. Raises :class:`DataError` naming the row, and the line where there is one."""
    return FORMATS[ending(path).removesuffix(PACKED)].read(path)


def write_file(path: Path, contents: Contents, form: str) -> None:
    """Write rows in the format of an :func:`ending`. Raises :class:`DataError` for what it has no form for."""
    one = FORMATS[form.removesuffix(PACKED)]
    if not one.text:
        one.write(path, contents)
        return
    with _text_to(path, packed=form.endswith(PACKED)) as stream:
        try:
            one.write(stream, contents)
        except UnicodeEncodeError:
            raise DataError(_HALF) from None


def _read_lines(path: Path) -> Contents:
    records: list[Record] = []
    lines: list[int] = []
    for number, line in enumerate(lines_of(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, row {len(records)} (line {number})"
        try:
            value = parse_json(line)
        except UnclearError as error:
            raise DataError(f"{where}: not valid JSON ({error}); mend or remove the line.") from None
        records.append(_row(value, where))
        lines.append(number)
    return Contents(records, _columns(records), tuple(lines))


def _read_json(path: Path) -> Contents:
    """An array of objects; many a file of one object a line is called so too."""
    text = "".join(lines_of(path))
    if not text.lstrip().startswith("["):
        return _read_lines(path)
    try:
        values: list[Any] = parse_json(text)
    except UnclearError as error:
        raise DataError(f"{path}, line {error.line}: not valid JSON ({error}); mend the file.") from None
    records = [_row(value, f"{path}, row {row}") for row, value in enumerate(values)]
    return Contents(records, _columns(records))


def _row(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a row must be a JSON object with one value a column.")
    return cast(dict[str, Any], value)


def _columns(records: Iterable[Record]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for record in records for key in record))


def _read_csv(path: Path, delimiter: str = ",") -> Contents:
    csv.field_size_limit(sys.maxsize)  # a text may be longer than the 128 KiB that the library allows
    reader = csv.reader(lines_of(path), strict=True, delimiter=delimiter)
    records: list[Record] = []
    lines: list[int] = []
    columns: list[str] = []
    started = 1
    try:
        columns = next(reader, [])
        _refuse_twice(path, columns)
        started = reader.line_num + 1
        for values in reader:
            if values and len(values) != len(columns):
                raise DataError(
                    f"{path}, row {len(records)} (line {started}): {len(values)} fields where the header has "
                    f"{len(columns)}; quote texts that hold {_DELIMITERS[delimiter]}."
                )
            if values:
                records.append(dict(zip(columns, values, strict=True)))
                lines.append(started)
            started = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, row {len(records)} (line {started}): not valid CSV ({error}).") from None
    return Contents(records, tuple(columns), tuple(lines))


def _read_tsv(path: Path) -> Contents:
    return _read_csv(path, "\t")


def _read_parquet(path: Path) -> Contents:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            _refuse_twice(path, schema.names)
            bounds = Bounds(path)
            bounds.count(rows=file.metadata.num_rows)

            records: list[Record] = []
            for batch in file.iter_batches(batch_size=_BATCH):
                bounds.count(size=batch.nbytes + _ROW_BYTES * batch.num_rows)
                records += _rows_of(path, batch, len(records))
    except (pa.ArrowException, OSError, ValueError) as error:  # a name in it may be no text
        raise DataError(f"{path}: not a readable parquet file ({first_line(error)}).") from None
    return Contents(records, tuple(schema.names), schema=schema)


def _rows_of(path: Path, batch: pa.RecordBatch, first: int) -> list[Record]:
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError) as error:  # of a value that Python has none for: bytes for text, a far year
        if batch.num_rows == 1:
            raise DataError(f"{path}, row {first}: a value cannot be read ({first_line(error)}); mend it.") from None
        return [one for row in range(batch.num_rows) for one in _rows_of(path, batch.slice(row, 1), first + row)]


def _refuse_twice(path: Path, columns: Sequence[str]) -> None:
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: two columns of the header have the same name; rename one.")


_ROW_BYTES, _BATCH = 300, 1024
"""What a row of parquet takes beside its values at least, and how many are decoded at a time."""


def lines_of(path: Path) -> Iterator[str]:
    """Lines of a text file, packed or not. Raises :class:`DataError` where it cannot be read as UTF-8."""
    try:
        with _bytes_of(path) as stream:
            bounds = Bounds(path)
            longest = bounds.longest_line
            for number, raw in enumerate(iter(lambda: stream.readline(longest), b""), start=1):
                if len(raw) == longest:
                    raise DataError(f"{path}, line {number}: is over {longest:,} bytes long; break it.")
                bounds.count(rows=1, size=len(raw))
                try:
                    yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise DataError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path}: cannot be read ({reason}).") from None


def _bytes_of(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == PACKED else path.open("rb")


@contextmanager
def _text_to(path: Path, *, packed: bool) -> Generator[IO[str]]:
    with path.open("wb") as stream:
        # No name and no time inside: the same rows, the same bytes.
        target: Any = gzip.GzipFile("", "wb", fileobj=stream, mtime=0) if packed else stream
        with io.TextIOWrapper(target, encoding="utf-8", newline="") as text:
            yield text
            text.flush()


def _write_parquet(path: Path, contents: Contents) -> None:
    pq.write_table(_arrow(contents), path)


def _write_lines(stream: IO[str], contents: Contents) -> None:
    stream.writelines(_json(record) + "\n" for record in contents.records)


def _write_json(stream: IO[str], contents: Contents) -> None:
    stream.write("[\n" + ",\n".join(_json(record) for record in contents.records) + "\n]\n")


def _write_csv(stream: IO[str], contents: Contents, delimiter: str = ",") -> None:
    writer = csv.DictWriter(stream, contents.columns, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(contents.records)


def _write_tsv(stream: IO[str], contents: Contents) -> None:
    _write_csv(stream, contents, "\t")


def _json(record: Record) -> str:
    text = json.dumps(dict(record), ensure_ascii=False, default=_as_text)
    return text.encode("utf-8", "backslashreplace").decode()  # half a character, as JSON writes one


def _as_text(value: Any) -> str:
    if isinstance(value, (date, time, Decimal)):
        return str(value)
    raise DataError(f"A value of type {type(value).__name__} has no JSON form; write .parquet instead.")


def _arrow(contents: Contents) -> pa.Table:
    columns = {name: [record.get(name) for record in contents.records] for name in contents.columns}
    try:
        return pa.table(columns, schema=contents.schema)
    except UnicodeEncodeError:
        raise DataError(_HALF) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"a column holds values of several kinds ({reason}); write .jsonl instead.") from None


_HALF = "a column holds half a character; write .jsonl instead."
_DELIMITERS = {",": "commas", "\t": "tabs"}
FORMATS = Registry[Format](
    "file format",
    "thresher.formats",
    {
        ".jsonl": Format(_read_lines, _write_lines),
        ".json": Format(_read_json, _write_json),
        ".csv": Format(_read_csv, _write_csv),
        ".tsv": Format(_read_tsv, _write_tsv),
        ".parquet": Format(_read_parquet, _write_parquet, text=False),
    },
    kind=Format,
    pattern=r"\.[a-z0-9]+",
)
"""By the ending of a file's name, in lower case."""


def endings() -> tuple[str, ...]:
    """Every ending that can be read and written."""
    return (*FORMATS, *(name + PACKED for name, one in FORMATS.items() if one.text))
