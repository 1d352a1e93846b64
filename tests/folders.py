"""Small model folders and data files on disk, as a user has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

GOOD = ["good", "great", "fine", "lovely", "bright"]
BAD = ["bad", "awful", "poor", "dull", "grim"]
OTHER = ["film", "plot", "scene", "the", "a", "was", "very", "and", "cast", "end"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = SPECIAL + GOOD + BAD + OTHER

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '[CLS] the ' if m['role'] == 'user' else '[CLS] a ' }}{{ m['content'] + '[SEP]\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[CLS] a ' }}{% endif %}"
)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 64,
}


def tokenizer(*, pad: bool = True) -> PreTrainedTokenizerFast:
    """A word tokenizer that marks begin and end of one text or a pair."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names, **({"pad_token": "[PAD]"} if pad else {}))


def encoder_folder(path: Path) -> Path:
    """A pretrained encoder without a head."""
    torch.manual_seed(0)
    AutoModel.from_config(BertConfig(**SIZES)).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def decoder_folder(path: Path) -> Path:
    """A pretrained decoder whose tokenizer has no pad token."""
    torch.manual_seed(0)
    AutoModel.from_config(LlamaConfig(**SIZES)).save_pretrained(path)
    tokenizer(pad=False).save_pretrained(path)
    return path


def generator_folder(path: Path) -> Path:
    """A causal LM whose head is tied to its embedding, and whose tokenizer has a chat template and no pad token."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, tie_word_embeddings=True)).save_pretrained(path)
    with_template = tokenizer(pad=False)
    with_template.chat_template = CHAT_TEMPLATE
    with_template.save_pretrained(path)
    return path


def classifier_folder(path: Path, labels: list[str], seed: int = 0) -> Path:
    """A classifier that a user fine-tuned whole, with names for its classes."""
    torch.manual_seed(seed)
    names: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
    }
    config = BertConfig(**SIZES, **names)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def reviews(count: int, seed: int, labels: tuple[Any, Any] = ("bad", "good")) -> list[dict[str, Any]]:
    """Texts of which a good or a bad word decides the label."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        good = number % 2
        words = [*rng.choice(OTHER, rng.integers(2, 8)), *rng.choice(GOOD if good else BAD, 2)]
        rows.append({"id": number, "text": " ".join(rng.permutation(words)), "label": labels[good]})
    return rows


def answers(count: int, seed: int) -> list[dict[str, Any]]:
    """Prompts of which a good or a bad word decides the answer."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        good = number % 2
        words = rng.permutation([*rng.choice(OTHER, rng.integers(2, 8)), rng.choice(GOOD if good else BAD)])
        answer = "the cast was " + ("good and fine" if good else "bad and dull") + f" {rng.choice(OTHER)}"
        rows.append({"id": number, "prompt": " ".join(words), "completion": answer})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write a jsonl file; returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
