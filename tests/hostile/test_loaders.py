"""No loader ends in a traceback, whatever bytes it is given: it reads them, or says in a sentence why it does not.

``THRESHER_FUZZ`` says how many cases there are in all: few unless it is set, 100,000 in what CI runs by the clock.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import thresher
from audits import Audits
from folders import reviews
from hostile.cases import spoiled
from thresher.config import AuditConfig
from thresher.data.examples import find_classes, find_columns, read_examples
from thresher.data.table import fingerprint, read_table
from thresher.errors import ThresherError
from thresher.files import read_given
from thresher.model.classes import class_numbers
from thresher.model.load import check_model, load_classifier
from thresher.options import make_config
from thresher.results.clean import clean_run
from thresher_study.config import read_study

CASES = int(os.environ.get("THRESHER_FUZZ", "700"))
AUDITS = Audits(
    rows={"train": 30, "validation": 10},
    asked={"modules": "classifier", "epochs": 1, "batch_size": 16, "learning_rate": 1e-2, "methods": "tracin"},
    finished={"detector": "tracin/all/mean"},
)


def fuzz(share: float) -> Callable[[Any], Any]:
    """Settings of a test that has this share of all cases. Chance is the same in every run of as many."""
    return settings(
        max_examples=max(10, round(CASES * share)),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def try_to(load: Callable[[], object]) -> None:
    """Load something, or be told in one line why not."""
    try:
        load()
    except ThresherError as error:
        assert str(error) and "\n" not in str(error)


def understood(file: Path) -> None:
    """Rows as an audit takes them up."""
    table = read_table(str(file))
    fingerprint(table)
    columns = find_columns(table, (), None)
    classes = find_classes(table, columns)
    read_examples(table, columns, {name: place for place, name in enumerate(classes)}, trained_on="them")


ROWS = reviews(6, 1)
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TEXTS: dict[str, bytes] = {
    "jsonl": LINES,
    "json": json.dumps(ROWS).encode(),
    "csv": b"text,label\n" + b"".join(f'"{row["text"]}",{row["label"]}\n'.encode() for row in ROWS),
    "tsv": b"text\tlabel\n" + b"".join(f"{row['text']}\t{row['label']}\n".encode() for row in ROWS),
    "jsonl.gz": gzip.compress(LINES, mtime=0),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@fuzz(0.4)
@given(form=st.sampled_from(sorted(TEXTS)), seed=st.integers(0, 2**32))
def test_spoiled_files_of_rows(tmp_path: Path, form: str, seed: int) -> None:
    file = tmp_path / f"rows.{form}"
    file.write_bytes(next(spoiled(TEXTS[form], random.Random(seed))))
    try_to(lambda: understood(file))


@fuzz(0.2)
@given(rows=st.lists(st.fixed_dictionaries({"text": JSON, "label": JSON}), min_size=1, max_size=4), cut=st.booleans())
def test_rows_of_any_values(tmp_path: Path, rows: list[dict[str, Any]], cut: bool) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps(row) for row in [*rows, *(ROWS * cut)]]
    file.write_text("\n".join(lines), encoding="utf-8")
    try_to(lambda: understood(file))


@fuzz(0.15)
@given(seed=st.integers(0, 2**32), codec=st.sampled_from(["NONE", "SNAPPY", "ZSTD"]))
def test_spoiled_parquet(tmp_path: Path, seed: int, codec: str) -> None:
    file = tmp_path / "rows.parquet"
    columns: Any = {name: [row[name] for row in ROWS] for name in ("text", "label")}
    pq.write_table(pa.table(columns), file, compression=codec)
    file.write_bytes(next(spoiled(file.read_bytes(), random.Random(seed))))
    try_to(lambda: understood(file))


@fuzz(0.2)
@given(seed=st.integers(0, 2**32), options=st.dictionaries(st.sampled_from(sorted(AuditConfig.model_fields)), JSON))
def test_configurations_of_any_values(tmp_path: Path, seed: int, options: dict[str, Any]) -> None:
    file = tmp_path / "any.yaml"
    sound = {
        "model": "m",
        "train": "t.jsonl",
        "validation": "v.jsonl",
        "own_tasks": {"a": {"train": "x"}},
        "models": {},
    }
    text = yaml.safe_dump(sound | options).encode()
    file.write_bytes(text if seed % 2 else next(spoiled(text, random.Random(seed))))
    try_to(lambda: make_config(AuditConfig, {}, file))
    try_to(lambda: read_study(file, {}))


@fuzz(0.03)
@given(
    seed=st.integers(0, 2**32),
    name=st.sampled_from(["adapter_config.json", "classes.json", "adapter_model.safetensors"]),
)
def test_spoiled_adapters(finished: thresher.AuditResult, tmp_path: Path, seed: int, name: str) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(finished.folder / "model", adapter, dirs_exist_ok=True)
    (adapter / name).write_bytes(next(spoiled((adapter / name).read_bytes(), random.Random(seed))))
    settings_of: Any = type("Settings", (), {"id2label": {0: "bad", 1: "good"}})
    try_to(lambda: class_numbers(settings_of, ("bad", "good"), str(adapter)))
    try_to(lambda: read_given(adapter / "adapter_config.json", dict[str, Any]))
    if seed % 10 == 0:  # which takes some fifty times as long
        model = str(finished.summary.config.model)
        config = AuditConfig(model=model, adapter=str(adapter), train="x", validation="x", device="cpu")
        try_to(lambda: load_classifier(config, ("bad", "good"), 0))


@fuzz(0.01)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(["config.json", "tokenizer.json", "model.safetensors"]))
def test_spoiled_models(finished: thresher.AuditResult, tmp_path: Path, seed: int, name: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(finished.summary.config.model, model, dirs_exist_ok=True)
    (model / name).write_bytes(next(spoiled((model / name).read_bytes(), random.Random(seed))))
    try_to(lambda: check_model(str(model)))
    config = AuditConfig(model=str(model), train="x", validation="x", device="cpu")
    try_to(lambda: load_classifier(config, ("bad", "good"), 0))


@fuzz(0.01)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_spoiled_runs(finished: thresher.AuditResult, tmp_path: Path, seed: int, data: st.DataObject) -> None:
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(finished.folder, run)
    files = sorted(file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file())
    file = run / data.draw(st.sampled_from(files))
    file.write_bytes(next(spoiled(file.read_bytes(), random.Random(seed))))
    try_to(lambda: thresher.open(run))
    try_to(lambda: thresher.explain(run, 1))
    try_to(lambda: clean_run(run, tmp_path / "cleaned.jsonl"))
    try_to(lambda: thresher.compare_runs([run]))


@pytest.mark.parametrize("way", ["twice", "in itself"])
def test_sound_aliases_of_yaml_are_taken(tmp_path: Path, way: str) -> None:
    file = tmp_path / "a.yaml"
    alias = "&a [tracin]\ndetector: loss\n" if way == "twice" else "&a [*a]\n"
    file.write_text(f"model: m\ntrain: &t t.jsonl\nvalidation: *t\nmethods: {alias}")
    if way == "twice":
        assert make_config(AuditConfig, {}, file).validation == "t.jsonl"
    else:
        with pytest.raises(ThresherError, match="aliases stand for more than"):
            make_config(AuditConfig, {}, file)
