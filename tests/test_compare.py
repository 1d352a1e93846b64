"""Several audits side by side: outcomes against their scores, what is shown and written, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import thresher
from folders import encoder_folder, reviews, write_rows
from thresher.cli import app, main
from thresher.errors import ThresherError
from thresher.evaluate.detection import METRICS, auroc
from thresher.evaluate.ranking import friedman, fronts, nemenyi, wilcoxon_holm, win_rate
from thresher.files import read_json, write_json
from thresher.results.compare import compare_runs, outcomes_of

SEEDS = (0, 1, 2)
NAMED = ["datainf/layers/vote@0.3", "datainf/CL/mean", "detector/loss"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three finished audits with planted errors, the last with one influence function more."""
    place = tmp_path_factory.mktemp("compared")
    given = {
        "model": str(encoder_folder(place / "encoder")),
        "validation": write_rows(place / "validation.jsonl", reviews(12, 2)),
        "plant": 0.2,
        "detector": "datainf/layers/vote",
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-2,
    }
    for seed in SEEDS:
        rows = write_rows(place / f"train-{seed}.jsonl", reviews(40, 10 + seed))
        methods = ["datainf", "tracin"] if seed == 2 else ["datainf"]
        thresher.audit({**given, "train": rows, "seed": seed, "methods": methods, "output": str(place / f"run-{seed}")})
    return [place / f"run-{seed}" for seed in SEEDS]


def command(runs: list[Path], *arguments: object) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, [*runs, *arguments])])


def shown(runs: list[Path], *arguments: object) -> str:
    result = command(runs, *arguments)
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return result.output


def refused(runs: list[Path], *arguments: object) -> str:
    result = command(runs, *arguments)
    assert isinstance(result.exception, ThresherError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_outcomes_are_what_the_scores_find(runs: list[Path]) -> None:
    found = outcomes_of(runs, "auroc")
    assert list(found.index) == list(map(str, runs))
    tables = [thresher.open(run).all_scores.to_pandas() for run in runs]
    assert set(found) == set(tables[0])  # the last run has others, too
    assert set(found) < set(tables[2])
    for run, table in zip(runs, tables, strict=True):
        for name in found:
            assert found.at[str(run), name] == auroc(table[name], thresher.open(run).scores["planted"])


def test_the_best_are_compared_with_the_best(runs: list[Path]) -> None:
    everything = outcomes_of(runs, "ndr30")
    found = compare_runs(runs, top=4)
    means = everything.mean()
    assert list(found.table["mean"]) == sorted(means, reverse=True)[:4]
    assert found.shared == everything.shape[1]
    assert found.reference == found.table.index[0]
    kept: Any = everything[list(found.table.index)]
    assert found.outcomes.equals(kept)
    assert found.table["front"].equals(fronts(kept))
    assert found.table["win_rate"].equals(win_rate(kept))
    assert found.table["mean_rank"].equals(friedman(kept).mean_ranks)
    assert found.pairs is not None
    assert found.pairs.equals(nemenyi(kept))
    tested = wilcoxon_holm(kept, found.reference)
    assert found.table.loc[tested.index, ["difference", "p", "p_holm"]].equals(tested)
    assert found.table.loc[found.reference, ["difference", "p", "p_holm"]].isna().all()
    assert len(compare_runs(runs).table) == 10


def test_named_scores_are_all_shown_and_a_reference_beside_them(runs: list[Path]) -> None:
    everything = outcomes_of(runs, "ndr30")
    found = compare_runs(runs, scores=NAMED)
    assert set(found.table.index) == set(NAMED)
    last = everything.mean().idxmin()
    found = compare_runs(runs, top=2, reference=str(last))
    assert found.reference == last
    assert len(found.table) == 3
    assert (found.table["difference"].dropna() >= 0).all()  # against the worst, larger is better


@pytest.mark.parametrize("metric", list(METRICS))
def test_every_number_of_the_table_is_shown(runs: list[Path], metric: str) -> None:
    output = shown(runs, "--metric", metric, "--top", 5)
    found = compare_runs(runs, metric, top=5)
    line: Any
    for name, line in found.table.iterrows():
        row = next(text for text in output.splitlines() if str(name) in text)
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert cells[1:5] == [
            f"{line['mean']:.3f} ± {line['margin_95']:.3f}",
            str(int(line["front"])),
            f"{line['win_rate']:.2f}",
            f"{line['mean_rank']:.2f}",
        ]
        own = ["reference", ""] if name == found.reference else [f"{line['difference']:+.3f}", f"{line['p_holm']:.3f}"]
        assert cells[5:] == own
    said = " ".join(output.split())
    assert "larger is better" in said
    assert f"Friedman: the scores shown may all be alike (chi-square {found.friedman.statistic:.2f}" in said
    assert "Nemenyi: 0 of 10 pairs differ (p < 0.05); none of the others can be told from the best" in said
    assert "With 3 runs and 4 differences, no p (Holm) can be below 1." in said


def copied(run: Path, target: Path, found: dict[str, float]) -> Path:
    """A run in which the scores found what is said."""
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("*.zarr", "model", "training"))
    summary = read_json(target / "summary.json")
    entries = [{"score": name, **dict.fromkeys(METRICS, value)} for name, value in found.items()]
    write_json(target / "summary.json", summary | {"detection": entries})
    return target


