"""Every influence function against its definition, written out in float64 on gradients of a plain row-by-row loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM
from torch import Tensor

import thresher
from conftest import cancels, relative_error, tiny_model, tiny_rows, true_gradients
from thresher.errors import ConfigError
from thresher.gradients import forms
from thresher.influences import pairing as pairing_module
from thresher.influences.inverse import exact
from thresher.influences.lissa import lissa
from thresher.influences.pairing import Combination, Pairing
from thresher.model.names import embedding_name

TOLERANCE = 1e-5
# An inverse multiplies the rounding of float32 gradients by its condition number; distances of rows that are close lose
# digits, and a support vector machine stops at 1e-3.
TOLERANCES = {"exact": 1e-4, "outlier_svm": 2e-3, "outlier_lof": 2e-3}
WEIGHTS = ("exact", "datainf_one", "covariance", "self_influence", "outlier_svm", "outlier_lof")


def defined(v: Tensor, g: Tensor, query: list[Any], train: list[Any]) -> dict[str, Tensor]:
    """The formulas of method.md 3. ``v`` [Q, p], ``g`` [N, p]."""
    p = g.shape[1]
    at = 0.1 * (g**2).mean()
    fisher = g.T @ g / len(g) + at * torch.eye(p)
    squares = (g**2).sum(1)
    centred = (v - v.mean(1, keepdim=True)) @ (g - g.mean(1, keepdim=True)).T
    labels = {side: np.array([row["labels"] for row in rows]) for side, rows in (("q", query), ("t", train))}
    judges: dict[str, Any] = {
        "outlier_svm": lambda: OneClassSVM(kernel="rbf", gamma="scale"),
        "outlier_lof": lambda: LocalOutlierFactor(n_neighbors=20, novelty=True),
    }
    outliers = {name: torch.zeros(len(v), len(g)).double() for name in judges}
    for name, judge in judges.items():
        for label in set(labels["t"]):
            mine = v[labels["q"] == label]
            if len(mine) > 1:
                fitted = judge().fit(mine.numpy())
                outliers[name][:, labels["t"] == label] = torch.tensor(
                    fitted.decision_function(g[labels["t"] == label].numpy())
                )
    return {
        "exact": v @ torch.linalg.solve(fisher, g.T),
        "datainf_one": (v @ g.T) / (0.1 * (g**2).mean(1) + squares),
        "covariance": centred / (p - 1),
        "self_influence": -squares.expand(len(v), len(g)),
        **outliers,
    }


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.filterwarnings("ignore:n_neighbors")
def test_every_function_equals_its_definition(family: str) -> None:
    model = tiny_model(family, lora=True)
    train, query = tiny_rows(14, seed=1), tiny_rows(9, seed=2)
    tensor = thresher.influence(model, train, query, methods=WEIGHTS, batch_size=4)
    names = [str(name) for name in tensor["module"].values]
    v, g = true_gradients(model, query, names), true_gradients(model, train, names)
    for name in names:
        if cancels(g[name]):
            continue
        truth = defined(v[name].flatten(1), g[name].flatten(1), query, train)
        for method in WEIGHTS:
            found = tensor[method].sel(module=name).values
            assert relative_error(found, truth[method]) < TOLERANCES.get(method, TOLERANCE), (name, method)


def test_lissa_converges_to_the_exact_one() -> None:
    torch.manual_seed(0)
    pair = Plain(torch.randn(4, 6), torch.randn(30, 6))
    truth = exact(pair)
    assert truth is not None
    errors = [relative_error(lissa(pair, steps, 0.0), truth.double()) for steps in (1, 10, 100, 3000)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[-1] < TOLERANCE < errors[0]


def test_exact_by_rows_equals_exact_by_parameters() -> None:
    torch.manual_seed(0)
    v, g = torch.randn(5, 12), torch.randn(20, 12)
    by_rows = exact(Plain(v, g))
    at = 0.1 * float((g.double() ** 2).mean())
    by_parameters = v.double() @ torch.linalg.solve(g.double().T @ g.double() / 20 + at * torch.eye(12), g.double().T)
    assert by_rows is not None
    assert relative_error(by_rows, by_parameters) < TOLERANCE


class Plain(Pairing):
    """Two matrices as a module."""

    def __init__(self, v: Tensor, g: Tensor) -> None:
        self.sides = {"query": v, "train": g, "reference": g}
        self.reference = self
        self.queries, self.rows, self.size = len(v), len(g), v.shape[1]

    def products(self, first: Any, second: Any) -> Tensor:
        return self.sides[first] @ self.sides[second].T

    def along(self, combination: Combination) -> Tensor:
        return combination.weights @ self.gram

    def _of_rows(self, side: Any, amount: Any) -> Tensor:
        return amount(self.sides[side])


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_repsim_is_the_cosine_of_hidden_states(family: str) -> None:
    model = tiny_model(family, lora=True).eval()
    train, query = tiny_rows(6, seed=1), tiny_rows(4, seed=2)
    tensor = thresher.influence(model, train, query, methods=("repsim", "tracin"), batch_size=4)

    def states(row: dict[str, Any], layer: int, pooling: str) -> Tensor:
        with torch.no_grad():
            output = model(input_ids=torch.tensor([row["input_ids"]]), output_hidden_states=True)
        state = output.hidden_states[layer + 1][0].double()
        return state[-1] if pooling == "last" else state.mean(0)

    for layer in (-1, 0, 1):
        for pooling in ("last", "mean"):
            v, g = (torch.stack([states(row, layer, pooling) for row in rows]) for rows in (query, train))
            truth = torch.nn.functional.cosine_similarity(v[:, None], g[None], dim=-1)
            name = f"hidden.{'embedding' if layer < 0 else layer}.{pooling}"
            here = tensor.sel(module=name)
            assert relative_error(here["repsim"].values, truth) < TOLERANCE
            assert np.isnan(here["tracin"].values).all()
            assert (int(here["layer"]), str(here["group"].values)) == (layer, {-1: "WE", 0: "1", 1: "3"}[layer])


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "roberta"])
def test_the_head_kernel_is_tracin_on_the_last_matrix_without_a_backward_pass(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(family, lora=True)
    train, query = tiny_rows(7, seed=1), tiny_rows(4, seed=2)
    weight = [name for name, p in model.named_parameters() if p.requires_grad and p.shape[0] == 3 and p.dim() == 2][-1]
    expected = thresher.influence(model, train, query, methods=("tracin",), modules=f"^{weight}$")
    seen: list[str] = []
    original = torch.Tensor.register_hook
    monkeypatch.setattr(torch.Tensor, "register_hook", lambda self, hook: (seen.append("x"), original(self, hook))[1])
    found = thresher.influence(model, train, query, methods=("head_kernel",), batch_size=16)
    assert list(found["module"].values) == ["head"]
    assert len(seen) == 3  # one a batch, on the head's own output: three rows of the check, queries, training rows
    assert relative_error(found["head_kernel"].values[0], torch.tensor(expected["tracin"].values[0]).double()) < 1e-5


def test_forms_do_not_change_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("bert")
    train, query = tiny_rows(9, seed=1), tiny_rows(4, seed=2)
    methods = ("tracin", "cosine", "datainf", "exact", "covariance", "self_influence", "outlier_svm")
    found: dict[str, Any] = {}
    for form in ("dense", "factored"):
        monkeypatch.setattr(
            "thresher.influences.modules.choose_forms",
            lambda model, names, *, form=form, **options: dict.fromkeys(
                (n for n in names if n.endswith("weight") and "embeddings" not in n and "Norm" not in n), form
            ),
        )
        found[form] = thresher.influence(model, train, query, methods=methods, batch_size=4)
    for method in methods:
        expected = torch.tensor(found["dense"][method].values).double()
        assert relative_error(found["factored"][method].values, expected) < 1e-5, method


def test_entry_by_entry_and_multiplied_out_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from thresher.gradients.rows import FactoredGradients
    from thresher.influences import matrices

    torch.manual_seed(0)
    sides: list[FactoredGradients] = []
    for rows in (5, 8):
        row = torch.randint(rows, (30,)).sort().values
        sides.append(FactoredGradients(row=row, left=torch.randn(30, 6), right=torch.randn(30, 7), rows=rows))
    a, b = sides
    truth = a.dense().double() @ b.dense().double().T
    for cheap in (True, False):
        monkeypatch.setattr(matrices, "_entrywise_is_cheaper", lambda a, b, cheap=cheap: cheap)
        assert relative_error(matrices.row_products(a, b), truth) < TOLERANCE
    assert relative_error(a.squared_norms(), a.dense().double().square().sum(1)) < TOLERANCE
    assert relative_error(a.entry_sums(), a.dense().double().sum(1)) < 1e-4


def test_a_projection_is_unbiased_and_its_error_is_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over draws of the projection, estimates average to the true products, within the stated spread."""
    model = tiny_model("bert")
    train, query = tiny_rows(6, seed=1), tiny_rows(5, seed=2)
    options: dict[str, Any] = {"methods": ("tracin",), "modules": r"layer\.1\.intermediate\.dense\.weight"}
    truth = thresher.influence(model, train, query, **options)["tracin"].values[0]
    k, draws = 8, 60
    norms = [
        np.sqrt(np.diagonal(thresher.influence(model, rows, rows, **options)["tracin"].values[0]))
        for rows in (query, train)
    ]
    scale = norms[0][:, None] * norms[1]
    estimates: list[Any] = []
    for seed in range(draws):
        monkeypatch.setattr(forms, "SEED", seed)
        estimates.append(thresher.influence(model, train, query, projection=k, **options)["tracin"].values[0])
    errors = (np.stack(estimates) - truth) / scale
    spread = np.sqrt((errors**2).mean())
    assert np.abs(errors.mean(0)).max() < 5 * spread / np.sqrt(draws)
    assert 1 / k < spread < np.sqrt((1 + 2 / k) ** 2 - 1)
    again = thresher.influence(model, train, query, projection=k, **options)["tracin"].values[0]
    assert np.array_equal(again, estimates[-1])


def test_a_projection_leaves_small_sides_whole(bert: Any) -> None:
    train, query = tiny_rows(6, seed=1), tiny_rows(5, seed=2)
    exact = thresher.influence(bert, train, query, methods=("tracin", "datainf"))
    wide = thresher.influence(bert, train, query, methods=("tracin", "datainf"), projection=64)
    for method in exact:
        assert relative_error(wide[method].values, torch.tensor(exact[method].values).double()) < TOLERANCE


def test_what_cannot_be_done_is_said(bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tiny_rows(4)
    with pytest.raises(ConfigError, match="covariance needs whole gradients"):
        thresher.influence(bert, rows, rows, methods=("covariance",), projection=8)
    monkeypatch.setattr(pairing_module, "MOST_GRAM_ROWS", 3)
    with pytest.raises(ConfigError, match="leave them out of --methods"):
        thresher.influence(bert, rows, rows, methods=("exact",), modules=embedding_name(bert))
