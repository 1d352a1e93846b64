"""A first look: what it tells, what it refuses, and that a whole audit goes on from it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import thresher
from audits import Audits, flags
from folders import answers, classifier_folder, generator_folder, reviews, write_rows
from summaries import known_of_classes, told_by_canaries
from thresher.auditing.budget import FEWEST_EPOCHS, FEWEST_TOKENS, PATIENCE, affordable, first_tokens
from thresher.auditing.cost import SHORT, cheaper, passes
from thresher.auditing.plan import make_plan
from thresher.auditing.prepare import prepare
from thresher.cli import app
from thresher.errors import ConfigError, RunError
from thresher.model.features import pooled_features
from thresher.progress import duration

AUDITS = Audits({"train": 60, "validation": 16}, {"batch_size": 8, "rounds": 2})
options = AUDITS.options


@pytest.fixture(scope="module")
def looked(place: Path) -> thresher.AuditResult:
    return thresher.audit(options(place, place / "looked", quick=True, plant=0.2))


def test_a_look_ranks_rows_and_says_how_sure_it_is_and_trains_nothing(looked: thresher.AuditResult) -> None:
    assert len(looked.scores) == 60
    assert "probe_frozen" in looked.all_scores["detector"]
    assert set(looked.all_scores["kind"].values) == {"detector"}
    rate = told_by_canaries(looked).error_rate
    assert rate.low <= rate.estimate <= rate.high
    assert known_of_classes(looked).queries == 16
    kept = {file.name for file in looked.folder.rglob("*")}
    assert not {"tensor.zarr", "checkpoint.json", "weights.safetensors", "adapter_config.json"} & kept


def test_the_look_says_on_pages_and_at_the_console_that_no_model_was_trained(
    place: Path, looked: thresher.AuditResult, tmp_path: Path
) -> None:
    arguments = flags(options(place, looked.folder, quick=True, plant=0.2))
    told = " ".join(CliRunner().invoke(app, ["audit", *arguments]).output.split())
    assert "A probe on the features of the model as it came gets" in told
    assert "without --quick" in told
    cleaned = CliRunner().invoke(app, ["clean", str(looked.folder), "--output", str(tmp_path / "better.jsonl")])
    assert cleaned.exit_code == 0, cleaned.output
    with pytest.raises(RunError, match="a first look computes no influence"):
        thresher.explain(looked.folder, 0)


def test_a_whole_audit_goes_on_from_a_look_and_is_never_replaced_by_one(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common: dict[str, Any] = {"epochs": 2, "learning_rate": 1e-2}
    thresher.audit(options(place, tmp_path / "run", quick=True, **common))
    alone = thresher.audit(options(place, tmp_path / "alone", **common))

    def never(*_: Any) -> Any:
        raise AssertionError("features are there")

    monkeypatch.setattr("thresher.auditing.untrained._joined_features", never)
    whole = thresher.audit(options(place, tmp_path / "run", **common))
    assert "layers" in whole.all_scores["group"]
    np.testing.assert_array_equal(whole.scores["row"], alone.scores["row"])
    with pytest.raises(RunError, match="holds a whole audit, and --quick would replace it"):
        thresher.audit(options(place, tmp_path / "run", quick=True, **common))


def test_features_of_fewer_tokens_are_not_taken_for_those_of_whole_rows(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thresher.auditing.prepare.first_tokens", lambda *_: 4)
    thresher.audit(options(place, tmp_path / "run", quick=True, epochs=1, learning_rate=1e-2))
    monkeypatch.undo()
    seen: list[int] = []

    def counted(subject: Any, rows: Any, *given: Any, **named: Any) -> Any:
        seen.append(int(rows.lengths.max()))
        return pooled_features(subject, rows, *given, **named)

    monkeypatch.setattr("thresher.auditing.untrained.pooled_features", counted)
    thresher.audit(options(place, tmp_path / "run", epochs=1, learning_rate=1e-2))
    assert seen
    assert max(seen) > 4


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"detector": "loss"}, "leave out --detector"),
        ({"retrain": True, "test": "validation"}, "leave out --detector and --retrain"),
        ({"model": "tuned"}, "fine-tuned already"),
        ({"model": "generator", "task": "generate"}, "leave it out for --task generate"),
    ],
)
def test_what_a_look_cannot_do_is_refused(place: Path, tmp_path: Path, more: dict[str, Any], told: str) -> None:
    classifier_folder(place / "tuned", ["bad", "good"])
    generator_folder(place / "generator")
    given = options(place, tmp_path / "run", quick=True) | more
    if "test" in more:
        given["test"] = write_rows(place / "test.jsonl", reviews(12, 3))
    if given["model"] in ("tuned", "generator"):
        given["model"] = str(place / given["model"])
    if "task" in more:
        given |= {name: write_rows(place / f"{name}_answers.jsonl", answers(12, 1)) for name in ("train", "validation")}
    with pytest.raises(ConfigError, match=told):
        prepare(thresher.AuditConfig(**given))


def test_a_look_reads_as_many_tokens_of_a_row_as_its_budget_holds(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(thresher.AuditConfig(**options(place, tmp_path / "run")))
    longest = max(int(job.encoded[part].lengths.max()) for part in ("train", "query"))
    monkeypatch.setattr("thresher.auditing.budget.FEWEST_TOKENS", 2)
    assert first_tokens(job.encoded, job.subject) == longest
    lengths = np.concatenate([job.encoded["train"].lengths, job.encoded["query"].lengths])
    for limit in (3, longest - 1):
        within = 2 * job.subject.weights_a_token * int(np.minimum(lengths, limit).sum())
        monkeypatch.setattr("thresher.auditing.budget.LOOK_CPU", within)
        assert first_tokens(job.encoded, job.subject) == limit
    monkeypatch.setattr("thresher.auditing.budget.LOOK_CPU", 1.0)
    assert first_tokens(job.encoded, job.subject) == 2
    assert FEWEST_TOKENS >= 16


def test_a_cpu_passes_over_the_rows_less_often_where_nobody_says_and_never_less_than_three_times(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = thresher.AuditConfig(**options(place, tmp_path / "run"))
    job = prepare(config)
    train = job.encoded["train"]
    assert job.config.epochs == 10
    one_epoch = 5.0 * job.subject.weights_a_token * int(train.lengths.sum()) * (1 + config.rounds)
    found = {}
    for epochs in (20, 6, 1):
        monkeypatch.setattr("thresher.auditing.budget.TRAININGS_CPU", epochs * one_epoch)
        found[epochs] = affordable(config, job.subject, train).epochs
    assert found == {20: 10, 6: 6, 1: FEWEST_EPOCHS}
    given = config.model_copy(update={"epochs": 10})
    assert affordable(given, job.subject, train).epochs == 10
    patience = [affordable(one, job.subject, train).patience for one in (config, given)]
    assert patience == [PATIENCE, 0]  # what the user gives is taken as it is
    for told in (0, 1):
        assert affordable(config.model_copy(update={"patience": told}), job.subject, train).patience == told


def test_what_is_cheaper_saves_what_it_says(place: Path, tmp_path: Path) -> None:
    given = options(place, tmp_path / "run")
    changes: list[dict[str, Any]] = [{}, {"epochs": 5}, {"learning_rate": 1e-3}, {"quick": True}]
    job, fewer, known, quick = (prepare(thresher.AuditConfig(**given, **more)) for more in changes)
    told = dict(line.split(": ", 1) for line in cheaper(job, 10.0))
    for name, other in (("--epochs 5", fewer), ("a --learning-rate that you know", known)):
        saved = 10.0 * (passes(job, job.config) - passes(other, other.config))
        assert told[name] == f"about {duration(saved)} less"
    assert "from which the audit goes on" in told["--quick"]
    assert f"--max-length {SHORT}" not in told  # rows are shorter
    assert cheaper(quick, 10.0) == ()
    plan = make_plan(quick)
    assert plan.training == "as it came: a first look, nothing is trained"
    assert "seen by a probe each" in plan.canaries
    assert passes(quick, quick.config) < passes(fewer, fewer.config) / 10


def test_the_plan_says_what_is_cheaper_where_a_person_would_not_wait(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(thresher.AuditConfig(**options(place, tmp_path / "run")))
    assert make_plan(job).cheaper == ()
    monkeypatch.setattr("thresher.auditing.plan.LONG", 0.0)
    assert make_plan(job).cheaper


def test_a_look_on_a_model_that_knows_nothing_says_that_it_tells_little(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = reviews(60, 1)
    labels = np.random.default_rng(0).permutation([row["label"] for row in rows])
    shuffled = [{**row, "label": label} for row, label in zip(rows, labels.tolist(), strict=True)]
    train = write_rows(tmp_path / "train.jsonl", shuffled)
    with caplog.at_level(logging.WARNING):
        found = thresher.audit(options(place, tmp_path / "run", quick=True) | {"train": train})
    assert known_of_classes(found).learned is False
    assert "this look tells little" in (known_of_classes(found).doubt or "")
