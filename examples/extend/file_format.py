"""A file format of your own: the lines of fastText, ``__label__positive a text``.

    python examples/extend/file_format.py

Registered, files that end in .ft (and .ft.gz) are read as training rows, and cleaned ones are written so.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO, Any

from thresher.errors import DataError
from thresher.extend import FORMATS, Contents, Format, lines_of

PREFIX = "__label__"


def read(path: Path) -> Contents:
    """One row a line; a message names the row and the line, as everywhere."""
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines_of(path), start=1):
        label, _, text = line.rstrip("\n").partition(" ")
        if not label.startswith(PREFIX):
            raise DataError(f"{path}, row {number - 1} (line {number}): a line begins with {PREFIX} and its label.")
        records.append({"label": label.removeprefix(PREFIX), "text": text})
    return Contents(records, ("label", "text"), tuple(range(1, len(records) + 1)))


def write(stream: IO[str], contents: Contents) -> None:
    """The same lines again."""
    stream.writelines(f"{PREFIX}{record['label']} {record['text']}\n" for record in contents.records)


FASTTEXT = Format(read, write)


if __name__ == "__main__":
    from thresher.data.table import read_table, write_table

    FORMATS.register(".ft", FASTTEXT)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.ft"
        file.write_text("__label__good a fine film\n__label__bad a waste of time\n")
        table = read_table(str(file))
        print(table.records)  # noqa: T201
        write_table(table.take([0]), Path(folder) / "kept.ft")
        print((Path(folder) / "kept.ft").read_text(), end="")  # noqa: T201
