"""The pass itself: how often the model is run, what is left behind, and what happens where no rule fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import thresher
from conftest import PAD, audited, check_gradients, tiny_model, tiny_rows
from thresher.data.encode import length_batches
from thresher.gradients.gradient_pass import gradient_pass
from thresher.model.inputs import encoded_rows
from thresher.model.names import embedding_name


def test_one_forward_and_one_backward_a_batch(bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tiny_rows(12)
    data = encoded_rows(rows, bert, "train")
    backwards: list[int] = []
    forwards: list[int] = []
    backward = torch.autograd.backward
    with gradient_pass(bert, audited(bert), data) as one_pass:
        monkeypatch.setattr(torch.autograd, "backward", lambda *a, **k: (backwards.append(1), backward(*a, **k))[1])
        handle = bert.register_forward_hook(lambda *_: forwards.append(1))
        batches = length_batches(data.lengths, 5)
        for batch_rows in batches:
            one_pass.gradients(data, data.batch(batch_rows, one_pass.pad_id, one_pass.device))
        handle.remove()
    assert len(forwards) == len(backwards) == len(batches) == 3


def test_no_weight_gradient_is_ever_computed(bert: Any) -> None:
    data = encoded_rows(tiny_rows(6), bert, "train")
    batch = data.batch(np.arange(6), PAD, torch.device("cpu"))
    table = bert.get_input_embeddings().weight
    with gradient_pass(bert, [str(embedding_name(bert))], data) as one_pass:
        with FlopCounterMode(display=False) as ours:
            one_pass.gradients(data, batch)
        # The least there is to do: differentiate with respect to what the embedding gives, every weight frozen.
        with FlopCounterMode(display=False) as least:
            vectors = F.embedding(batch.inputs["input_ids"], table).requires_grad_()
            logits = bert(inputs_embeds=vectors, attention_mask=batch.inputs["attention_mask"]).logits
            F.cross_entropy(logits, batch.labels).backward()
    assert ours.get_total_flops() == least.get_total_flops() > 0
    assert all(parameter.grad is None for parameter in bert.parameters())


def test_the_model_comes_back_as_it_was() -> None:
    model = tiny_model("bert", lora=True)
    model.base_model.model.bert.encoder.layer[0].eval()  # a mixture must survive
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    thresher.influence(model, tiny_rows(4), tiny_rows(2))
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == before[name][0]
        assert torch.equal(parameter, before[name][1])
        assert parameter.grad is None


def test_the_model_comes_back_as_it_was_after_an_error(bert: Any) -> None:
    flags = [parameter.requires_grad for parameter in bert.parameters()]
    with pytest.raises(IndexError):  # a token that the model does not have
        thresher.influence(bert, [{"input_ids": [9999], "labels": 0}], tiny_rows(1))
    assert [parameter.requires_grad for parameter in bert.parameters()] == flags
    assert bert.training
    assert not any(module._forward_hooks for module in bert.modules())


def test_it_works_under_no_grad(bert: Any) -> None:
    expected = thresher.influence(bert, tiny_rows(4), tiny_rows(2))
    with torch.no_grad():
        assert thresher.influence(bert, tiny_rows(4), tiny_rows(2)).identical(expected)


def test_a_key_bias_is_exactly_zero_and_nothing_else_is(bert: Any) -> None:
    tensor = thresher.influence(bert, tiny_rows(6), tiny_rows(3, seed=1))
    silent = {name for name in tensor["module"].values if not tensor["tracin"].sel(module=name).values.any()}
    assert silent == {f"bert.encoder.layer.{i}.attention.self.key.bias" for i in range(2)}


def test_a_table_shared_by_all_rows_is_done_row_by_row() -> None:
    model = tiny_model("mpnet")
    # As many rows in a batch as tokens: the shape alone would not betray that the table has no batch dimension.
    rows = tiny_rows(8, low=4, high=5)
    assert check_gradients(model, audited(model), rows) == ("mpnet.encoder.relative_attention_bias.weight",)


class Twice(nn.Module):
    """A layer that is called two times, with different inputs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(torch.tanh(self.inner(x)))


def test_a_layer_called_twice_adds_up() -> None:
    model = tiny_model("bert")
    attention = model.bert.encoder.layer[0].attention.self
    attention.query = Twice(attention.query)
    names = [name for name in audited(model) if "layer.0" in name]
    assert check_gradients(model, names, tiny_rows(7)) == ()


def test_a_table_that_is_also_a_matrix_is_right() -> None:
    model = tiny_model("bert")
    dense = model.bert.encoder.layer[0].intermediate.dense
    table = model.get_input_embeddings()
    tied = nn.Linear(32, len(table.weight), bias=False)
    tied.weight = table.weight
    model.bert.encoder.layer[0].intermediate.dense = nn.Sequential(
        tied, nn.Linear(len(table.weight), dense.out_features)
    )
    names = [embedding_name(model) or "", "classifier.weight"]
    assert check_gradients(model, names, tiny_rows(7)) == (names[0],)


class Channels(nn.Module):
    """One number a feature as a norm has, but for features that lie in the middle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.PReLU(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.mT).mT


def test_what_only_looks_like_a_norm_is_right() -> None:
    model = tiny_model("bert")
    model.bert.encoder.layer[0].intermediate.intermediate_act_fn = Channels(64)
    slope = "bert.encoder.layer.0.intermediate.intermediate_act_fn.inner.weight"
    assert check_gradients(model, [slope, "classifier.weight"], tiny_rows(7)) == (slope,)
