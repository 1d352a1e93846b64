"""Which families need a row-by-row pass, and for what; encoder-decoders; tables that scale or count for themselves.

And of every architecture that is named in ``architectures.py``, that a row's neighbours in a batch do not matter.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

import thresher
from architectures import DECODERS, ENCODERS, ONLY_GENERATE, PADDING_TELLS, configured
from conftest import (
    CLASSES,
    COMMON,
    CONFIGS,
    EOS,
    VOCABULARY,
    audited,
    check_gradients,
    shaken,
    tiny_model,
    tiny_rows,
    with_adapter,
)
from encoder_decoders import encoder_decoder, ended
from folders import reviews, tokenizer
from thresher.config import ModelConfig, Recipe
from thresher.data.encode import IGNORED
from thresher.errors import ModelError
from thresher.model.inputs import encoded_rows
from thresher.model.load import LoadedModel, load_classifier, load_generator
from thresher.model.lora import with_lora
from thresher.model.names import attention_projections
from thresher.model.predict import predict

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

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        scale = torch.linspace(0.5, 2.0, self.embedding_dim, dtype=self.weight.dtype)
        return 0.3 + scale * super().forward((input + 1) % self.num_embeddings)


class Summed(nn.Embedding):
    """A table that looks up twice: no rule can tell which factor belongs to which."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + 2 * super().forward(input.flip(0) * 0 + 3)


class Squared(nn.Embedding):
    """A table whose rows are not used as they are: the factor that a rule sees is wrong, and must be found out."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) ** 2


@pytest.mark.parametrize(("table", "ruled"), [(Scaled, True), (Summed, False), (Squared, False)])
def test_tables_with_a_forward_of_their_own(table: type[nn.Embedding], ruled: bool) -> None:
    model = tiny_model("llama")
    model.set_input_embeddings(table(VOCABULARY, 32))
    names = audited(model)
    assert check_gradients(model, names, tiny_rows(7)) == (() if ruled else ("model.embed_tokens.weight",))


TEXTS = [row["text"] for row in reviews(9, seed=1)]
NAMES = [f"LABEL_{number}" for number in range(CLASSES)]
CLASSIFIERS = [name for name in (*ENCODERS, *DECODERS) if name not in (*PADDING_TELLS, *ONLY_GENERATE)]


def saved(architecture: str, kind: Any, folder: Path) -> Path:
    """A random model of an architecture with the word tokenizer, as a user has it."""
    torch.manual_seed(0)
    sizes = {} if kind is AutoModelForCausalLM else {"num_labels": CLASSES}
    shaken(kind.from_config(configured(architecture, **sizes))).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path) -> LoadedModel:
    return load_classifier(ModelConfig(model=str(folder), device="cpu"), NAMES, 0, NAMES)


def padded(side: str) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """The texts as a tokenizer pads them on a side, with a class each; and their tokens without any padding."""
    by_words = tokenizer()
    by_words.padding_side = side
    together: Any = by_words(TEXTS, padding=True)
    names = ("input_ids", "attention_mask")
    rows: list[dict[str, Any]] = [
        {**{name: together[name][row] for name in names}, "labels": row % CLASSES} for row in range(len(TEXTS))
    ]
    tokens = by_words(TEXTS)["input_ids"]
    at = 0 if side == "left" else -1
    assert any(row["attention_mask"][at] == 0 for row in rows) and all(row["attention_mask"][-1 - at] for row in rows)
    return rows, tokens


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CLASSIFIERS)
def test_a_classifier_says_in_a_batch_what_it_says_of_a_row_alone(architecture: str, tmp_path: Path) -> None:
    folder = saved(architecture, AutoModelForSequenceClassification, tmp_path)
    subject, own = loaded(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert attention_projections(subject.model) or architecture in UNFIT  # what LoRA is put on
    for side in ("left", "right"):
        rows, tokens = padded(side)
        found = predict(subject, encoded_rows(rows, subject.model, "train"), batch_size=4)
        with torch.no_grad():
            alone = torch.cat([own(input_ids=torch.tensor([ids])).logits for ids in tokens])
        losses = F.cross_entropy(alone, torch.tensor([row["labels"] for row in rows]), reduction="none")
        torch.testing.assert_close(found.outputs.softmax(-1), alone.softmax(-1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.losses, losses, rtol=1e-4, atol=1e-5)
        assert found.losses.std() > 1e-3  # the rows can be told apart


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(DECODERS))
def test_a_generator_says_in_a_batch_what_it_says_of_a_row_alone(architecture: str, tmp_path: Path) -> None:
    folder = saved(architecture, AutoModelForCausalLM, tmp_path)
    subject = load_generator(ModelConfig(model=str(folder), device="cpu"))
    own = AutoModelForCausalLM.from_pretrained(folder).eval()
    for side in ("left", "right"):
        rows, tokens = padded(side)
        for row, ids in zip(rows, tokens, strict=True):  # the last three tokens are the answer
            learned = [IGNORED] * (len(ids) - 3) + ids[-3:]
            fill = [IGNORED] * (len(row["input_ids"]) - len(ids))
            row["labels"] = [*fill, *learned] if side == "left" else [*learned, *fill]
        found = predict(subject, encoded_rows(rows, subject.model, "train"), batch_size=4)
        with torch.no_grad():
            logits = [own(input_ids=torch.tensor([ids])).logits[0, -4:-1] for ids in tokens]
        truth = [F.cross_entropy(said, torch.tensor(ids[-3:])) for said, ids in zip(logits, tokens, strict=True)]
        torch.testing.assert_close(found.losses, torch.stack(truth), rtol=1e-4, atol=1e-5)
        assert found.losses.std() > 1e-3


@pytest.mark.parametrize("architecture", PADDING_TELLS)
def test_a_model_that_looks_behind_the_end_of_a_row_is_refused(architecture: str, tmp_path: Path) -> None:
    model = loaded(saved(architecture, AutoModelForSequenceClassification, tmp_path)).model
    rows, _ = padded("right")
    with pytest.raises(ModelError, match="changes when the row is padded on the right; give rows of equal length"):
        thresher.influence(model, rows, rows[:3], methods=("tracin",), modules="^(classifier|logits_proj)")
    even = [{"input_ids": row["input_ids"][:5], "labels": row["labels"]} for row in rows]
    found = thresher.influence(model, even, even[:3], methods=("tracin",), modules="^(classifier|logits_proj)")
    assert found["tracin"].values.any()


UNFIT = {"IBert": r"cannot be put on its query and value projections .*QuantLinear", "DeepseekV3": "were found by name"}
"""Layers of a model's own kind; queries and values that are made of a latent, by layers of other names."""


@pytest.mark.parametrize("architecture", list(UNFIT))
def test_layers_that_no_adapter_fits_are_refused_in_a_sentence(architecture: str, tmp_path: Path) -> None:
    subject = loaded(saved(architecture, AutoModelForSequenceClassification, tmp_path))
    with pytest.raises(ModelError, match=f"{UNFIT[architecture]}.* audit it with --no-finetune"):
        with_lora(replace(subject, kind="lora"), Recipe(), 0)


@pytest.mark.parametrize("names", [CLASSIFIERS, list(DECODERS)], ids=["classifiers", "generators"])
def test_these_are_thirty_architectures_and_more(names: list[str]) -> None:
    assert len({configured(name).model_type for name in names}) == len(names) >= 30
