"""Tiny random models, rows for them, and the independent truth: a plain float64 row-by-row autograd loop."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MPNetConfig,
    Qwen2Config,
    RobertaConfig,
)
from transformers.utils import logging as hf_logging

from thresher.model.names import attention_projections, embedding_name

hf_logging.set_verbosity_error()

VOCABULARY, CLASSES, PAD = 60, 3, 1
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "num_labels": CLASSES,
    "pad_token_id": PAD,
}
CONFIGS: dict[str, Any] = {
    "bert": lambda: BertConfig(**COMMON),
    "roberta": lambda: RobertaConfig(**COMMON),
    "distilbert": lambda: DistilBertConfig(
        dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=VOCABULARY, num_labels=CLASSES, pad_token_id=PAD
    ),
    "mpnet": lambda: MPNetConfig(**COMMON),
    "llama": lambda: LlamaConfig(**COMMON, num_key_value_heads=2),
    "qwen2": lambda: Qwen2Config(**COMMON, num_key_value_heads=2),
    "mistral": lambda: MistralConfig(**COMMON, num_key_value_heads=2),
    "gpt2": lambda: GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=VOCABULARY, num_labels=CLASSES, pad_token_id=PAD
    ),
}


def tiny_model(family: str, *, lora: bool = False, seed: int = 0, **peft: Any) -> Any:
    """A random classifier whose every weight is far from zero and one, in float32, in training mode."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(CONFIGS[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    if lora:
        settings = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=attention_projections(model), **peft)
        model = get_peft_model(model, settings)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.2)
    return model.train()


def tiny_rows(count: int, *, seed: int = 0, low: int = 4, high: int = 20) -> list[dict[str, Any]]:
    """Encoded rows of different lengths that share some tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(low, high, count)
    return [
        {
            "input_ids": rng.integers(2, VOCABULARY, length).tolist(),
            "attention_mask": [1] * int(length),
            "labels": int(rng.integers(CLASSES)),
        }
        for length in lengths
    ]


def audited(model: nn.Module) -> list[str]:
    """What ``influence`` audits by default."""
    embedding = embedding_name(model)
    return [name for name, p in model.named_parameters() if p.requires_grad or name == embedding]


def true_gradients(model: nn.Module, rows: list[dict[str, Any]], names: list[str]) -> dict[str, torch.Tensor]:
    """Gradients [rows, *shape] by name, one float64 row at a time, without any padding."""
    exact = copy.deepcopy(model).double().eval()
    parameters = dict(exact.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for row in rows:
        real = [token for token, seen in zip(row["input_ids"], row["attention_mask"], strict=True) if seen]
        logits = exact(input_ids=torch.tensor([real]), attention_mask=torch.ones(1, len(real), dtype=torch.long)).logits
        loss = F.cross_entropy(logits, torch.tensor([row["labels"]]))
        gradients = torch.autograd.grad(loss, [parameters[name] for name in names], allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            found[name].append(torch.zeros_like(parameters[name]) if gradient is None else gradient)
    return {name: torch.stack(values) for name, values in found.items()}


def relative_error(found: Any, truth: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of the truth."""
    return float((torch.as_tensor(np.asarray(found)).double() - truth).norm() / truth.norm())


def cancels(truth: torch.Tensor) -> bool:
    """Whether a module's gradient is zero in exact arithmetic, so that float64 shows only its own rounding."""
    return float(truth.norm()) < 1e-12


@pytest.fixture(scope="session")
def bert() -> Any:
    """A tiny trained-whole BERT; tests must leave it as it is."""
    return tiny_model("bert")
