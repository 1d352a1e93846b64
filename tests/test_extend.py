"""What examples/extend adds: each beside its definition, passed in and registered, and as far as an audit takes it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import thresher
from conftest import tiny_model, tiny_rows
from thresher.auditing.prepare import planted
from thresher.calibration.stack import family_of
from thresher.config import AuditConfig
from thresher.data.corruption.answers import plant_texts
from thresher.data.table import read_table, write_table
from thresher.errors import ConfigError, DataError
from thresher.extend import (
    AGGREGATIONS,
    DETECTORS,
    FORMATS,
    INFLUENCE,
    PLANTED,
    SPOILED_ANSWERS,
    TASKS,
    TRACKERS,
    Evidence,
    InfluenceFunction,
)
from thresher.influences.checkpoints import refuse_curved
from thresher.model.names import describe
from thresher.options import make_config
from thresher.registry import Registry
from thresher.scores.names import Configuration, DetectorScore, configuration_called
from thresher.scores.table import available
from thresher.track import tracking

EXAMPLES = Path(__file__).parent.parent / "examples/extend"
REGISTRIES: tuple[Registry[Any], ...] = (
    INFLUENCE,
    AGGREGATIONS,
    DETECTORS,
    FORMATS,
    PLANTED,
    SPOILED_ANSWERS,
    TASKS,
    TRACKERS,
)


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    for registry in REGISTRIES:
        len(registry)  # entry points are read
        monkeypatch.setattr(registry, "_records", dict(registry.items()))
    yield


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_every_example_runs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(file), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) > 1


def test_an_influence_function_is_passed_in_or_registered() -> None:
    made, model, train, query = example("influence_function"), tiny_model("bert"), tiny_rows(6), tiny_rows(3, seed=1)
    options: dict[str, Any] = {"modules": r"classifier|query\.weight"}
    tracin = thresher.influence(model, train, query, methods=["tracin"], **options)["tracin"].values
    own = thresher.influence(model, query, query, methods=["tracin"], **options)["tracin"].values
    truth = tracin / np.diagonal(own, axis1=1, axis2=2)[:, :, None]
    INFLUENCE.register("by_name", made.PROJECTED)
    for method, name in ((made.projected, "projected"), ("by_name", "by_name"), (made.PROJECTED, "projected")):
        found = thresher.influence(model, train, query, methods=[method, "cosine"], **options)
        assert list(found) == [name, "cosine"]
        np.testing.assert_allclose(found[name].values, truth, rtol=1e-4)
    weights = describe(model, ["classifier.weight"])
    assert Configuration("by_name", "CL", "mean", None) in available(weights, ["by_name"], (0.3,))


def test_a_function_that_is_passed_in_is_known_by_its_own_name() -> None:
    model, rows = tiny_model("bert"), tiny_rows(4)
    from thresher.influences.tracin import tracin

    assert list(thresher.influence(model, rows, rows, methods=[tracin], modules="classifier")) == ["tracin"]

    def cosine(pair: Any) -> Any:
        return pair.dots

    for method, message in ((cosine, "'cosine' is taken"), (lambda pair: pair.dots, "'<lambda>' can name no scores")):
        with pytest.raises(ConfigError, match=f"needs a name of its own, and {message}"):
            thresher.influence(model, rows, rows, methods=[method])


def test_what_an_influence_function_says_of_itself_is_held_to() -> None:
    model, rows = tiny_model("bert"), tiny_rows(4)

    def row_sums(pair: Any) -> Any:
        return pair.dots.sum(0)

    with pytest.raises(ConfigError, match=r"'row_sums' gives a tensor of \(4,\) .*a tensor of \(4, 4\), one number"):
        thresher.influence(model, rows, rows, methods=[row_sums], modules="classifier")
    with pytest.raises(ConfigError, match="row_sums needs whole gradients"):
        thresher.influence(model, rows, rows, methods=[row_sums], projection=4)
    INFLUENCE.register("scaled", InfluenceFunction(row_sums, "-", "-", "-", optimizer_aware=True))
    refuse_curved(["tracin", "scaled"], optimizer_aware=True)
    with pytest.raises(ConfigError, match=r"exact cannot take .* choose --methods from tracin, .*scaled, and"):
        refuse_curved(["scaled", "exact"], optimizer_aware=True)


def test_an_aggregation_counts_columns_and_is_a_score_of_every_influence() -> None:
    made = example("aggregation")
    values = np.random.default_rng(0).normal(size=(3, 4, 9))
    tensor = xr.DataArray(values.astype(np.float32), dims=("module", "query", "train"))
    below = (values[..., None, :] < values[..., None]).sum(-1)
    truth = -(below < 2).mean(axis=(0, 1))
    AGGREGATIONS.register("approval", made.APPROVAL)
    for how in (made.APPROVAL, "approval"):
        np.testing.assert_allclose(thresher.aggregate(tensor, how, k=2).values, truth)
    summed = thresher.aggregate(tensor, made.approval, k=2).values  # what is passed in bare is not averaged
    np.testing.assert_allclose(summed, 12 * truth)
    one = Configuration("tracin", "layers", "approval", 0.2)
    assert configuration_called(one.name) == one
    assert configuration_called("tracin/layers/approval") is None  # it votes, so its name says for how many
    with pytest.raises(ConfigError, match=r"gives \(4,\) for 9 rows"):
        thresher.aggregate(tensor, lambda influences, ranks, k: influences.sum(1))


def test_a_detector_counts_forgetting_and_joins_the_combination_with_its_family() -> None:
    made = example("detector")
    rng = np.random.default_rng(1)
    labels, outputs = rng.integers(0, 3, 20), rng.normal(size=(5, 20, 3)).astype(np.float32)
    nothing = np.zeros((5, 20), np.float32)
    evidence = Evidence(labels, 3, nothing, outputs, nothing[0], outputs[-1], labels[:0], None, None, 0)
    right = [[int(outputs[e, i].argmax()) == labels[i] for i in range(20)] for e in range(5)]
    truth = [-sum(right[e][i] and not right[e + 1][i] for e in range(4)) for i in range(20)]
    assert min(truth) < -1
    DETECTORS.register("forgetting", made.FORGETTING)
    from thresher.detectors.registry import detect

    np.testing.assert_array_equal(detect(evidence)["forgetting"], truth)
    assert family_of(DetectorScore("forgetting")) == made.FORGETTING.family
    untrained = Evidence(labels, 3, nothing[:0], outputs[:0], nothing[0], outputs[-1], labels[:0], None, None, 0)
    assert "forgetting" not in detect(untrained)


def test_planted_errors_formats_trackers_and_tasks_are_taken_by_name_in_an_audit(tmp_path: Path) -> None:
    """Rows of an own format, for an own task, with own errors: read, spoiled and told of by what an audit calls."""
    PLANTED.register("hurried", example("planted_error").hurried)
    FORMATS.register(".ft", example("file_format").FASTTEXT)
    TRACKERS.register("jsonlines", example("tracker").JSON_LINES)
    TASKS.register("stars", example("task").Stars)
    lines = [f"__label__{1 + 4 * (row % 2)} review {'x' * row}\n" for row in range(20)]
    file = tmp_path / "rows.ft.gz"
    file.write_bytes(gzip.compress("".join(lines).encode()))
    given = read_table(str(file))
    stars = replace(given, columns=("stars", "text"), records=[_stars(record) for record in given.records])
    config = AuditConfig(
        train=str(file), validation=str(file), model="tiny", task="stars", plant=0.2, plant_kind="hurried",
        log_to="jsonlines",
    )  # fmt: skip
    task = TASKS[config.task].read({"train": stars, "query": stars}, config)
    spoiled, flags = planted(task, config, lambda: np.zeros((20, 2)))
    assert flags.tolist() == [True] * 4 + [False] * 16  # the shortest
    assert [spoiled.describe("train", row)["label"] for row in range(6)] == [
        "good",
        "bad",
        "good",
        "bad",
        "bad",
        "good",
    ]
    with tracking(config.log_to, tmp_path) as tracker:
        tracker.numbers({"loss": 0.5}, 3)
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert told[1:] == [{"step": 3, "loss": 0.5}, {"failed": False}]
    write_table(given, tmp_path / "back.ft.gz")
    assert gzip.decompress((tmp_path / "back.ft.gz").read_bytes()).decode() == "".join(lines)
    broken = tmp_path / "broken.ft"
    broken.write_text(lines[0] + "no label\n")
    with pytest.raises(DataError, match=r"broken.ft, row 1 \(line 2\): a line begins with __label__"):
        read_table(str(broken))
    with pytest.raises(DataError, match=r"row 3: 3 stars are neither"):
        three = [*stars.records[:3], {"stars": "3", "text": "so so"}]
        TASKS["stars"].read({"train": replace(stars, records=three, lines=())}, config)


def _stars(record: Any) -> dict[str, Any]:
    return {"stars": record["label"], "text": record["text"]}


def test_names_of_a_configuration_are_checked_in_the_same_words() -> None:
    given: dict[str, Any] = {"train": "t", "validation": "v", "model": "m"}
    for option, message in (
        ({"task": "rank"}, "--task: Input should be 'classify' or 'generate' (given: 'rank')"),
        (
            {"log_to": "paper"},
            "--log-to: Input should be 'tensorboard', 'wandb', 'mlflow' or 'trackio' (given: 'paper')",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            make_config(AuditConfig, given | option)
        assert str(error.value) == message


def test_an_answer_is_spoiled_by_a_function_from_outside() -> None:
    SPOILED_ANSWERS.register("shout", lambda text, rng: "" if text.isupper() else text.upper())
    texts, flags = plant_texts(["one", "TWO", "three"], 0.67, "shout", np.random.default_rng(0))
    assert (texts, flags.tolist()) == (["ONE", "TWO", "THREE"], [True, False, True])
    assert "shout" in TASKS["generate"].plant_kinds()
