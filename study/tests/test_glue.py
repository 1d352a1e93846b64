"""GLUE tasks: official columns, binary labels, and parts that are stratified, disjoint and fixed by the seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folders import write_rows
from thresher.data.examples import find_columns
from thresher.data.table import Table
from thresher.errors import DataError
from thresher_study.glue import GLUE, GlueRows, glue_rows, stratified

COLUMNS = {
    "qnli": ("question", "sentence"),
    "mrpc": ("sentence1", "sentence2"),
    "sst2": ("sentence",),
    "qqp": ("question1", "question2"),
    "cola": ("sentence",),
    "mnli": ("premise", "hypothesis"),
    "rte": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
}
VALUES: dict[str, list[Any]] = {"mnli": [0, 1, 2], "stsb": [0.0, 1.4, 2.999, 3.0, 3.8, 5.0]}


def official(task: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of the official layout; ``idx`` is the place in the file."""
    rng = np.random.default_rng(seed)
    values = VALUES.get(task, [0, 1, 1])
    texts = COLUMNS[task]
    return [
        {**{name: f"{name} {seed} {i}" for name in texts}, "label": values[rng.integers(len(values))], "idx": i}
        for i in range(count)
    ]


def glue_folder(path: Path, train: int = 90, clean: int = 61) -> Path:
    """A folder of all eight tasks."""
    for task in COLUMNS:
        validation = "validation_matched" if task == "mnli" else "validation"
        write_rows(path / task / "train.jsonl", official(task, train, 1))
        write_rows(path / task / f"{validation}.jsonl", official(task, clean, 2))
    return path


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glue_folder(tmp_path_factory.mktemp("glue"))


def binary(task: str, label: float) -> int | None:
    """method.md 6, once more."""
    if task == "stsb":
        return 0 if label < 3 else 1
    return None if task == "mnli" and label == 2 else int(label)


def indices(table: Table) -> list[int]:
    return [record["idx"] for record in table.records]


def parts(rows: GlueRows) -> list[list[int]]:
    return [indices(table) for table in (rows.train, rows.query, rows.test)]


@pytest.mark.parametrize("task", list(COLUMNS))
def test_rows_are_official_ones_with_a_binary_label(glue: Path, task: str) -> None:
    rows = glue_rows(task, glue, 40, 30, seed=3)
    for table, count, seed in ((rows.train, 90, 1), (rows.query, 61, 2), (rows.test, 61, 2)):
        before = official(task, count, seed)
        assert table.columns == (*COLUMNS[task], "label", "idx")
        for record in table.records:
            row = before[record["idx"]]
            assert record == {**row, "label": binary(task, row["label"])}
            assert type(record["label"]) is int
        assert find_columns(table, GLUE[task].text, "label").text == COLUMNS[task]
        assert table.where(0).endswith(f"(line {table.records[0]['idx'] + 1})")


@pytest.mark.parametrize("task", list(COLUMNS))
def test_parts_are_stratified_disjoint_and_as_many_as_asked(glue: Path, task: str) -> None:
    rows = glue_rows(task, glue, 40, 31, seed=3)
    assert (len(rows.train), len(rows.query), len(rows.test)) == (40, 15, 16)
    assert not set(indices(rows.query)) & set(indices(rows.test))
    for table, count, seed in ((rows.train, 90, 1), (rows.query, 61, 2), (rows.test, 61, 2)):
        labels = [binary(task, row["label"]) for row in official(task, count, seed)]
        known = [label for label in labels if label is not None]
        assert len(set(indices(table))) == len(table)
        found = Counter(record["label"] for record in table.records)
        for label in (0, 1):
            # Clean rows are rounded twice: in the subset, and in its halves.
            slack = 1 if table is rows.train else 1.5
            assert abs(found[label] - known.count(label) * len(table) / len(known)) <= slack


def test_a_small_validation_split_is_shared_whole(tmp_path: Path) -> None:
    """rte has 277 rows: all are used, none twice."""
    rows = glue_rows("rte", glue_folder(tmp_path, clean=277), 4500, 1000, seed=0)
    assert len(rows.train) == 90
    assert (len(rows.query), len(rows.test)) == (138, 139)
    assert sorted(indices(rows.query) + indices(rows.test)) == list(range(277))


def test_the_seed_fixes_every_part(glue: Path) -> None:
    for task in COLUMNS:
        first, again, other = (parts(glue_rows(task, glue, 30, 20, seed=seed)) for seed in (0, 0, 1))
        assert first == again
        assert all(a != b for a, b in zip(first, other, strict=True))
        assert parts(glue_rows(task, glue, 50, 20, seed=0))[1:] == first[1:]
        assert all(part == sorted(part) for part in first)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 90), st.integers(0, 5))
def test_a_stratified_subset_has_every_class_within_one_row_of_its_share(
    classes: list[int], count: int, seed: int
) -> None:
    labels = np.array(classes)
    rows = stratified(labels, count, np.random.default_rng(seed))
    assert len(rows) == len(set(rows.tolist())) == min(count, len(labels))
    for label in set(classes):
        assert abs((labels[rows] == label).sum() - classes.count(label) * len(rows) / len(labels)) < 1


