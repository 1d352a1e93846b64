"""F1 to F8 draw what the runs' tables say, and a report names every file that it writes."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studied import studied
from thresher.errors import ConfigError
from thresher.evaluate.detection import noise_detection_rate
from thresher.influences.tensor import SIGN
from thresher_study.figures.agreement import agreement_figure
from thresher_study.figures.curves import curve_figure, curves, decile_figure
from thresher_study.figures.differences import difference_figure
from thresher_study.figures.modules import layer_figure, share_figure
from thresher_study.figures.moves import move_figure
from thresher_study.figures.outcomes import outcome_figure
from thresher_study.grid import grid
from thresher_study.pieces import Absent, Drawing
from thresher_study.report import write_report
from thresher_study.results import Results

TASKS = ("sst2", "mrpc")
NOTHING = pd.DataFrame()


@pytest.fixture(scope="module")
def results() -> Results:
    return studied(tasks=TASKS, seeds=3)


def drawing(found: Drawing | Absent) -> Drawing:
    assert isinstance(found, Drawing)
    return found


def panels(found: Drawing, model: str = "tiny") -> dict[str, Any]:
    """Visible panels by their titles, those without one by place."""
    axes = [one for one in found.figures[model].get_axes() if one.get_visible()]
    return {one.get_title(loc="left") or str(place): one for place, one in enumerate(axes)}


def heights(panel: Any) -> list[float]:
    """Everything drawn as points, in order of height."""
    return sorted(float(y) for line in panel.get_lines() for y in line.get_ydata() if line.get_marker() != "None")


def test_accuracy_is_drawn_run_by_run(results: Results) -> None:
    found = drawing(outcome_figure(results, grid(results)))
    rows = np.array(found.figures["tiny"].get_axes()).reshape(2, 4)
    for line, task in zip(rows, TASKS, strict=True):
        assert line[0].get_ylabel() == f"{task}\naccuracy"
        for panel, influences in zip(line, (["datainf"], ["tracin", "tracin_we", "tracin_we_topk"]), strict=False):
            frame = results.accuracy[results.accuracy["task"] == task]
            expected = frame[frame["influence"].isin(influences)]["accuracy"]
            assert heights(panel) == pytest.approx(sorted(expected))
            levels = {line.get_ydata()[0] for line in panel.get_lines() if line.get_marker() == "None"}
            means = [
                frame[frame["score"] == name]["accuracy"].mean() for name in ("all_rows", "errors_removed", "random")
            ]
            assert sorted(levels) == pytest.approx(sorted(means))
        others = frame[frame["score"] == "detector/loss"]["accuracy"]
        assert heights(line[3]) == pytest.approx(sorted(others))


def test_enough_seeds_are_drawn_as_boxes() -> None:
    many = studied(seeds=5, rows=20)
    panel = panels(drawing(outcome_figure(many, grid(many))))["DataInf"]
    medians = [line.get_ydata()[0] for line in panel.get_lines() if line.get_color() == "black"]
    frame = many.accuracy[many.accuracy["influence"] == "datainf"]
    assert sorted(medians) == pytest.approx(sorted(frame.groupby("score")["accuracy"].median()))


def test_ndr_stands_in_for_accuracy(results: Results) -> None:
    none = replace(results, accuracy=results.accuracy.head(0))
    found = drawing(outcome_figure(none, grid(none)))
    assert set(found.numbers["measure"]) == {"ndr30"}
    frame = results.detection[(results.detection["influence"] == "cosine") & (results.detection["task"] == "sst2")]
    assert heights(panels(found)["Cosine"]) == pytest.approx(sorted(frame["ndr30"]))
    assert "NDR@30" in found.sentence and "accuracy" not in found.sentence


def test_what_was_retrained_of_a_few_is_shown(results: Results) -> None:
    few = results.accuracy[results.accuracy["score"].isin(["all_rows", "datainf/layers/vote@0.3"])]
    found = drawing(outcome_figure(replace(results, accuracy=few), grid(results)))
    assert list(panels(found)) == ["DataInf", "1"]  # the second task's panel has no title
    best = few[few["score"] != "all_rows"].groupby("task")["accuracy"].mean().mean()
    assert f"DataInf layers Vote .{round(1000 * best)} [" in found.sentence and "of 1 (all rows" in found.sentence


def test_differences_are_means_of_pairs(results: Results) -> None:
    found = drawing(difference_figure(results, grid(results)))
    wide = results.accuracy.pivot_table(
        index=["influence", "group", "task", "seed"], columns="aggregation", values="accuracy"
    )
    for how in ("rank", "vote"):
        means = (
            (wide[how] - wide["mean"]).groupby(["influence", "group", "task"]).mean().drop(["layers", "all"], level=1)
        )
        expected = [*means["tracin"], *means["tracin_we"], *means["tracin_we_topk"]]
        panel = panels(found)[f"TracIn: {how.capitalize()} - Mean"]
        assert heights(panel) == pytest.approx(sorted(expected))
    deltas = (wide["vote"] - wide["mean"])["cosine"]["CL"]
    line = found.numbers.query("column == 'cosine' and place == 'CL' and aggregation == 'vote' and task == 'mrpc'")
    half = stats.t.ppf(0.975, 2) * deltas["mrpc"].std() / np.sqrt(3)
    assert line["margin_95"].item() == pytest.approx(half)


def test_lines_over_layers(results: Results) -> None:
    found = drawing(layer_figure(results, grid(results)))
    modules = results.modules
    chosen = modules[(modules["influence"] == "tracin") & (modules["k"] == 0.3) & (modules["layer"] >= 0)]
    lines = {line.get_label(): line for line in panels(found)["TracIn Vote"].get_lines()}
    for projection, factor in (("query", "A"), ("query", "B"), ("value", "A"), ("value", "B")):
        part = chosen[(chosen["projection"] == projection) & (chosen["factor"] == factor)]
        expected = part.groupby(["layer", "task"])["ndr30"].mean().groupby("layer").mean()
        drawn = lines[f"{projection} {factor}"]
        assert list(drawn.get_xdata()) == list(expected.index)
        assert drawn.get_ydata() == pytest.approx(expected.to_numpy())


def test_heat_maps_of_k_and_layer(results: Results) -> None:
    found = drawing(share_figure(results, grid(results)))
    modules = results.modules
    for influence, name in (("datainf", "DataInf"), ("cosine", "Cosine")):
        part = modules[
            (modules["influence"] == influence) & (modules["aggregation"] == "vote") & (modules["layer"] >= 0)
        ]
        part = part[(part["projection"] == "value") & (part["factor"] == "A")]
        expected = part.pivot_table(index="k", columns="layer", values="ndr30")
        (image,) = panels(found)[f"{name}, value A"].get_images()
        assert np.asarray(image.get_array()) == pytest.approx(expected.to_numpy())
    images = [image for panel in panels(found).values() for image in panel.get_images()]
    assert len({image.get_clim() for image in images}) == 1  # one colour means one number in all panels


def test_bars_count_the_planted_rows_of_each_tenth(results: Results) -> None:
    found = drawing(decile_figure(curves(results, grid(results))))
    panel = panels(found, "")["tiny: DataInf"]
    for container, (how, k) in zip(panel.containers[1::2], (("mean", ""), ("rank", ""), ("vote", "@0.3")), strict=True):
        expected = np.zeros(10)
        for task in TASKS:
            for seed in range(3):
                scores = results.scores("tiny", task, seed)
                order = np.argsort(scores[f"datainf/layers/{how}{k}"].to_numpy())
                planted = scores["planted"].to_numpy()[order].reshape(10, -1).sum(axis=1)
                expected += planted / planted.sum() / 6
        assert [bar.get_height() for bar in container] == pytest.approx(expected)


def test_detection_curves(results: Results) -> None:
    found = drawing(curve_figure(curves(results, grid(results))))
    lines = {line.get_label(): line for line in panels(found)["mrpc"].get_lines()}
    assert len(lines) == 2 + 9
    runs = [results.scores("tiny", "mrpc", seed) for seed in range(3)]
    for share in (0.0, 0.1, 0.3, 0.77, 1.0):
        expected = [noise_detection_rate(one["cosine/layers/vote@0.3"], one["planted"], share) for one in runs]
        assert lines["Cosine Vote"].get_ydata()[round(100 * share)] == pytest.approx(np.mean(expected))
    assert lines["ideal"].get_ydata()[[10, 20, 100]] == pytest.approx([0.5, 1, 1])
    assert lines["random"].get_ydata()[[10, 20, 100]] == pytest.approx([0.1, 0.2, 1])
    frame = results.detection[results.detection["group"] == "layers"]
    best = frame.groupby(["score", "task"])["ndr30"].mean().groupby("score").mean().max()
    assert f" .{round(100 * best)} [" in found.sentence


def test_everything_is_the_group_where_there_are_no_layers(results: Results) -> None:
    bare = replace(results, detection=results.detection[results.detection["group"] != "layers"])
    assert set(curves(bare, grid(bare))["group"]) == {"all"}
    neither = replace(results, detection=bare.detection[bare.detection["group"] != "all"])
    assert isinstance(decile_figure(curves(neither, grid(neither))), Absent)


def test_correlations_between_configurations(results: Results) -> None:
    found = drawing(agreement_figure(results, grid(results)))
    panel = panels(found)["0"]
    names = [label.get_text() for label in panel.get_yticklabels()]
    matrix = np.asarray(panel.get_images()[0].get_array())
    assert matrix.shape == (60, 60) and np.diag(matrix) == pytest.approx(1.0) and matrix == pytest.approx(matrix.T)
    columns = {"DataInf 2 Vote": "datainf/2/vote@0.3", "TracIn_we^10 Mean": "tracin_we_topk/WE/mean"}
    one, other = columns.values()
    runs = [results.scores("tiny", task, seed) for task in TASKS for seed in range(3)]
    expected = np.mean([stats.spearmanr(scores[one], scores[other]).statistic for scores in runs])
    left, right = (names.index(name) for name in columns)
    assert matrix[left, right] == pytest.approx(expected)


def test_a_constant_score_has_no_correlation(results: Results) -> None:
    flat = replace(results, scores=lambda *run: results.scores(*run).assign(**{"datainf/2/vote@0.3": 0.0}))
    panel = panels(drawing(agreement_figure(flat, grid(flat))))["0"]
    matrix = np.ma.filled(panel.get_images()[0].get_array().astype(float), np.nan)
    assert np.isnan(matrix).sum() == 2 * 60 - 1


def test_ranks_over_layers(results: Results) -> None:
    alone = results.moves[results.moves["layer"] == "WE"].assign(influence="tracin_we")
    found = drawing(move_figure(replace(results, moves=pd.concat([results.moves, alone])), grid(results)))
    assert list(panels(found)) == ["DataInf", "TracIn", "Cosine", "3", "4", "5"]  # nothing moves at one layer
    moves = results.moves[(results.moves["influence"] == "datainf") & (results.moves["task"] == "sst2")]
    panel = panels(found)["DataInf"]
    lines = {line.get_label(): line for line in panel.get_lines()}
    layers = ["WE", "0", "1", "2", "3", "CL"]
    for planted, name in ((True, "planted"), (False, "not planted")):
        ranks = moves[moves["planted"] == planted].groupby("layer")["rank"].median().reindex(layers)
        assert lines[name].get_ydata() == pytest.approx(100 * ranks.to_numpy() / 60)
    first = moves[(moves["seed"] == 0) & (moves["row"] == 0)].set_index("layer")["rank"].reindex(layers)
    thin = [line.get_ydata() for line in panel.get_lines() if line.get_linewidth() < 1]
    assert thin[0] == pytest.approx(100 * first.to_numpy() / 60)


def read(folder: Path) -> str:
    return (folder / "report.md").read_text(encoding="utf-8")


def check_report(folder: Path, files: list[Path]) -> dict[str, str]:
    """The report's sections by name, once every file is there, is named, and says the sign; pictures are pictures."""
    assert sorted(files) == sorted(folder.iterdir()) and len(set(files)) == len(files)
    text = read(folder)
    named = set(re.findall(r"\]\(([^)]+)\)", text))
    assert named == {file.name for file in files} - {"report.md"}
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".png":
            assert content.startswith(b"\x89PNG")
        elif file.suffix == ".svg":
            assert b"<svg" in content
        else:
            assert SIGN in content.decode()
    sections = text.split("\n## ")[1:]
    return {section[:2]: section for section in sections}


