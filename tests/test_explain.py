"""One row at every layer: ranks and queries against plain loops over the stored tensor, errors, and what is shown."""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from safetensors.torch import load_file
from typer.testing import CliRunner

import thresher
from folders import encoder_folder, reviews, write_rows
from thresher.cli import app, main
from thresher.errors import RunError, ThresherError
from thresher.influences.tensor import fill_frame, make_frame, read_modules
from thresher.model.names import ModuleName
from thresher.progress import Silent
from thresher.report.layer_plot import layer_figure, save_plot
from thresher.report.layers import show_explanation
from thresher.results.explain import explain_rows
from thresher.scores.layers import layer_ranks
from thresher.terminal import PlainConsole

ROWS, QUERIES, DROP = 40, 12, 12
AWKWARD = 3
METHODS = ["tracin", "cosine", "datainf", "tracin_we", "tracin_we_topk", "self_influence"]
SAID = ["label", "predicted", "probability", "loss"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished audit with planted errors; one row holds what rich, matplotlib and a terminal would obey."""
    place = tmp_path_factory.mktemp("explained")
    rows = reviews(ROWS, 1)
    rows[AWKWARD]["text"] = "[bold]good[/bold] film for $x_{$ and \x1b[31mred"
    thresher.audit(
        {
            "model": str(encoder_folder(place / "encoder")),
            "train": write_rows(place / "train.jsonl", rows),
            "validation": write_rows(place / "validation.jsonl", reviews(QUERIES, 2)),
            "output": str(place / "run"),
            "plant": 0.2,
            "detector": "datainf/layers/vote",
            "epochs": 2,
            "batch_size": 8,
            "learning_rate": 1e-2,
        }
    )
    return place / "run"


def stored(run: Path) -> Any:
    return zarr.open_group(str(run / "influence.zarr"), mode="r")


def layer_of(name: str) -> str:
    if "word_embeddings" in name:
        return "WE"
    numbered = re.search(r"\.layer\.(\d+)\.", name)
    return numbered[1] if numbered else "CL"


def true_ranks(run: Path, method: str, layer: str, how: str) -> list[int]:
    """method.md 4 in plain loops: columns of one layer, ranked, added up, and the rows ranked by the sum."""
    tensor = stored(run)
    correct = tensor["correct"][:]
    score = [0.0] * ROWS
    for module, name in enumerate(tensor["module"][:]):
        if layer_of(str(name)) != layer:
            continue
        for query, column in enumerate(tensor[method][module].tolist()):
            if how != "mean" and (not correct[query] or len(set(column)) == 1):
                continue
            for row in range(ROWS):
                below = sum(other < column[row] for other in column)
                score[row] += {"mean": column[row], "rank": below, "vote": -max(DROP - below, 0)}[how]
    return [sum(other < mine for other in score) for mine in score]


@pytest.mark.parametrize("how", ["vote", "rank", "mean"])
def test_ranks_equal_plain_loops_over_the_stored_tensor(run: Path, how: Any) -> None:
    rows = [AWKWARD, 0, ROWS - 1]
    found = explain_rows(run, rows, ["datainf", "cosine"], how, 0, Silent())
    assert [e.row for e in found] == rows
    for method in ("datainf", "cosine"):
        for layer in ("WE", "0", "3", "CL"):
            truth = true_ranks(run, method, layer, how)
            assert [e.ranks.loc[layer, method] for e in found] == [truth[row] + 1 for row in rows]


def test_every_layer_in_order_and_blank_where_a_method_is_not_defined(run: Path) -> None:
    ranks = thresher.explain(run, 0).ranks
    assert list(ranks.index) == ["WE", "0", "1", "2", "3", "CL"]
    assert list(ranks.columns) == METHODS
    assert ranks[["tracin", "cosine", "datainf"]].notna().to_numpy().all()
    assert ranks.loc["WE"].notna().all()
    assert ranks.loc["0":, ["tracin_we", "tracin_we_topk"]].isna().to_numpy().all()


def test_the_row_is_the_one_of_scores_parquet(run: Path) -> None:
    result = thresher.audit(run / "config.yaml")  # finished: only read
    scores, every = result.scores, result.all_scores.to_pandas()
    for row, found in enumerate(explain_rows(run, range(ROWS), ["tracin"], None, 0, Silent())):
        line = scores.loc[row]
        assert found.rank == line["rank"]
        assert {name: found.about[name] for name in SAID} == line[SAID].to_dict()
        assert (found.score, found.aggregation, found.rows, found.dropped) == (
            "datainf/layers/vote@0.3",
            "vote@0.3",
            ROWS,
            DROP,
        )
        assert found.planted == line["planted"] == (found.about["label"] != found.given["label"])
        for layer in ("WE", "CL"):  # a layer that is also a group of the audit
            score = every[f"tracin/{layer}/vote@0.3"]
            assert found.ranks.loc[layer, "tracin"] == (score < score[row]).sum() + 1
            assert found.percentiles.loc[layer, "tracin"] == pytest.approx(100 * (score < score[row]).mean())


def test_queries_are_ordered_by_influence_on_them(run: Path) -> None:
    tensor, row = stored(run), 5
    total = np.zeros(QUERIES)
    layers = [m for m, name in enumerate(tensor["module"][:]) if layer_of(str(name)).isdigit()]
    for module in layers:
        matrix = tensor["datainf"][module].astype(np.float64)
        total += matrix[:, row] / np.sqrt((matrix**2).mean())
    order = [int(query) for query in np.argsort(total)]
    found = thresher.explain(run, row, queries=QUERIES)
    assert [q.query for q in found.hurts] == [query for query in order if total[query] < 0]
    assert [q.query for q in found.helps] == [query for query in reversed(order) if total[query] > 0]
    queries = reviews(QUERIES, 2)
    for query in [*found.hurts, *found.helps]:
        assert query.influence == pytest.approx(total[query.query] / len(layers))
        truth = queries[query.query]
        assert query.about == {"text": [truth["text"]], "label": truth["label"]}
        assert query.correct == tensor["correct"][query.query]
    few = thresher.explain(run, row, queries=2)
    assert (few.hurts, few.helps) == (found.hurts[:2], found.helps[:2])


def test_the_queries_that_contradict_a_row_are_the_nearest_of_another_label(run: Path) -> None:
    kept = load_file(run / "features.safetensors")
    train, query = (kept[side].double().numpy() for side in ("train", "query"))
    mean, spread = train.mean(0), train.std(0)
    spread[spread == 0] = 1
    train, query = (train - mean) / spread, (query - mean) / spread
    labels = [row["label"] for row in reviews(QUERIES, 2)]
    for row in (0, 7):
        found = thresher.explain(run, row, queries=2)
        alike = [float(train[row] @ one / np.linalg.norm(train[row]) / np.linalg.norm(one)) for one in query]
        nearest = sorted(range(QUERIES), key=lambda number: -alike[number])[: found.near]
        other = [number for number in nearest if labels[number] != found.about["label"]]
        assert found.near == 5 and found.against == len(other)
        assert [one.query for one in found.contradicted_by] == other[:2]
        for one in found.contradicted_by:
            assert one.likeness == pytest.approx(alike[one.query], abs=1e-4)
        assert found.pair is None  # nothing was estimated: a score was named


def test_a_layer_that_says_nothing_is_blank_and_not_rank_0() -> None:
    modules = [ModuleName(f"layer.{n}", "layer", n, "query", "A", "1", 4) for n in (1, 0, 2)]
    values = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    values[0], values[2] = 0.5, np.nan
    tensor = fill_frame(make_frame(modules, np.ones(4, dtype=bool), 6), {"tracin": values})
    for how in ("mean", "rank", "vote"):
        (ranks,) = layer_ranks(tensor, ["tracin"], [4], how, 0.5, progress=Silent())
        assert list(ranks.index) == ["0", "1", "2"]
        score = thresher.aggregate(tensor["tracin"][1], how, k=0.5).values
        assert ranks.loc["0", "tracin"] == (score < score[4]).sum()
        assert ranks["tracin"].isna().tolist() == [False, True, True]


def test_modules_are_read_back_as_they_were_labelled(run: Path) -> None:
    tensor = xr.open_zarr(run / "influence.zarr", chunks=None)
    modules = read_modules(tensor)
    as_given = {"row": np.arange(ROWS), "canary": np.zeros(ROWS, dtype=bool)}  # no canaries where a score is named
    assert make_frame(modules, tensor["correct"].values, ROWS, **as_given).identical(tensor.drop_vars(METHODS))


def command(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_the_command_shows_texts_as_they_are_and_draws(run: Path, tmp_path: Path) -> None:
    result = command(run, "--row", AWKWARD, "--row", 0, "--plot", tmp_path / "layers.svg")
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    assert "[bold]good[/bold] film for $x_{$ and \\x1b[31mred" in result.output
    assert "\x1b" not in result.output
    assert f"Row {AWKWARD}, label" in result.output
    assert "Row 0, label" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["layers.svg"]
    assert "<svg" in (tmp_path / "layers.svg").read_text()


def test_the_figure_holds_a_panel_a_row_and_a_line_a_method(run: Path, tmp_path: Path) -> None:
    explanations = explain_rows(run, [AWKWARD, 0, 1], [], None, 0, Silent())
    panels = layer_figure(explanations).get_axes()
    assert [panel.get_visible() for panel in panels] == [True, True, True, False]
    for panel, found in zip(panels, explanations, strict=False):
        lines = {str(line.get_label()): line for line in panel.get_lines()}
        for method in METHODS:
            drawn = np.asarray(lines[method].get_ydata(), dtype=float)
            assert np.array_equal(drawn, found.percentiles[method].to_numpy(), equal_nan=True)
        assert 100 * DROP / ROWS in [
            np.asarray(line.get_ydata())[0] for line in panel.get_lines()
        ]  # the drop threshold
    assert "[bold]good[/bold] film for $x_{$ and" in panels[0].get_title(loc="left")
    for suffix, begins in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        save_plot(explanations[:1], tmp_path / f"layers{suffix}")
        assert (tmp_path / f"layers{suffix}").read_bytes().startswith(begins)


@pytest.mark.parametrize("width", [60, 200])
def test_the_table_fits_the_console_and_shows_each_rank(run: Path, width: int) -> None:
    found = thresher.explain(run, 7)
    console = PlainConsole(width=width, record=True, file=io.StringIO())
    show_explanation(console, found)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    cells = re.findall(r" (\d+) +(\d+)% ", text)
    expected = [int(rank) for _, ranks in found.ranks.iterrows() for rank in ranks.dropna()]
    assert sorted(int(rank) for rank, _ in cells) == sorted(expected)
    assert all(int(percent) == round(100 * (int(rank) - 1) / ROWS) for rank, percent in cells)


def refused(run: Path, *arguments: object) -> str:
    result = command(run, *arguments)
    assert isinstance(result.exception, ThresherError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_what_there_is_not_is_refused_in_one_sentence(run: Path, tmp_path: Path) -> None:
    assert f"--row {ROWS}: " in refused(run, "--row", ROWS)
    assert "has rows 0 to 39" in refused(run, "--row", 0, "--row", -1)
    assert "--method lissa: this run has tracin, cosine" in refused(run, "--row", 0, "--method", "lissa")
    assert "--aggregation sum: choose mean, rank, vote" in refused(run, "--row", 0, "--aggregation", "sum")
    assert "--queries -1" in refused(run, "--row", 0, "--queries", -1)
    assert "layers.txt: name a .svg" in refused(run, "--row", 0, "--plot", tmp_path / "layers.txt")
    assert "not a run directory" in refused(tmp_path, "--row", 0)


def test_without_matplotlib_the_plot_is_refused_and_the_table_is_not(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "needs matplotlib; pip install 'thresher[plot]'" in refused(run, "--row", 0, "--plot", tmp_path / "a.svg")
    assert command(run, "--row", 0).exit_code == 0


@pytest.mark.parametrize("part", ["train", "validation"])
def test_rows_that_changed_since_are_refused(run: Path, part: str) -> None:
    file = run.parent / f"{part}.jsonl"
    before = file.read_text()
    try:
        file.write_text(before.replace("good", "grim", 1))
        assert "the rows have changed since the audit" in refused(run, "--row", 0)
    finally:
        file.write_text(before)


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "summary.json").unlink()
    assert "not finished" in refused(copied, "--row", 0)


def test_without_a_tensor_the_model_is_asked(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copied / "influence.zarr")
    for kept, asked in zip(
        *(explain_rows(folder, [3, 17], [], None, 4, Silent()) for folder in (run, copied)), strict=True
    ):
        assert asked.ranks.equals(kept.ranks)
        assert [q.query for q in asked.hurts + asked.helps] == [q.query for q in kept.hurts + kept.helps]
        assert [q.influence for q in asked.hurts] == pytest.approx([q.influence for q in kept.hurts], rel=1e-4)
    with pytest.raises(RunError, match="audit the rows again with --keep tensor"):
        _ = thresher.open(copied).tensor
    shutil.rmtree(copied / "training")
    assert "its model with it" in refused(copied, "--row", 0)


@pytest.mark.parametrize("keep", ["top", "none"])
def test_with_a_sample_of_reference_rows(run: Path, tmp_path: Path, keep: Any) -> None:
    """A rank is the share of the reference below; what is kept changes no score and no explanation."""
    made = thresher.open(run).summary.config.model_copy(update={"reference": 25, "adapter": str(run / "model")})
    folders = {one: tmp_path / one for one in ("tensor", keep)}
    for one, folder in folders.items():
        thresher.audit(made.model_copy(update={"output": folder, "keep": one}))
    kept, found = thresher.open(folders["tensor"]), thresher.open(folders[keep])
    assert found.all_scores.identical(kept.all_scores)
    assert [(folder / "influence.zarr").is_dir() for folder in folders.values()] == [True, False]
    assert (folders[keep] / "queries.safetensors").is_file() == (keep == "top")
    for one, other in zip(kept.summary.suspicious, found.summary.suspicious, strict=True):
        assert other.row == one.row
        assert other.hurts == (() if keep == "none" else one.hurts)
    rows = [0, 5, 39]
    for one, other in zip(*(explain_rows(f, rows, [], None, 3, Silent()) for f in folders.values()), strict=True):
        assert (one.ranks - other.ranks).abs().max().max() <= 2  # of values that are nearly equal
        assert [query.query for query in one.hurts] == [query.query for query in other.hurts]
    tensor = kept.tensor
    sample = np.flatnonzero(tensor["reference"].values)
    assert len(sample) == 25
    score = thresher.aggregate(tensor["datainf"][tensor["group"].values == "WE"], "vote", k=0.3).values
    for row in rows:
        below = int((score[sample] < score[row]).sum())
        assert kept.explain(row, methods=["datainf"]).ranks.loc["WE", "datainf"] == below * ROWS // 25 + 1


def test_a_mistake_exits_with_two(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["thresher", "explain", str(run), "--row", "99"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "error: --row 99" in capsys.readouterr().err
