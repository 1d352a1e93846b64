"""Reading, writing and understanding rows; every mistake is one sentence that names the row."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from thresher.data.encode import EncodedRows, length_batches
from thresher.data.examples import Columns, change_labels, find_classes, find_columns, read_examples
from thresher.data.packaged import critic_quotes, packaged_model
from thresher.data.table import Table, fingerprint, read_table, write_table
from thresher.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"text": "good, very good", "label": 1, "id": None},
    {"text": 'a "quoted"\nline', "label": 0, "id": 7},
    {"text": "naïve ☂", "label": 1, "id": 9},
]


def table(rows: list[dict[str, Any]]) -> Table:
    return Table("rows", rows, tuple(rows[0]))


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_come_back_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"rows{suffix}"
    write_table(table(ROWS), target)
    found = read_table(str(target))
    assert [dict(record) for record in found.records] == ROWS
    assert found.columns == ("text", "label", "id")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_columns_that_only_some_rows_have_are_kept(tmp_path: Path) -> None:
    rows = Table("rows", [{"text": "a"}, {"text": "b", "when": datetime(2020, 1, 2)}], ("text", "when"))
    write_table(rows, tmp_path / "rows.parquet")
    assert read_table(str(tmp_path / "rows.parquet")).records[1]["when"] == datetime(2020, 1, 2)
    write_table(rows, tmp_path / "rows.jsonl")
    assert read_table(str(tmp_path / "rows.jsonl")).records[1]["when"] == "2020-01-02 00:00:00"
    with pytest.raises(DataError, match="values of several kinds"):
        write_table(Table("rows", [{"text": "a"}, {"text": 1}], ("text",)), tmp_path / "mixed.parquet")
    with pytest.raises(DataError, match=r"write \.parquet instead"):
        write_table(Table("rows", [{"text": b"a"}], ("text",)), tmp_path / "bytes.jsonl")
    assert not (tmp_path / "mixed.parquet").exists()


def test_csv_rows_come_back_as_text(tmp_path: Path) -> None:
    write_table(table(ROWS), tmp_path / "rows.csv")
    found = read_table(str(tmp_path / "rows.csv"))
    assert [record["text"] for record in found.records] == [row["text"] for row in ROWS]
    assert [record["label"] for record in found.records] == ["1", "0", "1"]
    assert found.where(2).endswith("rows.csv, row 2 (line 5)")  # the text of row 1 takes two lines
    write_table(found, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"text": ["a", "b"], "label": np.array([1, 0], np.int8), "when": pd.to_datetime(["2020", "2021"])}
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    write_table(read_table(str(tmp_path / "rows.parquet")).take([1]), tmp_path / "less.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "less.parquet"), frame.iloc[[1]].reset_index(drop=True))


def test_a_folder_laid_out_like_a_hub_data_set_is_read(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        jsonl(tmp_path / f"{split}.jsonl", [{"sentence": f"from {split}", "label": i} for i in range(2)])
    datasets.disable_progress_bars()
    assert read_table(str(tmp_path), "validation").records[0]["sentence"] == "from validation"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", '{"text": "a", "label": 1}\n\n{"text": \n', r"rows.jsonl, row 1 \(line 3\): not valid JSON"),
        ("rows.jsonl", "[1, 2]\n", r"row 0 \(line 1\).*JSON object"),
        ("rows.csv", "text,label\na,1\nb,c,0\n", r"rows.csv, row 1 \(line 3\): 3 fields where the header has 2"),
        ("rows.csv", "text,label\n", "no rows"),
        ("rows.csv", "text,text,label\na,b,1\n", "two columns of the header have the same name"),
        ("rows.jsonl", b'{"text": "\xff"}\n', "line 1: not UTF-8"),
        ("rows.parquet", "nothing", "not a readable parquet file"),
        ("rows.txt", "a", "cannot tell the format"),
        ("rows.jsonl", None, "no such file"),
    ],
)
def test_unreadable_files_are_named_with_the_row(
    tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_table(str(tmp_path / name))


def test_columns_are_found_by_their_usual_names() -> None:
    pair = table([{"idx": 0, "sentence1": "a", "sentence2": "b", "label": 1}])
    assert find_columns(pair, (), None) == Columns(("sentence1", "sentence2"), "label")
    assert find_columns(pair, ("sentence2",), "idx") == Columns(("sentence2",), "idx")
    with pytest.raises(DataError, match="no column 'body'; the file has: idx, sentence1"):
        find_columns(pair, ("body",), None)
    with pytest.raises(DataError, match="--text-column"):
        find_columns(table([{"body": "a", "label": 1}]), (), None)
    with pytest.raises(DataError, match="--label-column"):
        find_columns(table([{"text": "a", "y": 1}]), (), None)


def test_classes_keep_the_names_of_the_file() -> None:
    def classes(labels: list[Any]) -> tuple[str, ...]:
        return find_classes(table([{"text": "a", "label": label} for label in labels]), Columns(("text",), "label"))

    assert classes([10, 9, 9, 10]) == ("9", "10")
    assert classes([1.0, 0.0, 1.0]) == ("0", "1")
    assert classes(["spam", "ham ", "spam"]) == ("ham", "spam")
    assert classes(["10.0", "2.0", "2.0"]) == ("2", "10")
    assert classes(["--1", "²", "²"]) == ("--1", "²")
    assert classes([True, False]) == ("False", "True")
    for labels, message in [
        ([1, 1, 1], "every row has the label '1'"),
        ([1, " "], r"row 1: column 'label' has no label"),
        ([1, None], r"row 1: column 'label' has no label"),
        ([0.5, 1], "measurement"),
        ([[1], [0]], "one label"),
        (list(range(50)), "50 different values"),
    ]:
        with pytest.raises(DataError, match=message):
            classes(labels)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "  ", "label": 1}, "row 1: the text in column 'text' is empty"),
        ({"text": "a\ud83d", "label": 1}, "row 1: the text in column 'text' holds half a character"),
        ({"text": "a", "label": "b\ud83d"}, "row 1: the label in column 'label' holds half a character"),
        ({"text": None, "label": 1}, "row 1: column 'text' holds None, not a text"),
        ({"text": "a", "label": 5}, r"row 1: label '5' .* not among the classes of the training rows \(0, 1\)"),
        ({"label": 1}, "row 1: there is no column 'text'"),
    ],
)
def test_rows_that_cannot_be_used_are_named(row: dict[str, Any], message: str) -> None:
    rows = Table("rows", [{"text": "a", "label": 0}, row], ("text", "label"))
    with pytest.raises(DataError, match=message):
        read_examples(rows, Columns(("text",), "label"), {"0": 0, "1": 1}, trained_on="the training rows")


def test_other_labels_are_written_as_the_file_writes_them(tmp_path: Path) -> None:
    columns = Columns(("text",), "label")
    rows = [{"text": "a", "label": 1.0, "id": 3}, {"label": 0.0, "text": "b"}, {"text": "c", "label": 0.0}]
    found = change_labels(table(rows), columns, {0: "0", 2: "1", 1: "2"})
    assert [record["label"] for record in found.records] == [0.0, "2", 1.0]  # no row says how the class 2 is written
    assert list(found.records[0].items()) == [("text", "a"), ("label", 0.0), ("id", 3)]
    assert list(found.records[1]) == ["label", "text"]
    assert [record["label"] for record in rows] == [1.0, 0.0, 0.0]
    names = change_labels(table([{"text": "a", "label": " spam"}, {"text": "b", "label": "ham "}]), columns, {0: "ham"})
    assert [record["label"] for record in names.records] == ["ham ", "ham "]
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": np.array([1, 0, 0], np.int8)})
    frame.to_parquet(tmp_path / "rows.parquet")
    write_table(change_labels(read_table(str(tmp_path / "rows.parquet")), columns, {1: "1"}), tmp_path / "new.parquet")
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "new.parquet"), frame.assign(label=np.array([1, 1, 0], np.int8))
    )
    jsonl(tmp_path / "rows.jsonl", ["", {"text": "a", "label": 0}, {"text": "b", "label": 1}])
    read = read_table(str(tmp_path / "rows.jsonl"))
    assert change_labels(read, columns, {0: "1"}).where(1) == read.where(1)


@pytest.mark.parametrize("generates", [False, True])
def test_joined_rows_are_the_ones_and_then_the_others(generates: bool) -> None:
    def rows(count: int, start: int) -> EncodedRows:
        ids = [torch.arange(start, start + 2 + place) for place in range(count)]
        types = [torch.zeros_like(row) for row in ids]
        labels = ids if generates else torch.arange(start, start + count)
        return EncodedRows({"input_ids": ids, "token_type_ids": types}, labels, "sum")

    ours, theirs = rows(3, 5), rows(2, 50)
    both = ours.joined(theirs)
    assert (len(both), both.row_loss, set(both.features)) == (5, "sum", set(ours.features))
    assert both.lengths.tolist() == [2, 3, 4, 2, 3]
    for part, places in ((ours, np.arange(3)), (theirs, np.arange(3, 5))):
        again = both.take(places)
        assert all(torch.equal(a, b) for a, b in zip(again.labels, part.labels, strict=True))
        for name in part.features:
            assert all(torch.equal(a, b) for a, b in zip(again.features[name], part.features[name], strict=True))
    assert both.classes.tolist() == ([0] * 5 if generates else [5, 6, 7, 50, 51])


def test_batches_hold_every_row_once_and_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 101)
    batches = length_batches(lengths, 8)
    assert sorted(np.concatenate(batches)) == list(range(101))
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()


def test_equal_rows_have_equal_fingerprints() -> None:
    assert fingerprint(table(ROWS)) == fingerprint(Table("elsewhere", list(ROWS), ("text", "label", "id"), (1, 2, 4)))
    assert fingerprint(table(ROWS)) != fingerprint(table(ROWS[::-1]))


def test_packaged_quotes_are_split_by_film() -> None:
    quotes = critic_quotes(300, 60, 60, seed=0)
    films = [{record["movie"] for record in part.records} for part in (quotes.train, quotes.validation, quotes.test)]
    assert [len(part) for part in (quotes.train, quotes.validation, quotes.test)] == [300, 60, 60]
    assert not films[0] & films[1] and not films[0] & films[2] and not films[1] & films[2]
    assert {record["label"] for record in quotes.train.records} == {"fresh", "rotten"}
    assert fingerprint(critic_quotes(300, 60, 60, seed=0).train) == fingerprint(quotes.train)
    assert fingerprint(critic_quotes(300, 60, 60, seed=1).train) != fingerprint(quotes.train)
    assert (packaged_model() / "model.safetensors").is_file()