def test_a_report_of_everything(tmp_path: Path, results: Results) -> None:
    sections = check_report(tmp_path, write_report(results, tmp_path))
    assert list(sections) == [*(f"T{n}" for n in range(1, 5)), *(f"F{n}" for n in range(1, 9))]
    assert not any("Not made" in section for section in sections.values())
    numbers = pd.read_csv(tmp_path / "T2.csv", comment="#")
    assert set(numbers["place"]) == {"TracIn_we^10", "TracIn_we", "WE", "1", "2", "3", "4", "CL"}
    assert (tmp_path / "T4.md").read_text(encoding="utf-8").split("\n")[2] in sections["T4"]


def test_a_report_without_accuracy_says_so(tmp_path: Path) -> None:
    lone = studied(models=("a/b c", "roberta-large"), seeds=1, retrained="none", rows=20)
    lone = replace(lone, cancellation=NOTHING, modules=NOTHING, moves=NOTHING, accuracy=NOTHING)
    sections = check_report(tmp_path, write_report(lone, tmp_path))
    reasons = {name: section.split("Not made: ")[1] for name, section in sections.items() if "Not made" in section}
    assert set(reasons) == {"T1", "T4", "F3", "F4", "F8"}
    assert reasons["T4"].startswith("no configuration was retrained")
    assert all("NDR@30" in sections[name] for name in ("T2", "T3", "F1", "F2"))
    assert (tmp_path / "F1-a-b-c.png").exists()
    assert "nan" not in read(tmp_path)  # one seed has no interval; nothing is shown in its place


def test_matplotlib_is_asked_for_first(tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("thresher_study.report.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install thresher-study"):
        write_report(results, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
