"""``thresher-study``: a plan of jobs that resume, on tiny models and the user's own data."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import thresher
from awkward import NAME, obeyed
from folders import encoder_folder, reviews, write_rows
from thresher.cli import app as product
from thresher.errors import ConfigError, DamagedError, RunError, ThresherError
from thresher.evaluate.detection import noise_detection_rate
from thresher.results.compare import outcomes_of
from thresher.scores.table import lowest_of
from thresher_study.cli import app, main
from thresher_study.config import REFERENCES, StudyConfig, audit_of, cells, read_study
from thresher_study.gather import gather
from thresher_study.jobs import StudyJob, audits, named, retrainings, run_of, views_of
from thresher_study.place import open_study, read_plan
from thresher_study.work import work

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    encoder_folder(folder / "encoder")
    for name, count, seed in (("train", 60, 1), ("validation", 20, 2), ("test", 30, 3)):
        write_rows(folder / f"{name}.jsonl", reviews(count, seed))
    return folder


def plan(place: Path, output: Path, **more: Any) -> Path:
    """A study's file: one tiny model on one task of the user's own, two seeds."""
    parts = {part: str(place / f"{part}.jsonl") for part in ("train", "validation", "test")}
    options = {
        "models": {"tiny": {"model": str(place / "encoder")}},
        "own_tasks": {"reviews": parts},
        "seeds": 2,
        "audit": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2},
        "influences": ["tracin", "cosine"],
        "beside": ["tracin_we/WE/mean"],
        "retrain": "best",
        "output": str(output),
    }
    file = output.parent / f"{output.name}.yaml"
    file.write_text(yaml.safe_dump(options | more), encoding="utf-8")
    return file


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def finished(place: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    file = plan(place, tmp_path_factory.mktemp("finished") / "study")
    ended = run(str(file))
    assert ended.exit_code == 0, ended.output
    return read_study(file, {})


def manifest(study: StudyConfig) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads((study.output / "manifest.json").read_text())}


def test_every_job_is_done_and_in_the_manifest(finished: StudyConfig) -> None:
    jobs = [*audits(finished), *retrainings(finished)]
    assert len(jobs) == 2 + 2 * (3 + len(REFERENCES))
    assert {job.name for job in jobs} == set(manifest(finished))
    assert {one["state"] for one in manifest(finished).values()} == {"done"}
    assert [named(finished, job.name) for job in jobs] == jobs


def test_results_are_those_of_the_audits(finished: StudyConfig) -> None:
    results = gather(finished)
    for cell in cells(finished):
        scores = results.scores(cell.model, cell.task, cell.seed)
        here = results.detection[results.detection["seed"] == cell.seed].set_index("score")
        for name in ("tracin/WE/mean", "cosine/1/vote@0.3", "detector/loss"):
            assert here.loc[name, "ndr30"] == noise_detection_rate(scores[name], scores["planted"])
        assert not run_of(finished, cell).tensor.exists()
    assert set(results.modules["k"].dropna()) == {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0}
    assert results.moves.groupby("seed")["row"].nunique().tolist() == [32, 32]  # 12 planted of 60, 20 others
    assert {"WE", "1", "2", "CL"} <= set(results.cancellation["group"])


def test_a_module_by_itself_is_scored_as_its_group_where_it_is_the_group(finished: StudyConfig) -> None:
    results = gather(finished)
    embedding = results.modules[(results.modules["group"] == "WE") & (results.modules["influence"] == "tracin")]
    groups = results.detection[(results.detection["group"] == "WE") & (results.detection["influence"] == "tracin")]
    for how in ("mean", "rank"):
        by_module = embedding[embedding["aggregation"] == how]["ndr30"].tolist()
        assert by_module == groups[groups["aggregation"] == how]["ndr30"].tolist()


def test_the_best_of_each_influence_is_retrained(finished: StudyConfig) -> None:
    results = gather(finished)
    retrained = results.accuracy["score"].unique().tolist()
    assert set(REFERENCES) < set(retrained)
    mean = results.detection.groupby("score")["ndr30"].mean()
    for influence in ("tracin", "cosine"):
        (best,) = [name for name in retrained if name.startswith(f"{influence}/")]
        assert mean[best] == mean[[name for name in mean.index if name.startswith(f"{influence}/")]].max()
    assert (results.accuracy["best_epoch_accuracy"] >= results.accuracy["accuracy"]).all()


def test_what_is_done_is_not_done_again(finished: StudyConfig) -> None:
    files = [job.result(finished) for job in (*audits(finished), *retrainings(finished))]
    before = [file.stat().st_mtime_ns for file in files]
    again = run(str(finished.output.parent / "study.yaml"))
    assert again.exit_code == 0, again.output
    assert [file.stat().st_mtime_ns for file in files] == before
    assert "done in" not in again.output


@pytest.mark.slow
def test_damaged_tables_and_results_are_made_again_as_they_were(
    finished: StudyConfig, place: Path, tmp_path: Path
) -> None:
    file = plan(place, tmp_path / "study")
    study = read_study(file, {})
    shutil.copytree(finished.output, study.output)
    cell = cells(study)[1]
    lost = views_of(study, cell) / "moves.parquet", views_of(study, cell) / "detection.parquet"
    lost += (StudyJob(cell, "all_rows").result(study), study.output / "manifest.json")
    before = [one.read_bytes() for one in lost]
    lost[0].unlink()
    with pytest.raises(DamagedError, match=r"moves\.parquet: is gone"):
        gather(study)
    for one in lost[1:]:
        one.write_bytes(one.read_bytes()[:-40])
    ended = run(str(file))
    assert ended.exit_code == 0, f"{ended.output}{ended.exception}"
    assert [one.read_bytes() for one in lost[:3]] == before[:3]
    assert manifest(study).keys() == manifest(finished).keys()


def test_a_retraining_leaves_out_the_lowest_rows(finished: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(thresher, "retrain_on", lambda config, sets, progress, **_: seen.update(sets))
    cell = cells(finished)[0]
    scores = gather(finished).scores(cell.model, cell.task, cell.seed)
    for score in ("tracin/1/mean", *REFERENCES):
        file = StudyJob(cell, score).result(finished)
        if file.exists():
            file.rename(file.with_suffix(".aside"))
        try:
            assert work(finished.output, f"retrain/{cell.name}/{score}").error is None
        finally:
            if file.with_suffix(".aside").exists():
                file.with_suffix(".aside").rename(file)
    kept = np.setdiff1d(np.arange(60), lowest_of(scores["tracin/1/mean"].to_numpy(), 0.3))
    assert seen["tracin-1-mean"].tolist() == kept.tolist()
    assert seen["all_rows"].tolist() == list(range(60))
    assert seen["errors_removed"].tolist() == np.flatnonzero(~scores["planted"]).tolist()
    assert len(seen["random"]) == len(set(seen["random"])) == 42


def test_only_what_is_trained_again_is_in_mixed_precision(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, bool] = {}
    audit, again = thresher.audit, thresher.retrain_on

    def audited(config: Any, **how: Any) -> Any:
        seen["audit"] = config.bf16
        return audit(config, **how)

    def retrained(config: Any, *rest: Any, **more: Any) -> Any:
        seen["retrain"] = config.bf16
        return again(config, *rest, **more)

    monkeypatch.setattr(thresher, "audit", audited)
    monkeypatch.setattr(thresher, "retrain_on", retrained)
    study = read_study(plan(place, tmp_path / "study", seeds=1, retrain_bf16=True), {})
    open_study(study)
    (cell,) = cells(study)
    for name in (f"audit/{cell.name}", f"retrain/{cell.name}/random"):
        assert work(study.output, name).error is None
    assert seen == {"audit": False, "retrain": True}
    with pytest.raises(RunError, match="retrain_bf16 was True, now False"):
        open_study(study.model_copy(update={"retrain_bf16": False}))


def test_a_failed_job_is_reported_and_the_rest_goes_on(place: Path, tmp_path: Path) -> None:
    encoder = str(place / "encoder")
    both = {"models": {"tiny": {"model": encoder}, "hot": {"model": encoder, "learning_rate": 1e30}}}
    file = plan(place, tmp_path / "study", **both, seeds=1, retrain="none")
    ended = run(str(file))
    assert ended.exit_code == 1
    study = read_study(file, {})
    states = {name: one["state"] for name, one in manifest(study).items()}
    assert states == {"audit/tiny-reviews-0": "done", "audit/hot-reviews-0": "failed"}
    assert "FAILED audit/hot-reviews-0" in ended.output
    assert "DivergedError" in (study.output / "logs" / "audit-hot-reviews-0.txt").read_text()
    assert (study.output / "report" / "report.md").exists()


def test_a_model_that_is_not_there_is_refused_before_any_job(place: Path, tmp_path: Path) -> None:
    file = plan(place, tmp_path / "study", models={"gone": {"model": str(tmp_path / "nowhere")}})
    ended = run(str(file))
    assert isinstance(ended.exception, ThresherError)
    assert "nowhere" in str(ended.exception)
    assert not (tmp_path / "study" / "manifest.json").exists()


def test_seeds_may_be_added_and_options_not_changed(finished: StudyConfig, place: Path) -> None:
    file = finished.output.parent / "study.yaml"
    more = read_study(file, {"seeds": 3})
    open_study(more)
    assert read_plan(finished.output).seeds == (0, 1, 2)
    open_study(finished)
    changed = more.model_copy(update={"audit": more.audit | {"epochs": 5}})
    with pytest.raises(RunError, match="tiny-reviews-0 was made with other options: epochs was 2, now 5"):
        open_study(changed)


def test_a_dry_run_writes_nothing(place: Path, tmp_path: Path) -> None:
    ended = run(str(plan(place, tmp_path / "study", retrain="all")), "--dry-run")
    assert ended.exit_code == 0, ended.output
    assert "0 of 2 audits are done" in ended.output
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"tasks": ["wnli"]}, "there is no GLUE task 'wnli'"),
        ({"own_tasks": {}}, "tasks: name some of"),
        ({"models": {"tiny": {}}}, "models: tiny: say 'model:"),
        ({"audit": {"epoch": 3}}, "tiny-reviews-0: there is no option 'epoch'"),
        ({"audit": {"plant": 0}}, "a study needs"),
        ({"retrain_tasks": ["cola"]}, "'cola' is none of the tasks"),
        ({"retrain": "some"}, "--retrain"),
        ({"models": {"a/b": {"model": "x"}}}, "names folders"),
    ],
)
def test_mistakes_are_one_sentence(place: Path, tmp_path: Path, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_study(plan(place, tmp_path / "study", **wrong), {})


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_studies_can_be_read(file: Path) -> None:
    study = read_study(file, {})
    assert len(cells(study)) == len(study.seeds) * len(study.every_task)
    if file.parent.name == "paper":
        assert (len(study.tasks), len(study.seeds), study.train_rows, study.clean_rows) == (8, 10, 4500, 1000)
        config = audit_of(study, cells(study)[0])
        recipe = (config.epochs, config.batch_size, config.lora_rank, config.lora_alpha, config.lora_dropout)
        assert recipe == (10, 32, 4, 4.0, 0.05)
        assert (config.weight_decay, config.warmup, config.max_length, config.plant) == (0.01, 0.1, 128, 0.2)


def test_options_of_a_model_and_task_come_before_those_of_all() -> None:
    study = read_study(CONFIGS / "paper" / "qwen-2.5-1.5b.yaml", {})
    rates = {cell.task: audit_of(study, cell).learning_rate for cell in cells(study)}
    assert rates.pop("rte") == 1e-3
    assert set(rates.values()) == {3e-4}


def test_a_worker_may_stand_in_another_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    parts = {part: f"{part}.jsonl" for part in ("train", "validation", "test")}
    given = {"models": {"tiny": {"model": "encoder"}}, "own_tasks": {"reviews": parts}, "glue_dir": "glue"}
    study = read_study(plan(place, tmp_path / "study", **given), {"output": "study"})
    open_study(study.model_copy(update={"output": tmp_path / "study"}))
    monkeypatch.chdir(tmp_path)
    found = read_plan(tmp_path / "study")
    assert found.models["tiny"]["model"] == str(place / "encoder")
    assert found.own_tasks["reviews"]["test"] == str(place / "test.jsonl")
    assert (found.glue_dir, study.output) == (place / "glue", place / "study")


def test_views_are_whole_before_an_audit_counts_as_done(finished: StudyConfig) -> None:
    for cell in cells(finished):
        names = {file.stem for file in views_of(finished, cell).glob("*.parquet")}
        assert names == {"detection", "modules", "moves", "cancellation"}
        assert len(pd.read_parquet(views_of(finished, cell) / "moves.parquet"))


def test_the_table_of_outcomes_is_compared_as_the_audits(finished: StudyConfig) -> None:
    results, file = gather(finished), finished.output / "report" / "outcomes.csv"
    for metric, table in (("ndr30", results.detection), ("accuracy", results.accuracy)):
        found = outcomes_of([file], metric)
        assert list(found.index) == [f"{file}: {cell.name}" for cell in cells(finished)]
        assert found.shape == (2, table["score"].nunique())
        for (seed, part), row in zip(table.groupby("seed"), found.to_numpy(), strict=True):
            assert dict(zip(found, row, strict=True)) == dict(zip(part["score"], part[metric], strict=True)), seed
    shown = CliRunner().invoke(product, ["compare", str(file), "--metric", "accuracy"])
    assert shown.exit_code == 0
    assert "accuracy after retraining over 2 runs" in shown.output


def test_what_jobs_come_to_is_logged(place: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    file = plan(place, tmp_path / "study", seeds=1, influences=["tracin"], beside=[])
    assert run(str(file), "--log-to", "tensorboard").exit_code == 0
    results = gather(read_study(file, {}))
    events = accumulator.EventAccumulator(str(tmp_path / "study" / "tensorboard"))
    events.Reload()
    told = {name: events.Scalars(name)[0].value for name in events.Tags()["scalars"]}
    for table, column, kind in ((results.detection, "ndr30", "ndr30"), (results.accuracy, "accuracy", "accuracy")):
        for line in table[~table["score"].str.contains("detector|self")].itertuples():
            if kind == "accuracy" or (line.influence == "tracin" and line.group != "layers"):
                name = f"{kind}/tiny-reviews-0/{line.score}"
                assert told[name] == pytest.approx(getattr(line, column), abs=1e-6)


def test_a_mistake_exits_with_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["thresher-study", str(tmp_path / f"{NAME}.yaml")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "error: " in said and "cannot be read" in said
    assert not obeyed(said)


TWO = {"a": {"model": "x"}, "a-b": {"model": "x"}}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"influences": ["tracinn"]}, "there is no score 'tracinn/WE/mean'"),
        ({"beside": ["tracin/WE/vote"]}, "there is no score 'tracin/WE/vote'"),
        ({"groups": ["5"]}, "there is no score 'tracin/5/mean'"),
        ({"audit": {"plant_kind": "flop"}}, "tiny-reviews-0: --plant-kind flop"),
        ({"audit": {"text_column": "body"}}, "there is no column 'body'"),
        ({"audit": {"detector": "nothing"}}, "--detector nothing: there is no such score"),
        ({"seeds": [1, 1]}, "would have the same folder"),
        ({"seeds": True}, "--seeds: is no yes or no"),
    ],
)
def test_what_is_wrong_is_told_before_any_job(place: Path, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    ended = run(str(plan(place, tmp_path / "study", **more)))
    assert isinstance(ended.exception, ThresherError) and said in str(ended.exception)
    assert not (tmp_path / "study" / "manifest.json").exists() and not (tmp_path / "study" / "runs").exists()


def test_rows_of_a_later_task_are_looked_for_first(place: Path, tmp_path: Path) -> None:
    parts = {part: str(place / f"{part}.jsonl") for part in ("train", "validation", "test")}
    tasks = {"reviews": parts, "later": parts | {"test": str(tmp_path / "gone.jsonl")}}
    ended = run(str(plan(place, tmp_path / "study", own_tasks=tasks)))
    assert isinstance(ended.exception, ThresherError)
    assert "tiny-later-0" in str(ended.exception) and "gone.jsonl: there is no such file" in str(ended.exception)
    assert not (tmp_path / "study" / "runs").exists()


def test_without_matplotlib_nothing_is_begun(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thresher_study.report.find_spec", lambda _: None)
    ended = run(str(plan(place, tmp_path / "study")))
    assert isinstance(ended.exception, ConfigError) and "need matplotlib" in str(ended.exception)
    assert not (tmp_path / "study").exists()


def test_cells_that_would_share_a_folder_are_refused(place: Path, tmp_path: Path) -> None:
    parts = {part: str(place / f"{part}.jsonl") for part in ("train", "validation", "test")}
    file = plan(place, tmp_path / "study", models=TWO, own_tasks={"b-c": parts, "c": parts})
    with pytest.raises(ConfigError, match="'a' on 'b-c' and 'a-b' on 'c' with seed 0 would have the same folder"):
        read_study(file, {})
