"""What examples/extend adds: each beside its definition, passed in and registered, and as far as an audit takes it."""

from __future__ import annotations

import importlib.util
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import thresher
from conftest import tiny_model, tiny_rows
from thresher.calibration.stack import family_of
from thresher.errors import ConfigError
from thresher.extend import AGGREGATIONS, DETECTORS, INFLUENCE, Evidence, InfluenceFunction
from thresher.influences.checkpoints import refuse_curved
from thresher.model.names import describe
from thresher.registry import Registry
from thresher.scores.table import Configuration, available

EXAMPLES = Path(__file__).parent.parent / "examples/extend"
REGISTRIES: tuple[Registry[Any], ...] = (INFLUENCE, AGGREGATIONS, DETECTORS)


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    for registry in REGISTRIES:
        len(registry)  # entry points are read
        monkeypatch.setattr(registry, "_records", dict(registry))
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
    assert Configuration.parse(one.name) == one
    assert Configuration.parse("tracin/layers/approval") is None  # it votes, so its name says for how many
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
    assert family_of("detector/forgetting") == made.FORGETTING.family
    untrained = Evidence(labels, 3, nothing[:0], outputs[:0], nothing[0], outputs[-1], labels[:0], None, None, 0)
    assert "forgetting" not in detect(untrained)