def test_every_row_of_a_class_is_drawn_equally_often() -> None:
    labels = np.repeat([0, 1], [6, 18])
    drawn = Counter(row for seed in range(3000) for row in stratified(labels, 8, np.random.default_rng(seed)).tolist())
    assert all(abs(drawn[row] - 1000) < 5 * np.sqrt(3000 * 2 / 9) for row in range(24))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_other_formats_give_the_same_rows(glue: Path, tmp_path: Path, suffix: str) -> None:
    for task in ("mnli", "stsb", "sst2"):
        for name, count, seed in (("train", 90, 1), (GLUE[task].validation, 61, 2)):
            (tmp_path / task).mkdir(exist_ok=True)
            frame = pd.DataFrame(official(task, count, seed))
            if suffix == "csv":
                frame.to_csv(tmp_path / task / f"{name}.csv", index=False)
            else:
                frame.to_parquet(tmp_path / task / f"{name}.parquet")
        here, there = (glue_rows(task, source, 30, 20, seed=4) for source in (tmp_path, str(glue)))
        for table, expected in zip(
            (here.train, here.query, here.test), (there.train, there.query, there.test), strict=True
        ):
            assert [{**r, "idx": int(r["idx"])} for r in table.records] == list(expected.records)


def test_without_a_folder_the_hub_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes a folder of the data set's name for the data set: a copy of the hub's layout, no network."""
    hub = tmp_path / "nyu-mll" / "glue"
    configs = ["---", "configs:"]
    for task in ("mnli", "cola"):
        (hub / task).mkdir(parents=True)
        configs += [f"- config_name: {task}", "  data_files:"]
        for split, count, seed in (("train", 90, 1), (GLUE[task].validation, 61, 2)):
            pd.DataFrame(official(task, count, seed)).to_parquet(hub / task / f"{split}-00000-of-00001.parquet")
            configs += [f"  - split: {split}", f"    path: {task}/{split}-*"]
    (hub / "README.md").write_text("\n".join([*configs, "---", ""]))
    local = glue_folder(tmp_path / "local")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    for task in ("mnli", "cola"):
        assert parts(glue_rows(task, None, 30, 20, seed=2)) == parts(glue_rows(task, local, 30, 20, seed=2))


def test_rows_with_an_empty_text_are_left_out(tmp_path: Path) -> None:
    folder = glue_folder(tmp_path)
    rows = official("qqp", 90, 1)
    rows[17]["question2"] = " "
    write_rows(folder / "qqp" / "train.jsonl", rows)
    assert indices(glue_rows("qqp", folder, 100, 20, seed=0).train) == [i for i in range(90) if i != 17]


BAD: list[tuple[str, dict[str, Any] | None, str]] = [
    ("sst2", {"label": -1}, r"train.jsonl, row 5 \(line 6\): the row has no label \(-1\)"),
    ("stsb", {"label": -1.0}, r"row 5 \(line 6\): the row has no label \(-1\)"),
    ("rte", {"label": 2}, r"row 5 \(line 6\): 2 is no label of rte"),
    ("mnli", {"label": "neutral"}, r"row 5 \(line 6\): 'neutral' is no label of mnli"),
    ("stsb", {"label": 7.5}, r"row 5 \(line 6\): 7.5 is no label of stsb"),
    ("cola", {"label": None}, r"row 5 \(line 6\): None is no label of cola"),
    ("qnli", {"question": None}, r"row 5 \(line 6\): column 'question' holds None, not a text"),
    ("wnli", None, r"no task 'wnli' here; there is qnli, mrpc"),
]


@pytest.mark.parametrize(("task", "change", "message"), BAD, ids=[task for task, _, _ in BAD])
def test_what_is_wrong_with_a_row_is_said_with_its_place(
    tmp_path: Path, task: str, change: dict[str, Any] | None, message: str
) -> None:
    if change is not None:
        rows = official(task, 9, 1)
        rows[5] |= change
        write_rows(tmp_path / task / "train.jsonl", rows)
    with pytest.raises(DataError, match=message):
        glue_rows(task, tmp_path, 8, 8, seed=0)


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"mnli.train\.jsonl: there is no such file, nor one in \.json, \.csv, \.tsv, \.parquet"
    ):
        glue_rows("mnli", tmp_path, 8, 8, seed=0)
    write_rows(tmp_path / "mnli" / "train.jsonl", official("mnli", 20, 1))
    with pytest.raises(DataError, match=r"validation_matched\.jsonl: there is no such file"):
        glue_rows("mnli", tmp_path, 8, 8, seed=0)
    write_rows(tmp_path / "rte" / "train.jsonl", [{"sentence1": "a", "label": 0, "idx": 0}] * 3)
    with pytest.raises(DataError, match=r"no column 'sentence2', which rte has; the file has: sentence1, label, idx"):
        glue_rows("rte", tmp_path, 8, 8, seed=0)
    write_rows(tmp_path / "mnli" / "train.jsonl", [row | {"label": 2} for row in official("mnli", 20, 1)])
    with pytest.raises(DataError, match="0 rows of mnli can be used"):
        glue_rows("mnli", tmp_path, 8, 8, seed=0)
    with pytest.raises(DataError, match="ask for two each or more"):
        glue_rows("mnli", tmp_path, 0, 8, seed=0)
