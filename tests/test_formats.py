"""Files of every format: what is written is read back, and what people have is read as what it is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from thresher.data.examples import change_labels, find_classes, find_columns, read_examples
from thresher.data.formats import endings
from thresher.data.formulas import guard_cells
from thresher.data.table import Table, fingerprint, read_table, write_table
from thresher.errors import DataError

ROWS = [{"text": 'a "quoted", word\tand\nlines', "label": "neg"}, {"text": "ü <b>[bold]</b>", "label": "pos"}]
NAMES = ["entailment", "neutral", "contradiction"]


def table(rows: list[dict[str, Any]], **more: Any) -> Table:
    return Table("train", rows, tuple(rows[0]), **more)


@pytest.mark.parametrize("ending", [*endings(), ".CSV", ".Jsonl", ".TSV.GZ"])
def test_what_is_written_is_read_back(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"rows{ending}"
    write_table(table(ROWS), file)
    read = read_table(str(file))
    assert (read.records, read.columns) == (ROWS, ("text", "label"))
    if ending.lower().endswith(".gz"):
        assert gzip.decompress(file.read_bytes())
        again = tmp_path / f"again{ending}"
        write_table(read, again)
        assert again.read_bytes() == file.read_bytes()


def test_a_json_file_is_an_array_or_an_object_a_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(ROWS, indent=2))
    assert read_table(str(file)).records == ROWS
    file.write_text("\n".join(map(json.dumps, ROWS)))
    assert read_table(str(file)).records == ROWS
    file.write_text("[1, 2]")
    with pytest.raises(DataError, match=r"rows\.json, row 0: a row must be a JSON object"):
        read_table(str(file))
    file.write_text('[{"text": "a"},\n{"text": }]')
    with pytest.raises(DataError, match=r"rows\.json, line 2: not valid JSON"):
        read_table(str(file))


def test_a_field_of_any_length_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    write_table(table([{"text": "long " * 100_000, "label": "a"}]), file)
    assert len(read_table(str(file)).records[0]["text"]) == 500_000


def test_a_broken_packed_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-12])
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz: cannot be read"):
        read_table(str(file))
    file.write_bytes(b"plain")
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz: cannot be read"):
        read_table(str(file))
    with pytest.raises(DataError, match=r"cannot write '\.xlsx'"):
        write_table(table(ROWS), tmp_path / "rows.xlsx")


def saved_rows() -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_list([{"text": f"row {i}", "label": i % 3} for i in range(6)], features=features)


@pytest.mark.parametrize("form", ["saved", "saved by split", "parquet", "folder of parquet"])
def test_names_of_classes_come_with_the_rows(tmp_path: Path, form: str) -> None:
    rows, source = saved_rows(), tmp_path / "data"
    if form == "saved":
        rows.save_to_disk(source)
    elif form == "saved by split":
        datasets.DatasetDict({"train": rows, "test": rows.select(range(2))}).save_to_disk(source)
    else:
        rows.to_parquet(source / "train.parquet")
        source = source / "train.parquet" if form == "parquet" else source
    read = read_table(str(source))
    columns = find_columns(read, (), None)
    assert read.class_names == {"label": tuple(NAMES)}
    assert find_classes(read, columns) == tuple(NAMES)
    found = read_examples(read, columns, {name: place for place, name in enumerate(NAMES)}, trained_on="them")
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    mended = change_labels(read, columns, {0: "contradiction"})
    assert [record["label"] for record in mended.records] == [2, 1, 2, 0, 1, 2]
    write_table(mended, tmp_path / "cleaned.parquet")
    if form == "parquet":
        assert read_table(str(tmp_path / "cleaned.parquet")).class_names == read.class_names
    if form == "saved by split":
        assert len(read_table(str(source), "test")) == 2
        with pytest.raises(DataError, match="there is no split 'validation' in this folder, only train, test"):
            read_table(str(source), "validation")


def test_other_names_are_other_rows() -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    one, other = (table(rows, class_names={"label": names}) for names in (("x", "y"), ("y", "x")))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(table(rows)) == fingerprint(Table("elsewhere", rows, ("text", "label")))


@pytest.mark.parametrize(("label", "message"), [(-1, r"has no label \(-1\)"), (3, "whose classes are 0 to 2")])
def test_a_number_without_a_name_is_refused(label: int, message: str) -> None:
    rows = table([{"text": "a", "label": 0}, {"text": "b", "label": label}], class_names={"label": tuple(NAMES)})
    with pytest.raises(DataError, match=f"row 1.*{message}"):
        find_classes(rows, find_columns(rows, (), None))


def test_names_that_are_numbers_themselves_are_counted_from_zero() -> None:
    rows = table([{"text": "a", "label": i} for i in (0, 1, 2)] * 2, class_names={"label": ("1", "2", "3")})
    assert find_classes(rows, find_columns(rows, (), None)) == ("1", "2", "3")


@pytest.mark.parametrize("value", ["=1", "+a", "-a", "@a", "\t=1", "\ra", "-2+3+cmd|' /C calc'!A0", "=", "-1\n"])
def test_formulas_are_told_from_numbers_and_text(value: str) -> None:
    table = Table("x", [{"a": value, "@b": 3}, {"a": None, "@b": "plain = text"}], ("a", "@b"))
    safe, count = guard_cells(table)
    assert safe.columns == ("a", "'@b")
    assert safe.records == [{"a": f"'{value}", "'@b": 3}, {"a": None, "'@b": "plain = text"}]
    assert count == 2


@pytest.mark.parametrize("value", ["-5", "+1.5e-3", "-.5", "-5.", "a=1", "", " =1", "'=1", 5, -5, None, [1]])
def test_what_is_no_formula_is_left(value: Any) -> None:
    table = Table("x", [{"a": value}], ("a",))
    assert guard_cells(table) == (table, 0)


def test_half_a_character_beside_the_text_is_written_as_json_writes_it(tmp_path: Path) -> None:
    table = Table("x", [{"text": "a", "note": "\ud800 é"}], ("text", "note"))
    for suffix in ("jsonl", "json", "jsonl.gz"):
        write_table(table, tmp_path / f"rows.{suffix}")
        assert read_table(str(tmp_path / f"rows.{suffix}")).records == table.records
    for suffix in ("csv", "tsv.gz", "parquet"):
        with pytest.raises(DataError, match=r"half a character; write \.jsonl instead"):
            write_table(table, tmp_path / f"rows.{suffix}")
