"""Models in bfloat16: the model rounds as it does, and gradients are formed and summed in float32."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import thresher
from conftest import audited, dense, pass_gradients, relative_error, tiny_model, tiny_rows, true_gradients
from thresher.gradients.gradient_pass import gradient_pass
from thresher.gradients.rules import rule_for
from thresher.model.inputs import encoded_rows

EPS = torch.finfo(torch.bfloat16).eps


def short(family: str, *, lora: bool = False) -> Any:
    return tiny_model(family, lora=lora).to(torch.bfloat16)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "gemma", "t5-encoder"])
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_gradients_are_as_good_as_the_forward_pass(family: str, lora: bool) -> None:
    model, rows = short(family, lora=lora), tiny_rows(8)
    names = audited(model)
    found, row_by_row = pass_gradients(model, names, rows)
    truth = true_gradients(model, rows, names)  # on the same, rounded weights
    largest = max(float(gradient.norm()) for gradient in truth.values())
    for name in names:
        assert found[name].dtype == torch.float32
        difference = float((found[name].double() - truth[name]).norm())
        assert difference < 12 * EPS * float(truth[name].norm()) + EPS / 4 * largest, name
    assert all("relative_attention_bias" in name for name in row_by_row)


@contextmanager
def seen(model: nn.Module, kind: type[nn.Module]) -> Generator[dict[str, list[Tensor]]]:
    """What went into each layer and the gradient of what came out, in the model's own dtype."""
    calls: dict[str, list[Tensor]] = {}

    def watcher(name: str) -> Any:
        def watch(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            output.register_hook(lambda delta: calls.__setitem__(name, [args[0].detach(), delta]))

        return watch

    handles = [m.register_forward_hook(watcher(n)) for n, m in model.named_modules() if isinstance(m, kind)]
    yield calls
    for handle in handles:
        handle.remove()


def test_sums_over_positions_are_float32() -> None:
    model = short("bert")
    data = encoded_rows(tiny_rows(6, low=40, high=60), model, "train")
    layers: dict[str, Any] = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    with gradient_pass(model, [f"{name}.weight" for name in layers], data) as one_pass:
        batch = data.batch(np.arange(6), one_pass.pad_id, one_pass.device)
        with seen(model, nn.Linear) as calls:
            found = one_pass.gradients(data, batch)
        assert one_pass.row_by_row == ()
    assert calls.keys() == layers.keys()
    for name, (x, delta) in calls.items():
        assert x.dtype == delta.dtype == torch.bfloat16
        inputs, outputs = (t.double().reshape(6, -1, t.shape[-1]) for t in (x, delta))
        expected = torch.einsum("bto,bti->boi", outputs, inputs)
        assert relative_error(dense(found.modules[f"{name}.weight"], layers[name].weight), expected) < 1e-6, name
        coarse = torch.einsum("bto,bti->boi", outputs.bfloat16(), inputs.bfloat16())
        assert relative_error(coarse.float(), expected) > 1e-4, "the reference would not notice bfloat16 sums"


@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_norms_and_biases_are_float32(parameter: str) -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(32).bfloat16()
    x, delta = torch.randn(4, 50, 32).bfloat16(), torch.randn(4, 50, 32).bfloat16()
    rule = rule_for(norm, parameter)
    assert rule is not None
    scale = torch.nn.functional.layer_norm(x.double(), (32,)) if parameter == "weight" else torch.ones(1)
    assert relative_error(rule(norm, x, delta, 4, "dense"), (delta.double() * scale).sum(1)) < 1e-6


def test_scaled_tables_are_float32() -> None:
    model = short("gemma")
    embedding = "model.embed_tokens.weight"
    found, row_by_row = pass_gradients(model, [embedding], tiny_rows(6))
    assert row_by_row == ()
    truth = true_gradients(model, tiny_rows(6), [embedding])[embedding]
    assert relative_error(found[embedding], truth) < 12 * EPS


def test_scores_of_bfloat16_models_are_float32_and_agree() -> None:
    model = short("bert", lora=True)
    rows, query = tiny_rows(8), tiny_rows(4, seed=1)
    found = thresher.influence(model, rows, query, methods=("cosine",))
    exact = thresher.influence(model.float(), rows, query, methods=("cosine",))
    assert found["cosine"].dtype == np.float32
    last = "base_model.model.classifier.modules_to_save.default.weight"
    agreement = np.corrcoef(
        found["cosine"].sel(module=last).values.ravel(), exact["cosine"].sel(module=last).values.ravel()
    )
    assert agreement[0, 1] > 0.99
    assert len(np.unique(found["cosine"].values)) > 0.9 * found["cosine"].size
