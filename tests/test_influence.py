"""The tensor against the definitions of method.md 3, evaluated in float64 on gradients of a plain row-by-row loop."""

from __future__ import annotations

from typing import Any, cast

import datasets
import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import thresher
from conftest import CONFIGS, audited, cancels, relative_error, tiny_model, tiny_rows, true_gradients
from thresher.errors import ConfigError, DataError, GradientError, ModelError
from thresher.gradients import collect
from thresher.model.names import embedding_name
from written_out import TOLERANCE, defined

METHODS = ("tracin", "cosine", "datainf", "tracin_we", "tracin_we_topk")


def ten_largest(gradients: Tensor) -> Tensor:
    """Zero all but each row's ten tokens of largest gradient norm. ``gradients`` [n, V, d]."""
    kept = gradients.norm(dim=-1).topk(10, dim=1).indices
    mask = torch.zeros(gradients.shape[:2], dtype=gradients.dtype).scatter_(1, kept, 1.0)
    return (gradients * mask[..., None]).flatten(1)


def check_exact(model: Any, tensor: xr.Dataset, train: list[dict[str, Any]], query: list[dict[str, Any]]) -> None:
    names = [str(name) for name in tensor["module"].values]
    v, g = true_gradients(model, query, names), true_gradients(model, train, names)
    embedding = embedding_name(model)
    for name in names:
        here = tensor.sel(module=name)
        if cancels(g[name]):
            for method in ("tracin", "cosine", "datainf"):
                assert not here[method].values.any(), f"{name} carries only rounding noise, but {method} is not zero"
            continue
        truth = defined(v[name].flatten(1), g[name].flatten(1))
        if name == embedding:
            truth["tracin_we"] = truth["tracin"]
            truth["tracin_we_topk"] = ten_largest(v[name]) @ ten_largest(g[name]).T
        for method in METHODS:
            if method in truth:
                assert relative_error(here[method].values, truth[method]) < TOLERANCE, (name, method)
            else:
                assert np.isnan(here[method].values).all()


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("family", list(CONFIGS))
def test_every_module_and_pair_equals_the_definition(family: str, lora: bool) -> None:
    model = tiny_model(family, lora=lora)
    train, query = tiny_rows(9, seed=1), tiny_rows(4, seed=2)
    tensor = thresher.influence(model, train, query, methods=METHODS, batch_size=4)
    assert list(tensor["module"].values) == audited(model)
    check_exact(model, tensor, train, query)


def padded(row: dict[str, Any], length: int, side: str, pad: int) -> dict[str, Any]:
    extra = length - len(row["input_ids"])
    ids, mask = row["input_ids"], row["attention_mask"]
    if side == "left":
        return {**row, "input_ids": [pad] * extra + ids, "attention_mask": [0] * extra + mask}
    return {**row, "input_ids": ids + [pad] * extra, "attention_mask": mask + [0] * extra}


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_changes_a_result(family: str, side: str) -> None:
    model = tiny_model(family, lora=True)
    train, query = tiny_rows(7, seed=3), tiny_rows(3, seed=4)
    plain = thresher.influence(model, train, query, batch_size=3)
    # Pads of any id, the model's own or another, are hidden by the mask.
    given = [padded(row, 25, side, pad=5) for row in train]
    found = thresher.influence(model, given, query, batch_size=3)
    for method in plain:
        assert relative_error(found[method].values, torch.tensor(plain[method].values).double()) < TOLERANCE


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_batch_size_and_row_order_do_not_matter(bert: Any, batch_size: int) -> None:
    train, query = tiny_rows(8, seed=5), tiny_rows(4, seed=6)
    plain = thresher.influence(bert, train, query, methods=METHODS, batch_size=3)
    order = np.random.default_rng(0).permutation(len(train))
    found = thresher.influence(bert, [train[i] for i in order], query, methods=METHODS, batch_size=batch_size)
    for method in plain:
        expected = torch.tensor(np.nan_to_num(plain[method].values[:, :, order])).double()
        assert relative_error(np.nan_to_num(found[method].values), expected) < TOLERANCE


