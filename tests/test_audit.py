"""The main job end to end on a tiny model: from Python, from the command line, after a kill, and on bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import thresher
from audits import Audits, flags, refused
from folders import classifier_folder, decoder_folder, reviews, write_rows
from thresher.cli import app
from thresher.files import read_json, write_json
from thresher.summary import FORMAT, read_summary

FAST = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "detector": "datainf/layers/vote"}
AUDITS = Audits({"train": 60, "validation": 16, "test": 30}, FAST, {"plant": 0.2, "retrain": True})
options = AUDITS.options


def test_every_row_is_ranked_from_most_to_least_detrimental(finished: thresher.AuditResult) -> None:
    scores = finished.scores
    assert list(scores["row"]) == list(range(60))
    assert sorted(scores["rank"]) == list(range(1, 61))
    assert (np.diff(scores.sort_values("rank")["score"]) >= 0).all()
    assert scores["planted"].sum() == 12
    assert set(scores["predicted"]) <= {"good", "bad"}
    flipped = scores["label"] != [row["label"] for row in reviews(60, 1)]
    assert (flipped == scores["planted"]).all()


def test_the_tensor_opens_with_plain_xarray_and_gives_the_same_score(finished: thresher.AuditResult) -> None:
    tensor = xr.open_zarr(finished.folder / "influence.zarr", chunks=None)
    assert tensor.sizes == {"module": 1 + 4 * 4 + 2, "query": 16, "train": 60}
    assert "larger = helpful" in tensor.attrs["sign"]
    layers = tensor["datainf"].isel(module=(tensor["block"] == "layer").values)
    expected = thresher.aggregate(layers, "vote", k=0.3)
    assert np.allclose(finished.scores["score"], expected)
    assert np.allclose(finished.all_scores.sel(score="datainf/layers/vote@0.3"), expected)


def test_every_score_is_what_its_labels_say_and_verdicts_hold_none(finished: thresher.AuditResult) -> None:
    """Aggregated from the tensor anew, a group at a time; and what is no influence from what the model said."""
    scores, tensor = finished.all_scores, finished.tensor
    held = {"layers": tensor["block"].values == "layer", "all": np.full(tensor.sizes["module"], True)}
    for one in scores["score"]:
        if one.kind == "influence":
            modules = held.get(str(one.group.values), tensor["group"].values == one.group.values)
            k = None if np.isnan(float(one.k)) else float(one.k)
            truth = thresher.aggregate(tensor[str(one.influence.values)][modules], str(one.aggregation.values), k=k)
            np.testing.assert_allclose(scores.sel(score=one), truth, rtol=1e-6, atol=1e-12, err_msg=str(one.values))
    np.testing.assert_allclose(scores.sel(score="detector/loss"), -finished.scores["loss"], rtol=1e-6)
    assert {"influence", "detector"} == set(scores["kind"].values)
    assert not set(scores["score"].values) & set(finished.scores)
    assert scores["row"].values.tolist() == finished.scores["row"].tolist()


def test_the_summary_holds_what_is_shown_and_the_config_that_made_it(finished: thresher.AuditResult) -> None:
    summary = json.loads((finished.folder / "summary.json").read_text())
    assert summary == finished.summary.model_dump(mode="json")
    assert summary["format"] == read_json(finished.folder / "inputs.json")["format"] == FORMAT
    assert (summary["rows"], summary["queries"], summary["modules"]) == (60, 16, 19)
    accuracy = summary["measures"]["accuracy"]
    assert set(accuracy) == {"all_rows", "dropped", "dropped_at_random", "errors_removed"}
    right = 30 * np.array([one["value"] for one in accuracy.values()])  # of the test rows, a whole number
    assert np.allclose(right, right.round())
    assert summary["config"] == yaml.safe_load((finished.folder / "config.yaml").read_text())
    assert set(summary["seconds"]) == {"features", "fine-tuning", "influence", "scores", "retraining"}
    found = {entry["score"]: entry for entry in summary["detection"]}
    assert found.pop("chance")["ndr30"] == pytest.approx(0.3)
    assert found.pop("oracle")["auroc"] == 1
    assert {"detector/loss", "detector/aum", "datainf/layers/vote@0.3"} <= set(found)
    scores = finished.all_scores
    for name, entry in found.items():
        values = scores.sel(score=name).values
        assert entry["ndr30"] == thresher.noise_detection_rate(values, finished.scores["planted"])
    assert len(summary["suspicious"]) == 10
    assert all(len(entry["hurts"]) == 2 for entry in summary["suspicious"])
    assert not (finished.folder / "gradients").exists()


@pytest.mark.slow
def test_a_saved_config_gives_the_same_scores(finished: thresher.AuditResult, tmp_path: Path) -> None:
    config = yaml.safe_load((finished.folder / "config.yaml").read_text()) | {"output": str(tmp_path / "again")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(app, ["audit", str(tmp_path / "config.yaml")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "again/scores.parquet").read_bytes() == (finished.folder / "scores.parquet").read_bytes()


@pytest.mark.slow
def test_the_trained_adapter_can_be_audited_by_itself(
    finished: thresher.AuditResult, place: Path, tmp_path: Path
) -> None:
    mine = options(place, tmp_path / "run", plant=0.2, adapter=str(finished.folder / "model"))
    found = thresher.audit(mine)
    assert found.summary.training is None
    for name in ("tracin/layers/mean", "cosine/CL/mean", "tracin_we/WE/mean"):
        assert np.allclose(found.all_scores.sel(score=name), finished.all_scores.sel(score=name), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_model_fine_tuned_whole_is_audited_through_query_value_and_head(place: Path, tmp_path: Path) -> None:
    model = classifier_folder(tmp_path / "whole", ["bad", "good", "unused"])
    found = thresher.audit(options(place, tmp_path / "run", model=str(model)))
    names = list(found.tensor["module"].values)
    assert {name.split(".")[-2] for name in names} == {"query", "value", "classifier"}
    assert len(names) == 4 * 2 * 2 + 2
    assert found.summary.training is None
    some = thresher.audit(
        options(place, tmp_path / "some", model=str(model), modules=r"layer\.3.*output\.dense\.weight")
    )
    assert some.summary.modules == 2
    every = thresher.audit(options(place, tmp_path / "every", model=str(model), projection=4))
    linear = {name.split(".")[-3] for name in every.tensor["module"].values if "dense.weight" in name}
    assert linear == {"output", "intermediate", "pooler"}
    assert every.summary.gradient_bytes is not None and found.summary.gradient_bytes is not None
    assert every.summary.gradient_bytes < found.summary.gradient_bytes
    assert not every.summary.cancellation  # a projected weight is none


def test_pairs_several_classes_csv_and_a_decoder_without_pad_token(tmp_path: Path) -> None:
    decoder_folder(tmp_path / "decoder")
    rows = [{"premise": r["text"], "claim": r["text"][:9], "kind": "xyz"[i % 3]} for i, r in enumerate(reviews(45, 1))]
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame(rows[:12]).to_parquet(tmp_path / "validation.parquet")
    given = {
        "model": tmp_path / "decoder",
        "train": tmp_path / "train.csv",
        "validation": tmp_path / "validation.parquet",
        "text-column": "premise,claim",
        "label-column": "kind",
        "output": tmp_path / "run",
        **FAST,
    }
    result = CliRunner().invoke(app, ["audit", *flags(given)])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    summary = read_json(tmp_path / "run/summary.json")
    assert summary["classes"] == {"x": 0, "y": 1, "z": 2}
    assert summary["detection"] == []
    assert "The 10 most suspicious rows" in result.output


def test_a_dry_run_shows_the_plan_and_writes_nothing(place: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["audit", *flags(options(place, tmp_path / "run")), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "60 to rank, 16 queries" in result.output
    assert "expected time" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_clean_writes_the_original_rows_less_the_dropped(
    finished: thresher.AuditResult, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / f"cleaned.{suffix}"
    arguments = ["clean", str(finished.folder), "--drop", "0.25", "--output", str(target)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    dropped = set(finished.scores.nsmallest(15, "rank")["row"])
    kept = [row for row in reviews(60, 1) if row["id"] not in dropped]
    if suffix == "jsonl":
        assert [json.loads(line) for line in target.read_text().splitlines()] == kept
    else:
        found = pd.read_csv(target) if suffix == "csv" else pd.read_parquet(target)
        assert found.to_dict("records") == kept


def test_clean_refuses_rows_that_changed_since(place: Path, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", reviews(20, 5))
    thresher.audit(options(place, tmp_path / "run", train=train))
    write_rows(tmp_path / "train.jsonl", reviews(20, 6))
    arguments = ["clean", str(tmp_path / "run"), "--output", str(tmp_path / "cleaned.jsonl")]
    assert "changed since the audit" in refused(arguments)
    assert not (tmp_path / "cleaned.jsonl").exists()


def test_a_run_directory_of_other_arguments_is_refused_naming_them(finished: thresher.AuditResult, place: Path) -> None:
    before = (finished.folder / "scores.parquet").read_bytes()
    same = options(place, finished.folder, plant=0.2, retrain=True)
    message = refused(["audit", *flags(same | {"epochs": 3, "seed": 4})])
    assert "epochs was 2, now 3" in message
    assert "seed was 0, now 4" in message
    other = write_rows(place / "other.jsonl", reviews(60, 9))
    assert "train was" in refused(["audit", *flags(same | {"train": other})])
    assert (finished.folder / "scores.parquet").read_bytes() == before
    # The same arguments, and ones that cannot change the result, are welcome.
    assert CliRunner().invoke(app, ["audit", *flags(same | {"memory": "1G"})]).exit_code == 0


@pytest.mark.parametrize("found", [FORMAT + 1, None])
def test_a_run_of_another_format_is_refused_and_left_as_it_is(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, found: int | None
) -> None:
    run = shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns("model", "*.zarr"))
    write_json(run / "inputs.json", read_json(run / "inputs.json") | {"format": found})
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    again = flags(options(place, run, plant=0.2, retrain=True))
    for command in (["audit", *again], ["clean", str(run), "--output", "c.jsonl"], ["explain", str(run), "--row", "0"]):
        assert f"this version of thresher reads format {FORMAT}; begin anew with another --output." in refused(command)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


BAD_INPUT = [
    ({"text_column": "body"}, "no column 'body'; the file has: id, text, label"),
    (
        {"train": [{"text": "good", "label": 1}, {"text": " ", "label": 0}]},
        r"row 1 (line 2): the text in column 'text' is empty",
    ),
    ({"train": [{"text": "good", "label": 1}] * 3}, "every row has the label '1'"),
    ({"validation": [{"text": "good", "label": "so-so"}]}, "label 'so-so' in column 'label' is not among the classes"),
    ({"train": "nowhere.jsonl"}, "nowhere.jsonl: there is no such file"),
    ({"model": "./nowhere"}, "./nowhere: there is no such folder"),
    ({"adapter": "x", "finetune": True}, "--adapter names a fine-tuned adapter"),
    ({"learning_rate": "fast"}, "--learning-rate: Input should be a valid number"),
    ({"epochs": 0}, "--epochs: Input should be greater than or equal to 1"),
    ({"memory": "lots"}, "--memory: write a number of bytes"),
    ({"modules": "nothing"}, "No parameter of the model matches --modules 'nothing'"),
    ({"methods": "tracin"}, "--detector datainf/layers/vote: there is no such score here; there are auto, loss,"),
    ({"detector": "tracin_we/layers/mean"}, "--detector tracin_we/layers/mean: there is no such score here"),
    ({"device": "warp"}, "--device warp: cannot be used"),
    ({"memory": "1.2.3G"}, "--memory: write a number of bytes"),
    ({"plant": 0.001}, "--plant 0.001: that is 0 of 60 rows"),
    ({"modules": "("}, "--modules '(': not a regular expression"),
    ({"detector": "auto", "rounds": 1}, "--rounds: Input should be greater than or equal to 2"),
    ({"detector": "auto", "canaries": 0.3}, "--canaries 0.3 in --rounds 2: 36 of 60 rows would be canaries"),
    (
        {"detector": "auto", "canary_kind": "swap"},
        "--canary-kind swap: --task classify knows alike, uniform, confusable",
    ),
    ({"learning_rate": 1e30}, "no longer finite"),
]


@pytest.mark.parametrize(("change", "message"), BAD_INPUT, ids=[message[:30] for _, message in BAD_INPUT])
def test_bad_input_gets_one_clear_sentence(place: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given = options(place, tmp_path / "run")
    for name, value in change.items():
        given[name] = write_rows(tmp_path / f"{name}.jsonl", value) if isinstance(value, list) else value
    found = refused(["audit", *flags(given)])
    assert message in found
    assert "\n" not in found


def test_a_folder_without_weights_and_a_head_of_other_classes_are_refused(place: Path, tmp_path: Path) -> None:
    model = classifier_folder(tmp_path / "model", ["up", "down"])
    message = refused(["audit", *flags(options(place, tmp_path / "run", model=model))])
    assert "Label 'bad' of the training rows is not among the model's classes (up, down)" in message
    (model / "model.safetensors").unlink()
    assert "a model folder without weights" in refused(["audit", *flags(options(place, tmp_path / "run", model=model))])


def test_test_rows_must_not_be_the_queries(place: Path, tmp_path: Path) -> None:
    same = options(place, tmp_path / "run", test=place / "validation.jsonl")
    assert "--test and --validation are the same rows" in refused(["audit", *flags(same)])


def test_an_output_that_is_a_file_or_holds_other_files_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(["audit", *flags(options(place, tmp_path / "file"))])
    assert "holds other files (file)" in refused(["audit", *flags(options(place, tmp_path))])
    assert (tmp_path / "file").read_text() == "mine"


def test_leftovers_of_a_kill_do_not_stop_the_next_run_and_go(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / ".inputs.json.99.part").write_text("{")
    thresher.audit(options(place, output))
    assert not list(output.rglob(".*.part"))


def test_a_retrained_adapter_is_noticed(finished: thresher.AuditResult, place: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(finished.folder / "model", adapter)
    given = options(place, tmp_path / "run", adapter=adapter, modules="lora|classifier")
    assert CliRunner().invoke(app, ["audit", *flags(given)]).exit_code == 0
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, adapter / "adapter_model.safetensors")
    assert "the contents of adapter changed" in refused(["audit", *flags(given)])


def test_missing_options_and_unknown_ones_are_named(tmp_path: Path) -> None:
    assert refused(["audit", "--model", "x"]) == "--train is missing; --validation is missing"
    (tmp_path / "config.yaml").write_text("modle: x\n")
    assert "there is no option 'modle'" in refused(["audit", str(tmp_path / "config.yaml")])
    assert "this is not a run directory" in refused(["clean", str(tmp_path / "none"), "--output", "c.jsonl"])


@pytest.mark.slow
def test_the_demo_runs_and_goes_on_when_it_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"rows": 40, "queries": 8, "test_rows": 8, "epochs": 1, "output": "demo"}
    assert CliRunner().invoke(app, ["demo", *flags(sizes)]).exit_code == 0
    before = (tmp_path / "demo/scores.parquet").read_bytes()
    again = CliRunner().invoke(app, ["demo", *flags(sizes)])
    assert again.exit_code == 0, f"{again.output}{again.exception}"
    assert (tmp_path / "demo/scores.parquet").read_bytes() == before
    assert "seed was 0, now 1" in refused(["demo", *flags(sizes | {"seed": 1})])


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "thresher", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


def test_the_command_exits_with_two_and_without_a_traceback() -> None:
    process = command("audit", "--model", "./nowhere", "--train", "nowhere.jsonl", "--validation", "nowhere.jsonl")
    output, _ = process.communicate()
    assert process.returncode == 2
    assert "Traceback" not in output
    assert "error: nowhere.jsonl: there is no such file" in output


# What is on disk when the run is killed: after the first epoch, between blocks of gradients, between modules, after
# them, and between two retrainings.
MOMENTS = {
    "an epoch": "training/state.safetensors",
    "a block of gradients": "gradients/query/00000.safetensors",
    "a module": "influence.zarr/tracin/c/0",
    "the reference rows": "gradients/parts/00000.safetensors",
    "a retraining": "retrained/dropped.json",
}

# The command, killed as soon as it touches another file once the first argument is there.
KILLED = """
import os, signal, sys
moment = sys.argv.pop(1)
def watch(event, _):
    if event in ("open", "os.rename") and os.path.exists(moment):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from thresher.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, moment: str
) -> None:
    output = tmp_path / "run"
    given = flags(options(place, output, plant=0.2, retrain=True))
    killed = [sys.executable, "-c", KILLED, str(output / MOMENTS[moment]), "audit", *given]
    assert subprocess.run(killed, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert (output / MOMENTS[moment]).exists() and not (output / "summary.json").exists()
    result = CliRunner().invoke(app, ["audit", *given])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    assert (output / "scores.parquet").read_bytes() == (finished.folder / "scores.parquet").read_bytes()
    assert read_summary(output / "summary.json").measures == finished.summary.measures