def test_clear_differences_are_named(runs: list[Path], tmp_path: Path) -> None:
    many = [
        copied(
            runs[0],
            tmp_path / f"{n}",
            {"a/good": 0.8 + n / 100, "a/near": 0.79 + n / 100 + n % 2 / 50, "a/bad": n / 100},
        )
        for n in range(9)
    ]
    output = " ".join(shown(many).split())
    assert "Friedman: the scores shown differ" in output
    assert "Nemenyi: 2 of 3 pairs differ (p < 0.05); not told from the best, a/good: a/near." in output
    assert "no p (Holm) can be below" not in output
    assert compare_runs(many).table.at["a/bad", "p_holm"] == pytest.approx(2 * 2 / 2**9)
    assert "Friedman" not in shown(many, "--score", "a/good", "--score", "a/bad")


def test_files_hold_the_same_numbers(runs: list[Path], tmp_path: Path) -> None:
    for suffix in ("csv", "md", "json"):
        shown(runs, "--output", tmp_path / f"new/found.{suffix}")
    found = compare_runs(runs)
    read = pd.read_csv(tmp_path / "new/found.csv", index_col="score")
    pd.testing.assert_frame_equal(read, found.table, check_names=False)
    record = json.loads((tmp_path / "new/found.json").read_text())
    assert record["reference"] == found.reference
    for entry, (name, line) in zip(record["scores"], found.table.iterrows(), strict=True):
        assert (entry["score"], entry["mean"], entry["front"]) == (name, line["mean"], line["front"])
        assert (entry["p"] is None) == (name == found.reference)
    assert pd.DataFrame(record["outcomes"]).T.equals(found.outcomes)
    assert found.pairs is not None
    assert pd.DataFrame(record["nemenyi"]).equals(found.pairs)
    lines = (tmp_path / "new/found.md").read_text().splitlines()
    names = [line.split("|")[1].strip() for line in lines if line.startswith("|")][2:]
    assert names == list(found.table.index)