def test_a_decoder_without_a_pad_id_pools_the_last_token() -> None:
    model = tiny_model("llama", lora=True)
    train, query = tiny_rows(6, seed=7), tiny_rows(3, seed=8)
    expected = thresher.influence(model, train, query)
    model.config.pad_token_id = None
    found = thresher.influence(model, train, query)
    assert model.config.pad_token_id is None
    assert relative_error(found["tracin"].values, torch.tensor(expected["tracin"].values).double()) < TOLERANCE


def test_the_sum_over_modules_is_the_influence_of_all_parameters(bert: Any) -> None:
    train, query = tiny_rows(6, seed=9), tiny_rows(3, seed=10)
    tensor = thresher.influence(bert, train, query, methods=("tracin",))
    v, g = (true_gradients(bert, rows, audited(bert)) for rows in (query, train))
    whole = [torch.cat([x.flatten(1) for x in side.values()], dim=1) for side in (v, g)]
    assert relative_error(tensor["tracin"].sum("module").values, whole[0] @ whole[1].T) < TOLERANCE


def test_a_row_is_most_like_itself(bert: Any) -> None:
    rows = tiny_rows(6, seed=11)
    tensor = thresher.influence(bert, rows, rows, methods=("tracin", "cosine"))
    telling = tensor["tracin"].values.any(axis=(1, 2))
    cosine = tensor["cosine"].values[telling]
    assert np.allclose(np.diagonal(cosine, axis1=1, axis2=2), 1.0, atol=1e-5)
    assert cosine.max() <= 1 + 1e-5
    tracin = tensor["tracin"].values
    assert np.allclose(tracin, tracin.transpose(0, 2, 1), rtol=1e-4, atol=1e-6)


