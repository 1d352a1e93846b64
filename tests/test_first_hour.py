"""What a newcomer meets first: help, completion, Ctrl-C, JSON, a run opened again, and a tensor for plain xarray."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import thresher
from folders import encoder_folder, reviews, write_rows
from thresher.cli import app
from thresher.config import AuditConfig
from thresher.files import read_json
from thresher.progress import console_of_call

ROWS, COUNT = 48, 7
EVIL = "<b>&\u202e"


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("first")
    rows = reviews(ROWS, 1)
    rows[3]["text"] += f" {EVIL}"
    return {
        "model": str(encoder_folder(folder / "encoder")),
        "train": write_rows(folder / "train.jsonl", rows),
        "validation": write_rows(folder / "validation.jsonl", reviews(16, 2)),
        "output": str(folder / "run"),
        "plant": 0.2,
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-2,
    }


@pytest.fixture(scope="module")
def result(options: dict[str, Any]) -> thresher.AuditResult:
    return thresher.audit(options, progress=False)


def flags(options: dict[str, Any]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def in_shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.argv[0] = 'thresher'; from thresher.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def in_notebook(value: Any) -> str:
    """What Jupyter asks for."""
    return value._repr_html_()


def test_help_is_short_and_grouped_and_help_all_has_every_option() -> None:
    short, every = (
        CliRunner().invoke(app, ["audit", flag], env={"COLUMNS": "80"}).output for flag in ("--help", "--help-all")
    )
    for name in ("train", "validation", "model", "output", "text-column", "epochs", "quick"):
        assert f"--{name} " in short
    assert all(f"─ {panel} ─" in short for panel in ("Data", "Model", "Training", "Ranking", "Output"))
    assert "--lora-rank" not in short and len(short.splitlines()) < 80
    missing = [name for name in AuditConfig.model_fields if f"--{name.replace('_', '-')}" not in every]
    assert not missing
    assert "--lora-rank" not in CliRunner().invoke(app, ["audit", "--help"]).output  # nor does one call change the next


def test_completion_knows_rare_options_and_choices_and_imports_nothing_heavy() -> None:
    asked = {"_THRESHER_COMPLETE": "complete_bash", "PYTHONPROFILEIMPORTTIME": "1"}
    found = in_shell(**asked, COMP_WORDS="thresher audit --lora", COMP_CWORD="2")
    assert set(found.stdout.split()) == {"--lora-rank", "--lora-alpha", "--lora-dropout"}
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "thresher.cli" in imported
    assert not imported & {"torch", "transformers", "pandas", "numpy", "xarray", "zarr"}
    found = in_shell(**asked, COMP_WORDS="thresher audit --task g", COMP_CWORD="3")
    assert found.stdout.split() == ["generate"]


def test_json_is_alone_on_standard_output_and_quiet_shows_only_the_end(
    options: dict[str, Any], result: thresher.AuditResult
) -> None:
    run = CliRunner().invoke(app, ["audit", *flags(options), "--json"])  # of a finished audit
    assert json.loads(run.stdout) == read_json(result.folder / "summary.json")
    assert "most suspicious rows" in run.stderr
    quiet = CliRunner().invoke(app, ["audit", *flags(options), "--quiet"])
    logging.disable(logging.NOTSET)
    assert quiet.stdout.startswith("Ranked 48 rows") and "thresher clean" in quiet.stdout and not quiet.stderr
    plan = CliRunner().invoke(app, ["audit", *flags(options), "--dry-run", "--json"])
    assert json.loads(plan.stdout)["rows"] == ROWS
    explained = CliRunner().invoke(app, ["explain", options["output"], "--row", "3", "--json"])
    (found,) = json.loads(explained.stdout)
    truth = thresher.explain(options["output"], 3)
    assert found["rank"] == truth.rank and found["about"]["label"] == truth.about["label"]
    assert found["ranks"]["WE"] == truth.ranks.loc["WE"].to_dict()
    target = Path(options["output"]).with_name("cleaned.jsonl")
    cleaned = json.loads(
        CliRunner().invoke(app, ["clean", options["output"], "--output", str(target), "--json"]).stdout
    )
    assert cleaned["kept"] == len(target.read_text().splitlines()) == ROWS - cleaned["dropped"]


HEEDING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored, as it is behind a shell's "&"
from thresher.__main__ import main
main()
"""


