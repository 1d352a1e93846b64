"""Encoder-decoders that classify by the state of the last end-of-sequence token, and rows that have one."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BartConfig, T5ForSequenceClassification

from conftest import CLASSES, CONFIGS, EOS, PAD, VOCABULARY, shaken


def ended(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with an end-of-sequence token as the last."""
    return [{**row, "input_ids": [*row["input_ids"][:-1], EOS]} for row in rows]


def encoder_decoder(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "t5":
        return shaken(T5ForSequenceClassification(CONFIGS["t5-encoder"]()))
    classes: dict[str, Any] = {"num_labels": CLASSES}
    config = BartConfig(
        **classes,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        scale_embedding=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=EOS,
    )
    return shaken(AutoModelForSequenceClassification.from_config(config))
