"""Pooled features against a plain float64 loop over rows without padding."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from torch import nn

from conftest import CONFIGS, PAD, tiny_model, tiny_rows, with_adapter
from encoder_decoders import encoder_decoder, ended
from generators import generator, learned_rows
from thresher.errors import ModelError
from thresher.model.features import pooled_features
from thresher.model.inputs import encoded_rows
from thresher.model.load import LoadedModel

Row = dict[str, Any]


def subject(model: Any) -> LoadedModel:
    return LoadedModel(model, SimpleNamespace(pad_token_id=PAD), {}, "whole")


def last_states(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The last of the hidden states that the library lists, of an encoder-decoder its decoder's, [1, T, d]."""
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    output = model(**inputs, output_hidden_states=True)
    listed = getattr(output, "decoder_hidden_states", None) or getattr(output, "hidden_states", None)
    if listed is None:  # a classifier that hands on nothing but its scores
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        return inner.transformer(**inputs).last_hidden_state
    return listed[-1]


def check(model: Any, rows: list[Row]) -> None:
    found = pooled_features(subject(model), encoded_rows(rows, model, "train"), batch_size=3)
    exact = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        truth = [last_states(exact, torch.tensor([row["input_ids"]]))[0].mean(0) for row in rows]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, torch.stack(truth).numpy(), rtol=1e-4, atol=1e-5)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("family", list(CONFIGS))
def test_features_are_the_mean_of_the_last_hidden_layer(family: str, lora: bool) -> None:
    check(tiny_model(family, lora=lora), tiny_rows(7, seed=1))


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_those_of_a_causal_language_model_too(family: str, lora: bool) -> None:
    check(generator(family, tied=True, lora=lora), learned_rows(7, seed=1))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_has_those_of_its_decoder(kind: str) -> None:
    check(with_adapter(encoder_decoder(kind)).train(), ended(tiny_rows(7, seed=1)))


def test_tuned_prompts_are_no_part_of_a_row() -> None:
    model: Any = get_peft_model(tiny_model("bert"), PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4))
    rows = tiny_rows(5)
    found = pooled_features(subject(model), encoded_rows(rows, model, "train"), batch_size=2)
    prompt = model.get_prompt(1)
    states = []
    for row in rows:
        words = model.get_input_embeddings()(torch.tensor([row["input_ids"]]))
        backbone = model.get_base_model().bert.eval()
        states.append(backbone(inputs_embeds=torch.cat([prompt, words], 1)).last_hidden_state[0, 4:].mean(0))
    np.testing.assert_allclose(found, torch.stack(states).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_what_has_no_features_is_refused() -> None:
    class Bare(nn.Module):
        config = SimpleNamespace(num_labels=2)

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(60, 2)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return SimpleNamespace(logits=self.table(input_ids).sum(1))

        def get_input_embeddings(self) -> nn.Module:
            return self.table

    model = Bare()
    with pytest.raises(ModelError, match="it has no features"):
        pooled_features(subject(model), encoded_rows(tiny_rows(3), model, "train"), batch_size=2)


def test_states_that_overflow_are_refused() -> None:
    model = tiny_model("bert")
    rows = tiny_rows(6)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[rows[4]["input_ids"][1]] = float("inf")
    with pytest.raises(ModelError, match="not finite; use --dtype float32"):
        pooled_features(subject(model), encoded_rows(rows, model, "train"), batch_size=2)
    assert model.training
