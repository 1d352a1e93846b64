"""Which families need a row-by-row pass, and for what; encoder-decoders; tables that scale or count for themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AlbertConfig, AutoModelForSequenceClassification, BartConfig, T5ForSequenceClassification

import thresher
from conftest import (
    CLASSES,
    COMMON,
    CONFIGS,
    EOS,
    PAD,
    VOCABULARY,
    audited,
    check_gradients,
    shaken,
    tiny_model,
    tiny_rows,
    with_adapter,
)
from thresher.errors import ModelError

# What all rows share is looked up, projected or normalised once, so that rows are told apart only one at a time.
SHARED = {
    "mpnet": ("encoder.relative_attention_bias",),
    "deberta-v2": ("pos_key_proj", "pos_query_proj", "encoder.rel_embeddings", "encoder.LayerNorm"),
    "deberta-v3": ("query_proj", "key_proj", "encoder.rel_embeddings", "encoder.LayerNorm"),
    "t5-encoder": ("relative_attention_bias",),
}


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("family", list(CONFIGS))
def test_only_what_all_rows_share_is_done_row_by_row(family: str, lora: bool) -> None:
    model = tiny_model(family, lora=lora)
    names = audited(model)
    shared = [name for name in names if any(part in name for part in SHARED.get(family, ()))]
    assert check_gradients(model, names, tiny_rows(7, seed=1)) == tuple(shared)


def ended(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with an end-of-sequence token as the last."""
    return [{**row, "input_ids": [*row["input_ids"][:-1], EOS]} for row in rows]


def encoder_decoder(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "t5":
        return shaken(T5ForSequenceClassification(CONFIGS["t5-encoder"]()))
    config = BartConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        num_labels=CLASSES,
        scale_embedding=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=EOS,
    )
    return shaken(AutoModelForSequenceClassification.from_config(config))


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_encoder_decoders_that_pool_at_the_end_token_are_exact(kind: str, lora: bool) -> None:
    model = encoder_decoder(kind)
    model = with_adapter(model) if lora else model
    names = audited(model)
    row_by_row = check_gradients(model, names, ended(tiny_rows(7, seed=1)))
    assert row_by_row == tuple(name for name in names if "relative_attention_bias" in name)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_rows_that_an_encoder_decoder_cannot_pool_are_refused(kind: str) -> None:
    model, rows = encoder_decoder(kind), tiny_rows(5)
    with pytest.raises(ModelError, match=r"ForSequenceClassification refuses the rows: .*<eos>"):
        thresher.influence(model, rows, rows)
    twice = ended(rows)
    twice[0]["input_ids"][0] = EOS
    with pytest.raises(ModelError, match="same number of <eos> tokens"):
        thresher.influence(model, twice, ended(rows))


def test_layers_that_share_their_weights_add_up() -> None:
    torch.manual_seed(0)
    model = shaken(AutoModelForSequenceClassification.from_config(AlbertConfig(**COMMON, embedding_size=16)))
    assert check_gradients(model, audited(model), tiny_rows(7)) == ()
    model = with_adapter(model)
    assert check_gradients(model, audited(model), tiny_rows(7)) == ()


class Scaled(nn.Embedding):
    """A table that scales every feature for itself, and moves the tokens it is asked for."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        scale = torch.linspace(0.5, 2.0, self.embedding_dim, dtype=self.weight.dtype)
        return 0.3 + scale * super().forward((tokens + 1) % self.num_embeddings)


class Summed(nn.Embedding):
    """A table that looks up twice: no rule can tell which factor belongs to which."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens) + 2 * super().forward(tokens.flip(0) * 0 + 3)


class Squared(nn.Embedding):
    """A table whose rows are not used as they are: the factor that a rule sees is wrong, and must be found out."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens) ** 2


@pytest.mark.parametrize(("table", "ruled"), [(Scaled, True), (Summed, False), (Squared, False)])
def test_tables_with_a_forward_of_their_own(table: type[nn.Embedding], ruled: bool) -> None:
    model = tiny_model("llama")
    model.set_input_embeddings(table(VOCABULARY, 32))
    names = audited(model)
    assert check_gradients(model, names, tiny_rows(7)) == (() if ruled else ("model.embed_tokens.weight",))
