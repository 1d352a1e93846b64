"""Tiny random models, rows for them, and the independent truth: a plain float64 row-by-row autograd loop."""

from __future__ import annotations

import copy
from pathlib import Path
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
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    MPNetConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    T5Config,
    T5EncoderModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.t5.modeling_t5 import T5PreTrainedModel
from transformers.utils import logging as hf_logging

import thresher
from thresher.data.encode import length_batches
from thresher.gradients.gradient_pass import gradient_pass
from thresher.gradients.rows import FactoredGradients, HeadRows, RowGradients, TokenGradients
from thresher.model.inputs import encoded_rows
from thresher.model.names import attention_projections, embedding_name, head_modules

hf_logging.set_verbosity_error()

VOCABULARY, CLASSES, PAD, EOS = 60, 3, 1, 0
NAMED: dict[str, Any] = {"vocab_size": VOCABULARY, "num_labels": CLASSES, "pad_token_id": PAD}
COMMON: dict[str, Any] = {
    **NAMED,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
GROUPED: dict[str, Any] = {**COMMON, "num_key_value_heads": 2}
DEBERTA: dict[str, Any] = {
    **COMMON,
    "relative_attention": True,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
}
# It asks its query and key projections about positions, too.
DEBERTA_V3: dict[str, Any] = {**DEBERTA, "position_buckets": 6, "share_att_key": True}
WINDOWED: dict[str, Any] = {**COMMON, "local_attention": 8, "global_attn_every_n_layers": 2}
T5: dict[str, Any] = {
    **NAMED,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "initializer_factor": 0.1,
    "eos_token_id": EOS,
    "decoder_start_token_id": PAD,
}
DECODERS: dict[str, Any] = {
    "gpt2": lambda: GPT2Config(**NAMED, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gpt-neox": lambda: GPTNeoXConfig(**COMMON),
    "opt": lambda: OPTConfig(**COMMON, ffn_dim=64, word_embed_proj_dim=32),
    "llama": lambda: LlamaConfig(**GROUPED),
    "qwen2": lambda: Qwen2Config(**GROUPED),
    "qwen3": lambda: Qwen3Config(**GROUPED, head_dim=8),
    "mistral": lambda: MistralConfig(**GROUPED),
    "gemma": lambda: GemmaConfig(**GROUPED, head_dim=8),
    "phi": lambda: PhiConfig(**COMMON),
}
CONFIGS: dict[str, Any] = {
    "bert": lambda: BertConfig(**COMMON),
    "roberta": lambda: RobertaConfig(**COMMON),
    "distilbert": lambda: DistilBertConfig(**NAMED, dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    "mpnet": lambda: MPNetConfig(**COMMON),
    "electra": lambda: ElectraConfig(**COMMON, embedding_size=16),
    "deberta-v2": lambda: DebertaV2Config(**DEBERTA),
    "deberta-v3": lambda: DebertaV2Config(**DEBERTA_V3),
    "modernbert": lambda: ModernBertConfig(**WINDOWED),
    "t5-encoder": lambda: T5Config(**T5),
    **DECODERS,
}
"""One tiny configuration a family; those of ``DECODERS`` make causal language models, too."""


class T5EncoderClassifier(T5PreTrainedModel):
    """T5's encoder, the mean over its positions, and a linear head: the library has no such class."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.transformer = T5EncoderModel(config)
        self.classifier = nn.Linear(config.d_model, CLASSES)
        self.post_init()

    def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> SequenceClassifierOutput:
        states = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        seen = attention_mask[..., None].to(states.dtype)
        return SequenceClassifierOutput(logits=self.classifier((states * seen).sum(1) / seen.sum(1)))  # pyright: ignore


def classifier(family: str) -> Any:
    """A classifier of the family with the library's initial weights."""
    if family == "t5-encoder":
        return T5EncoderClassifier(CONFIGS[family]())
    return AutoModelForSequenceClassification.from_config(CONFIGS[family]())


def tiny_model(family: str, *, lora: bool = False, seed: int = 0, **peft: Any) -> Any:
    """A random classifier whose every weight is far from zero and one, in float32, in training mode."""
    torch.manual_seed(seed)
    model = shaken(classifier(family))
    return (with_adapter(model, **peft) if lora else model).train()


def shaken(model: Any) -> Any:
    """The model with a little noise on every weight."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def with_adapter(model: Any, **peft: Any) -> Any:
    """The model with LoRA on query and value that has learned something, and its whole head trained beside it."""
    settings = LoraConfig(
        task_type="SEQ_CLS",
        r=4,
        target_modules=attention_projections(model),
        modules_to_save=head_modules(model),
        **peft,
    )
    model = get_peft_model(model, settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    return model


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
        gradients: Any = torch.autograd.grad(loss, [parameters[name] for name in names], allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            found[name].append(torch.zeros_like(parameters[name]) if gradient is None else gradient)
    return {name: torch.stack(values) for name, values in found.items()}


def relative_error(found: Any, truth: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of the truth."""
    return float((torch.as_tensor(np.asarray(found)).double() - truth).norm() / truth.norm())


def dense(gradients: RowGradients, parameter: nn.Parameter) -> torch.Tensor:
    """Gradients as full [rows, *shape] tensors."""
    if isinstance(gradients, TokenGradients):
        full = torch.zeros(gradients.rows, *parameter.shape)
        full[gradients.row, gradients.token] = gradients.value
        return full
    assert not isinstance(gradients, HeadRows)
    plain = gradients.dense() if isinstance(gradients, FactoredGradients) else gradients
    return plain.reshape(len(plain), *parameter.shape)


def cancels(truth: torch.Tensor) -> bool:
    """Whether a module's gradient is zero in exact arithmetic, so that float64 shows only its own rounding."""
    return float(truth.norm()) < 1e-12


def pass_gradients(model: nn.Module, names: list[str], rows: list[dict[str, Any]]) -> tuple[dict[str, Any], Any]:
    """What one pass gives in batches of four: gradients [rows, *shape] by name, and the modules done row by row."""
    data = encoded_rows(rows, model, "train")
    parameters = {name: p for name, p in model.named_parameters() if name in names}
    found = {name: torch.zeros(len(rows), *p.shape) for name, p in parameters.items()}
    with gradient_pass(model, names, data) as one_pass:
        for batch_rows in length_batches(data.lengths, 4):
            batch = one_pass.gradients(data, data.batch(batch_rows, one_pass.pad_id, one_pass.device))
            for name, gradients in batch.modules.items():
                found[name][torch.from_numpy(batch_rows)] = dense(gradients, parameters[name])
        return found, one_pass.row_by_row


def check_gradients(model: nn.Module, names: list[str], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Compare the pass with the truth; returns the modules that had to be done row by row."""
    found, row_by_row = pass_gradients(model, names, rows)
    for name, truth in true_gradients(model, rows, names).items():
        if cancels(truth):
            assert not found[name].any(), name
        else:
            assert relative_error(found[name], truth) < 1e-5, name
    return row_by_row


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and the files of rows of the module's ``AUDITS``."""
    return request.module.AUDITS.make(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, place: Path) -> thresher.AuditResult:
    """The first audit of the module's ``AUDITS``; tests must leave it as it is."""
    audits = request.module.AUDITS
    return thresher.audit(audits.options(place, place / "finished", **audits.finished))


@pytest.fixture(scope="session")
def bert() -> Any:
    """A tiny trained-whole BERT; tests must leave it as it is."""
    return tiny_model("bert")