def test_without_scikit_posthocs_all_but_nemenyi_is_there(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scikit_posthocs", None)
    output = shown(runs)
    assert "Nemenyi's test needs scikit-posthocs; pip install 'thresher[compare]'." in output
    assert "Friedman" in output


def test_what_cannot_be_compared_is_refused_in_one_sentence(runs: list[Path], tmp_path: Path) -> None:
    two = runs[:2]
    assert "--metric f1: choose ndr30, auc_ndr" in refused(two, "--metric", "f1")
    assert "run-0: this audit has no accuracy after retraining" in refused(two, "--metric", "accuracy")
    message = refused(two, "--score", "datainf/layers/votes@0.3")
    assert "--score datainf/layers/votes@0.3: not among" in message
    assert "there is datainf/layers/vote@0.3" in message
    assert "--reference chance: not among" in refused(two, "--reference", "chance")
    assert "--score tracin/CL/mean: not among" in refused(runs, "--score", "tracin/CL/mean")
    assert "There is only detector/loss to compare" in refused(two, "--score", "detector/loss")
    assert "--top 1: " in refused(two, "--top", 1)
    assert "found.txt: name a .csv, .md, .json file" in refused(two, "--output", tmp_path / "found.txt")
    assert "One run says nothing of chance" in refused(runs[:1])
    assert "run-0: this run is named twice" in refused([*two, runs[0] / ".." / "run-0"])
    assert "not a run directory" in refused([*two, tmp_path])


def test_runs_that_tell_nothing_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = copied(runs[0], tmp_path / "other", {"b/only": 0.5})
    assert "no score in common" in refused([*runs, other])
    summary = read_json(other / "summary.json")
    write_json(other / "summary.json", summary | {"detection": []})
    assert "other: no errors were planted in this audit" in refused([*runs, other])
    (other / "summary.json").unlink()
    assert "other: this audit is not finished" in refused([*runs, other])


def test_a_mistake_exits_with_two(runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["thresher", "compare", str(runs[0])])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "error: One run says nothing of chance" in capsys.readouterr().err


def table_of(outcomes: pd.DataFrame) -> pd.DataFrame:
    """What :func:`outcomes_of` found, one line a run and score, every run a task of its own."""
    runs = [f"task-{number}" for number in range(len(outcomes))]
    return outcomes.set_axis(runs).rename_axis("task").melt(ignore_index=False, var_name="score", value_name="ndr30")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_of_outcomes_is_compared_as_its_runs(runs: list[Path], tmp_path: Path, suffix: str) -> None:
    truth = outcomes_of(runs, "ndr30")
    table, file = table_of(truth).reset_index(), tmp_path / f"outcomes.{suffix}"
    table.to_parquet(file) if suffix == "parquet" else table.to_csv(file, index=False)
    found = outcomes_of([file], "ndr30")
    assert found.reset_index(drop=True).equals(truth.reset_index(drop=True))
    assert list(found.index) == [f"{file}: task-{number}" for number in range(3)]
    both = outcomes_of([file, *runs], "ndr30")
    assert (both.to_numpy() == pd.concat([found, truth])[list(both)].to_numpy()).all()
    cells = [line.split("│")[1:4] for line in shown([file], "--top", 3).splitlines() if "│" in line]
    assert cells == [line.split("│")[1:4] for line in shown(runs, "--top", 3).splitlines() if "│" in line]


def test_names_in_a_table_are_texts_and_what_was_not_measured_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.csv"
    lines = ["# larger = better", "task,seed,score,ndr30,accuracy", "NA,01,a,.1,.5", "NA,01,b,.2,", "NA,1,a,.3,.6"]
    file.write_text("\n".join([*lines, "NA,1,b,.4,.7", "NA,1,c,,.8", ""]), encoding="utf-8")
    found = outcomes_of([file], "ndr30")
    assert found.to_dict("index") == {f"{file}: NA-01": {"a": 0.1, "b": 0.2}, f"{file}: NA-1": {"a": 0.3, "b": 0.4}}
    assert outcomes_of([file], "accuracy")["a"].tolist() == [0.5, 0.6]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("task,score\nx,a\n", "there is no column 'ndr30'; the table has: task, score."),
        ("score,ndr30\na,1\n", "there is no column 'task'"),
        ("task,ndr30\na,1\n", "there is no column 'score'"),
        ("task,score,ndr30\nx,a,.1\ny,a,much\n", "row 1: ndr30 is 'much', not a number"),
        ("task,score,ndr30\nx,a,.1\nx,a,.2\n", "a of x is there more than once"),
        ("task,score,ndr30\nx,a,\n", "no score of this table has a value of ndr30"),
        ("", "cannot be read as a table of outcomes"),
    ],
)
def test_a_table_that_cannot_be_compared_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "outcomes.csv"
    file.write_text(text, encoding="utf-8")
    assert sentence in refused([file])
    assert "cannot be read" in refused([tmp_path / "nowhere.parquet"])