def test_cosine_is_zero_where_a_gradient_is_zero() -> None:
    model = tiny_model("bert", lora=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()  # as at the start of training: A's gradient is then exactly zero
    tensor = thresher.influence(model, tiny_rows(5), tiny_rows(3, seed=1))
    a_only = tensor.isel(module=(tensor["factor"] == "A").values)
    assert a_only.sizes["module"] > 0
    for method in a_only:
        assert not a_only[method].values.any()


def test_modules_are_named_by_block_layer_projection_factor_and_group() -> None:
    model = tiny_model("roberta", lora=True)
    tensor = thresher.influence(model, tiny_rows(3), tiny_rows(2, seed=1), methods=("tracin",))
    kinds = tensor.drop_vars("tracin").to_dataframe()[["group", "layer", "projection", "factor"]].drop_duplicates()
    found = {tuple(row) for row in kinds.itertuples(index=False)}
    assert ("WE", -1, "-", "weight") in found
    assert {("1", 0, p, f) for p in ("query", "value") for f in "AB"} <= found
    assert {("3", 1, p, f) for p in ("query", "value") for f in "AB"} <= found
    assert ("CL", -1, "-", "weight") in found
    assert tensor["correct"].dtype == bool


def test_modules_can_be_chosen_by_a_pattern(bert: Any) -> None:
    tensor = thresher.influence(bert, tiny_rows(3), tiny_rows(2), modules=r"layer\.1\..*query\.weight$")
    assert list(tensor["module"].values) == ["bert.encoder.layer.1.attention.self.query.weight"]
    assert list(tensor) == ["tracin", "cosine", "datainf"]


def test_rows_may_be_a_dataset_and_the_result_is_float32(bert: Any) -> None:
    rows = tiny_rows(5)
    train, query = (cast(Any, datasets.Dataset.from_list(part)) for part in (rows, rows[:2]))
    tensor = thresher.influence(bert, train, query)
    expected = thresher.influence(bert, rows, rows[:2])
    for method in tensor:
        assert tensor[method].dtype == np.float32
        assert tensor[method].dims == ("module", "query", "train")
        assert np.array_equal(tensor[method].values, expected[method].values)


def test_the_same_call_gives_the_same_bytes(bert: Any) -> None:
    first, second = (thresher.influence(bert, tiny_rows(6), tiny_rows(3, seed=1)) for _ in range(2))
    assert first.identical(second)


@pytest.mark.parametrize(
    ("rows", "error"),
    [([], DataError), ([{"labels": 1}], DataError), ([{"input_ids": [3, 4], "attention_mask": [0, 0]}], DataError)],
)
def test_rows_that_are_no_rows_are_refused(bert: Any, rows: list[dict[str, Any]], error: type[Exception]) -> None:
    with pytest.raises(error, match="train"):
        thresher.influence(bert, rows, tiny_rows(2))


def test_unknown_methods_and_modules_are_refused(bert: Any) -> None:
    with pytest.raises(ConfigError, match="tracout"):
        thresher.influence(bert, tiny_rows(2), tiny_rows(2), methods=("tracout",))
    with pytest.raises(ModelError, match="no_such_layer"):
        thresher.influence(bert, tiny_rows(2), tiny_rows(2), modules="no_such_layer")


def test_rows_with_a_loss_that_is_not_finite_are_named() -> None:
    model = tiny_model("bert")
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")
    rows = [{**row, "input_ids": [t if t != 7 else 8 for t in row["input_ids"]]} for row in tiny_rows(6)]
    rows[4]["input_ids"][1] = 7
    with pytest.raises(GradientError, match="train row 4 "):
        thresher.influence(model, rows, tiny_rows(1, seed=99, low=4, high=5), modules="classifier")


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_sample_of_reference_rows_fits_what_all_rows_are_met_with(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "BLOCK_ROWS", 4)
    model = tiny_model(family, lora=True)
    train, query = tiny_rows(23, seed=1), tiny_rows(4, seed=2)
    tensor = thresher.influence(model, train, query, methods=METHODS, batch_size=4, reference=9)
    sample = np.flatnonzero(tensor["reference"].values)
    assert len(sample) == 9
    names = [str(name) for name in tensor["module"].values]
    v, g = true_gradients(model, query, names), true_gradients(model, train, names)
    exact = thresher.influence(model, train, query, methods=METHODS, batch_size=4)
    for name in (name for name in names if not cancels(g[name])):
        mine, every = v[name].flatten(1), g[name].flatten(1)
        part = every[sample]
        damping, squares = 0.1 * (part**2).mean(), (part**2).sum(1)
        sums = (mine @ part.T / (damping + squares)) @ part
        truth = (mine - sums / len(part)) @ every.T / damping
        assert relative_error(tensor["datainf"].sel(module=name).values, truth) < TOLERANCE, name
        for method in ("tracin", "cosine", "tracin_we", "tracin_we_topk"):  # which hang on a pair of rows alone
            found, expected = (np.nan_to_num(one[method].sel(module=name).values) for one in (tensor, exact))
            assert np.allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    for how in ("rank", "vote"):
        below = thresher.aggregate(tensor["cosine"], how, queries="all").values
        ranks = np.zeros(23)
        for column in tensor["cosine"].values.reshape(-1, 23):
            under = (column[sample][:, None] < column).sum(0)
            if len(set(column[sample])) > 1:
                ranks += under if how == "rank" else -np.maximum(int(0.3 * 9) - under, 0)
        assert np.array_equal(below, ranks)


def test_as_many_reference_rows_as_rows_is_every_row(bert: Any) -> None:
    rows = tiny_rows(6)
    for reference in (6, 100):
        assert thresher.influence(bert, rows, rows[:2], reference=reference).identical(
            thresher.influence(bert, rows, rows[:2])
        )
    some = thresher.influence(bert, rows, rows[:2], reference=3, methods=["exact", "tracin"])
    assert "reference" not in some.coords  # what needs all rows' products takes them


def test_a_row_that_is_not_finite_is_named_by_its_place_in_the_data() -> None:
    model = tiny_model("bert")
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")
    clean = [{**row, "input_ids": [t if t != 7 else 8 for t in row["input_ids"]]} for row in tiny_rows(8)]
    for bad in range(8):  # whether it is a reference row or not
        rows = [{**row, "input_ids": list(row["input_ids"])} for row in clean]
        rows[bad]["input_ids"][1] = 7
        with pytest.raises(GradientError, match=f"train row {bad} "):
            thresher.influence(model, rows, clean[:1], modules="classifier", reference=4)
