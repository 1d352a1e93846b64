"""Tiny causal LMs, and rows of which some tokens are learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from conftest import DECODERS, VOCABULARY
from thresher.data.encode import IGNORED
from thresher.model.names import attention_projections


def generator(family: str, *, tied: bool, lora: bool = False) -> Any:
    """A random causal LM whose every weight is far from zero and one, in training mode."""
    torch.manual_seed(0)
    config = DECODERS[family]()
    config.tie_word_embeddings = tied
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    if lora:
        model = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=attention_projections(model))
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.2)
    return model.train()


def learned_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of different lengths, of which some tokens are learned, not all of them at the end."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for length in rng.integers(4, 20, count):
        ids = rng.integers(2, VOCABULARY, length)
        labels = np.where(rng.random(length) < 0.5, ids, IGNORED)
        labels[-1] = ids[-1]
        rows.append({"input_ids": ids.tolist(), "attention_mask": [1] * int(length), "labels": labels.tolist()})
    return rows
