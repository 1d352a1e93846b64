"""Gradient checkpointing, switched on by the library or built in by hand: right, or a clear error."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import thresher
from conftest import audited, check_gradients, tiny_model, tiny_rows
from thresher.errors import ModelError


class Checkpointed(nn.Module):
    """A layer that forgets what it computed, in whatever mode the model is."""

    def __init__(self, inner: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(partial(self.inner, **kwargs), x, *args, use_reentrant=self.reentrant)


def checkpointed(reentrant: bool, **settings: Any) -> Any:
    model = tiny_model("bert", **settings)
    encoder = (model.get_base_model() if settings else model).bert.encoder
    for number, layer in enumerate(encoder.layer):
        encoder.layer[number] = Checkpointed(layer, reentrant)
    return model


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_switched_on_it_changes_nothing(family: str, reentrant: bool) -> None:
    model = tiny_model(family, lora=True)
    expected = thresher.influence(model, tiny_rows(6), tiny_rows(3, seed=1))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()  # as trainers do for adapters
    assert model.training
    assert check_gradients(model, audited(model), tiny_rows(6)) == ()
    assert thresher.influence(model, tiny_rows(6), tiny_rows(3, seed=1)).identical(expected)
    assert model.get_base_model().is_gradient_checkpointing


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_built_in_without_reentry_is_exact(lora: bool) -> None:
    model = checkpointed(False, lora=True) if lora else checkpointed(False)
    assert check_gradients(model, audited(model), tiny_rows(6)) == ()
    below = [name for name in audited(model) if "embeddings" not in name]  # then a checkpoint holds the lowest layer
    assert check_gradients(model, below, tiny_rows(6)) == ()


def test_built_in_with_reentry_is_refused_where_it_would_be_wrong() -> None:
    model = checkpointed(True)
    with pytest.raises(ModelError, match=r"calls a Linear .* without recording gradients; .*use_reentrant=False"):
        thresher.influence(model, tiny_rows(4), tiny_rows(2))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_built_in_with_reentry_is_right_around_it() -> None:
    rows, query = tiny_rows(6), tiny_rows(3, seed=1)
    outside = "embeddings|pooler|classifier"
    expected = thresher.influence(tiny_model("bert"), rows, query, modules=outside)
    found = thresher.influence(checkpointed(True), rows, query, modules=outside)
    for method in expected:
        assert np.allclose(found[method].values, expected[method].values, rtol=1e-5, atol=1e-12)
