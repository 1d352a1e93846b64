"""The tables of docs/detection.md against values worked out by hand, from a folder of made-up audits."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from detection_tables import DRAWS, accuracy, confidence, detection, drawn_again, write_tables
from summaries import AUTO, made_up
from thresher.summary import write_summary
from thresher.tensors import write_tensors
from thresher.terminal import PlainConsole

ROWS = 10
FOUND = {  # NDR@30 by seed
    "quotes": {"auto": [0.8, 0.6], "detector/loss": [0.9, 0.5], "detector/aum": [0.5, 0.5], "datainf/4/rank": [0.8, 0]},
    "cola": {"auto": [0.4, 0.4], "detector/loss": [0.3, 0.3], "detector/aum": [0.3, 0.5], "datainf/4/rank": [0.4, 0.1]},
}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Four audits of two tasks; of the last nothing was dropped, and one has a ceiling."""
    for task, scores in FOUND.items():
        for seed in (0, 1):
            folder = tmp_path / f"{task}-flip0.2-{seed}"
            folder.mkdir()
            by = {name: values[seed] for name, values in scores.items()} | {"oracle": 1.0}
            rest = {"auc_ndr": 0.5, "auroc": 0.5, "average_precision": 0.5, "precision50": 0.5}
            rate = AUTO["error_rate"] | {"low": 0.1 + 0.15 * seed}
            summary = made_up(
                config=made_up().config.model_copy(update={"plant_kind": "flip", "plant": 0.2, "seed": seed}),
                detection=[{"score": name, "ndr30": value, **rest} for name, value in by.items()],
                auto=AUTO | {"error_rate": rate},
                classes={"no": 0, "yes": 1},
            )
            write_summary(folder / "summary.json", summary)
            wrong = np.zeros(ROWS)
            wrong[: 1 + 3 * seed] = 0.75
            planted = np.arange(ROWS) < 2
            table = {"label": ["no"] * ROWS, "planted": planted, "probability_wrong": wrong}
            pd.DataFrame(table).to_parquet(folder / "scores.parquet")
            kept: dict[str, Any] = {"all_rows": 0.7 + 0.1 * seed, "errors_removed": 0.9}
            if (task, seed) != ("cola", 1):
                kept["dropped"] = 0.8 + 0.1 * seed
            judged = {name: {"accuracy": value} for name, value in kept.items()}
            (folder / "accuracy.json").write_text(json.dumps(judged))
    outputs = torch.zeros(ROWS, 2)
    outputs[:2, 1] = 4.0  # the model that learned no error contradicts both planted ones
    write_tensors(tmp_path / "ceiling" / "quotes-0.safetensors", {"outputs": outputs})
    return tmp_path


def section(output: Path, title: str) -> dict[str, list[str]]:
    """First cell of each line of the table under a heading, with the others."""
    file = StringIO()
    console = PlainConsole(file=file, width=200)
    write_tables(output, console)
    text = (output / "tables.md").read_text()
    assert file.getvalue().split() == text.split()
    lines = text.split(f"### {title}\n\n")[1].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def test_hindsight_takes_the_best_score_of_each_task_and_the_rival_one_for_all(output: Path) -> None:
    found = section(output, "20% flip")
    assert found["score"][:3] == ["cola", "quotes", "mean"]
    assert found["best in hindsight"][:3] == ["0.400", "0.700", "0.550"]  # aum of cola, loss of quotes
    assert found["best without influence"][:3] == ["0.300", "0.700", "0.500"]  # loss; aum has .45
    assert found["auto"][:3] == ["0.400", "0.700", "0.550"]
    learned = section(output, "20% flip, tasks that are learned")
    assert learned["score"][:2] == ["quotes", "mean"] and learned["auto"][:2] == ["0.700", "0.700"]


def test_the_ceiling_is_where_it_was_trained(output: Path) -> None:
    found = detection(output)
    ceiling = found.query("score == 'ceiling'")
    assert ceiling[["task", "seed", "ndr30"]].to_numpy().tolist() == [["quotes", 0, 1.0]]


def test_where_nothing_was_dropped_all_rows_stand_for_it(output: Path) -> None:
    found = accuracy(output).set_index(["task", "seed"])
    assert found.loc[("cola", 1), "dropped"] == found.loc[("cola", 1), "all_rows"] == pytest.approx(0.8)
    lines = section(output, "accuracy, 20% flip")
    assert lines["trained on"][:3] == ["cola (2)", "quotes (2)", "mean"]
    assert lines["dropped"][:3] == ["0.800", "0.850", "0.825"]
    assert lines["dropped"][3].startswith("+0.075 (")


def test_what_was_not_tried_for_a_kind_of_error_has_no_line_there(output: Path) -> None:
    other = output / "quotes-flip0.1-0"
    shutil.copytree(output / "quotes-flip0.2-0", other)
    summary = json.loads((other / "summary.json").read_text())
    summary["config"]["plant"] = 0.1
    (other / "summary.json").write_text(json.dumps(summary))
    (other / "accuracy.json").write_text(json.dumps({"all_rows": {"accuracy": 0.7}, "relabelled": {"accuracy": 0.75}}))
    assert set(section(output, "accuracy, 10% flip")) == {"trained on", "---", "all_rows", "relabelled"}
    assert "relabelled" not in section(output, "accuracy, 20% flip")


def test_intervals_are_as_wide_as_seeds_differ(output: Path) -> None:
    low, high = map(float, section(output, "20% flip, tasks that are learned")["auto"][2].split(" to "))
    # Of two values a mean drawn again is either of them or the middle; widened by the root of two.
    assert [low, high] == pytest.approx([0.7 - 0.1 * np.sqrt(2), 0.7 + 0.1 * np.sqrt(2)], abs=1e-3)
    rng = np.random.default_rng(0)
    values = rng.normal(size=12)
    spread = np.std(drawn_again(values, rng))
    assert DRAWS == 2000 and spread == pytest.approx(stats.sem(values), rel=0.05)
    assert np.isnan(drawn_again(values[:1], rng)).all()


def test_rows_to_drop_are_counted_together(output: Path) -> None:
    found = confidence(output)
    assert found["covered"].tolist() == [1, 0, 1, 0]
    lines = section(output, "confidence")
    names = lines["kind"]
    row = dict(zip(names, lines["flip"], strict=True))
    assert row["audits"] == "2" and row["covered"] == "1.000"
    assert row["of them wrong"] == "0.600"  # 1 of 1 and 2 of 4
    assert row["said to be wrong"] == "0.750"
