"""A loss of the user's own, in place of the model's, beside a float64 loop over the rows."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import thresher
from conftest import relative_error, tiny_model, tiny_rows
from thresher.errors import ConfigError

TOLERANCE = 1e-5


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """(1 - p)^2 times the cross-entropy (Lin et al. 2017)."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (1 - torch.exp(-losses)) ** 2 * losses


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row's labelled tokens with smoothed labels, their mean."""
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none", label_smoothing=0.2)
    return losses.sum(-1) / (labels[:, 1:] != -100).sum(-1)


def gradients(model: Any, rows: list[dict[str, Any]], names: list[str], loss: Any) -> Tensor:
    """Each row's gradient by autograd alone, in float64 and without padding, [n, p]."""
    model = deepcopy(model).double().eval()
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_()
    found: list[Tensor] = []
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        value = loss(logits, torch.tensor([row["labels"]])).sum()
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, [parameters[name] for name in names])]))
    return torch.stack(found)


def bare(row: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": row["input_ids"], "labels": row["labels"]}


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_classifiers_influence_is_that_of_the_loss_given(family: str) -> None:
    model, train, query = tiny_model(family), tiny_rows(9, seed=1), tiny_rows(4, seed=2)
    train, query = [bare(row) for row in train], [bare(row) for row in query]
    found = thresher.influence(model, train, query, methods=("tracin", "cosine"), loss=focal, batch_size=4)
    plain = thresher.influence(model, train, query, methods=("tracin",), batch_size=4)
    for number, name in enumerate(str(name) for name in found["module"].values):
        v, g = gradients(model, query, [name], focal), gradients(model, train, [name], focal)
        if float(g.norm()) < 1e-12:
            continue
        assert relative_error(found["tracin"].values[number], v @ g.T) < TOLERANCE, name
        cosine = (v @ g.T) / (v.norm(dim=1)[:, None] * g.norm(dim=1))
        assert relative_error(found["cosine"].values[number], cosine) < TOLERANCE, name
        assert relative_error(plain["tracin"].values[number], v @ g.T) > 0.1, name


def test_a_language_models_loss_sees_every_position_with_its_label() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=60, num_attention_heads=2, pad_token_id=0, **sizes)).eval()
    rng = torch.Generator().manual_seed(3)
    rows: list[dict[str, Any]] = []
    for length in (5, 9, 12, 7, 6):
        ids = torch.randint(1, 60, (length,), generator=rng).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :]})
    name = "model.layers.0.self_attn.q_proj.weight"
    options: dict[str, Any] = {"methods": ("tracin",), "modules": name}
    found = thresher.influence(model, rows, rows[:3], loss=smoothed, **options)["tracin"].values[0]
    v, g = gradients(model, rows[:3], [name], smoothed), gradients(model, rows, [name], smoothed)
    assert relative_error(found, v @ g.T) < TOLERANCE
    assert relative_error(thresher.influence(model, rows, rows[:3], **options)["tracin"].values[0], v @ g.T) > 0.01


def test_a_loss_of_the_batch_and_methods_of_another_loss_are_refused() -> None:
    model, rows = tiny_model("bert"), tiny_rows(5)
    with pytest.raises(ConfigError, match=r"one number a row \(reduction='none'\)"):
        thresher.influence(model, rows, rows, loss=F.cross_entropy)
    with pytest.raises(ConfigError, match="head_kernel knows no loss but cross-entropy"):
        thresher.influence(model, rows, rows, methods=("tracin", "head_kernel"), loss=focal)
