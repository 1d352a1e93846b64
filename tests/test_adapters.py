"""Adapters of every kind: by rule where there is one, row by row where there is none, or a clear error."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch

import thresher
from conftest import audited, check_gradients, tiny_model, tiny_rows
from thresher.errors import ModelError

PROJECTIONS = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}


def adapted(family: str, kind: Any, **settings: Any) -> Any:
    """A tiny model with an adapter whose every weight has moved."""
    torch.manual_seed(0)
    model: Any = peft.get_peft_model(tiny_model(family), kind(task_type="SEQ_CLS", **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("family", list(PROJECTIONS))
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (peft.LoraConfig, {"r": 4, "use_dora": True}),
        (peft.IA3Config, {"feedforward_modules": []}),
        (peft.VeraConfig, {"r": 4}),
        (peft.LoHaConfig, {"r": 2}),
    ],
    ids=["dora", "ia3", "vera", "loha"],
)
def test_adapters_without_a_rule_are_right(family: str, kind: Any, settings: dict[str, Any]) -> None:
    model = adapted(family, kind, target_modules=PROJECTIONS[family], **settings)
    names = audited(model)
    row_by_row = check_gradients(model, names, tiny_rows(6))
    ruled = ("lora_A", "lora_B", "embed", "classifier", "score")  # DoRA adds a magnitude to LoRA's layers
    assert row_by_row == tuple(name for name in names if not any(part in name for part in ruled)) != ()


@pytest.mark.parametrize("family", list(PROJECTIONS))
def test_rank_stabilised_lora_with_biases_has_rules(family: str) -> None:
    model = adapted(
        family, peft.LoraConfig, target_modules=PROJECTIONS[family], use_rslora=True, lora_bias=family == "bert"
    )
    assert check_gradients(model, audited(model), tiny_rows(6)) == ()


def test_lora_on_the_word_embedding_is_right() -> None:
    model = adapted("bert", peft.LoraConfig, target_modules=["query", "word_embeddings"])
    row_by_row = check_gradients(model, audited(model), tiny_rows(6))
    assert {name.split(".")[-2] for name in row_by_row} == {"lora_embedding_A", "lora_embedding_B"}


@pytest.mark.parametrize("family", list(PROJECTIONS))
def test_tuned_prefixes_are_right(family: str) -> None:
    model = adapted(family, peft.PrefixTuningConfig, num_virtual_tokens=4)
    assert check_gradients(model, audited(model), tiny_rows(6)) == ()


def test_tuned_prompts_of_an_encoder_are_right() -> None:
    model = adapted("bert", peft.PromptTuningConfig, num_virtual_tokens=4)
    names = audited(model)
    assert check_gradients(model, names, tiny_rows(6)) == ("prompt_encoder.default.embedding.weight",)


def test_tuned_prompts_of_a_decoder_are_refused() -> None:
    # The decoder is given vectors, not tokens, and pools the last position whatever it is.
    model = adapted("llama", peft.PromptTuningConfig, num_virtual_tokens=4)
    with pytest.raises(ModelError, match="changes when the row is padded"):
        thresher.influence(model, tiny_rows(6), tiny_rows(2))