def test_after_ctrl_c_a_sentence_says_that_the_same_command_goes_on(options: dict[str, Any], tmp_path: Path) -> None:
    command = [sys.executable, "-c", HEEDING, "audit", *flags(options | {"output": str(tmp_path / "run")})]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round 1 of 2: fine-tuning"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "Stopped. The same command goes on from where it stopped."
    assert "Traceback" not in errors


def test_ranks_count_from_1_wherever_people_see_them(result: thresher.AuditResult) -> None:
    for place, entry in enumerate(result.summary.suspicious, start=1):
        assert result.scores.loc[entry.row, "rank"] == place
    first = result.summary.suspicious[0].row
    run = CliRunner().invoke(app, ["explain", str(result.folder), "--row", str(first)])
    assert f"Rank 1 of {ROWS} (1 = most detrimental)" in run.stdout


def test_a_label_is_suggested_only_where_it_is_more_likely_right_than_not(result: thresher.AuditResult) -> None:
    sure = result.scores["suggestion_confidence"] > 0.5
    assert 0 < sure.sum() < ROWS
    assert (result.scores["suggested"].notna() == sure).all()
    assert set(result.scores.loc[sure, "suggested"]) <= {"good", "bad"}


def test_a_run_opens_again_with_its_text_and_is_short_to_look_at(
    options: dict[str, Any], result: thresher.AuditResult, tmp_path: Path
) -> None:
    found = thresher.open(options["output"])
    pd.testing.assert_frame_equal(found.scores, result.scores)
    given = [row["text"] for row in reviews(ROWS, 1)]
    given[3] += f" {EVIL}"
    assert found.scores["text"].tolist() == given
    lowest = found.lowest(COUNT)
    assert lowest["rank"].tolist() == list(range(1, COUNT + 1))
    assert [given[row] for row in lowest.index] == lowest["text"].tolist()
    assert len(repr(found)) < 200 and "48 rows" in repr(found)
    alone = thresher.AuditResult(found.folder, found.scores.iloc[[3]], found.summary)
    html = in_notebook(found) + in_notebook(alone)
    assert "<b>" not in html and "\u202e" not in html and "&lt;b&gt;&amp;\\u202e" in html
    explained = found.explain(3)
    assert len(repr(explained)) < 200 and "<b>" not in in_notebook(explained)
    for wrong in (tmp_path, tmp_path / "none", Path(options["train"])):
        with pytest.raises(thresher.ThresherError, match="not a run directory"):
            thresher.open(wrong)


def test_plots_show_what_they_say(result: thresher.AuditResult) -> None:
    figure: Any = result.plot_ranking()
    (line,) = (line for line in figure.axes[0].lines if line.get_marker() == "None")
    ordered = result.scores.sort_values("rank")["probability_wrong"]
    assert line.get_xdata().tolist() == list(range(1, ROWS + 1)) and line.get_ydata().tolist() == ordered.tolist()
    two: Any = result.plot_layers([5, 3])
    assert [axes.get_title(loc="left").split(",")[0].split(" (")[0] for axes in two.axes] == ["row 5", "row 3"]
    assert two._repr_png_().startswith(b"\x89PNG")


def test_plain_xarray_opens_the_tensor_without_a_warning_and_canaries_are_marked(result: thresher.AuditResult) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = xr.open_zarr(result.folder / "influence.zarr")
        assert np.isfinite(tensor["datainf"].values).all()
    assert (result.folder / "influence.zarr" / "zarr.json").read_text().count("consolidated_metadata") == 1
    first = pd.read_parquet(result.folder / "candidates.parquet")
    assert (tensor["canary"].values == first["canary"]).all() and tensor["canary"].values.sum() > 0
    assert (tensor["row"].values == first["row"]).all()


def test_a_call_from_python_is_shown_when_asked_or_where_somebody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    assert console_of_call(None) is None and console_of_call(False) is None  # nobody looks at a pipe
    console = console_of_call(True)
    assert console is not None
    console.print("here")
    assert capfd.readouterr() == ("", "here\n")
