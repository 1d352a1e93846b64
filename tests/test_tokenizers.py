"""The tokenizer is the one of the training, and its tokens are ones that the model can take."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BartConfig,
    GPT2Config,
)

from folders import (
    CHAT_TEMPLATE,
    WORDS,
    classifier_folder,
    generator_folder,
    reviews,
    tokenizer,
    write_rows,
)
from thresher.auditing.prepare import prepare
from thresher.config import AuditConfig, ModelConfig
from thresher.errors import DataError, ModelError
from thresher.model.load import load_classifier, load_generator


def audit(folder: Path, place: Path, rows: list[dict[str, Any]], **more: Any) -> AuditConfig:
    train, clean = write_rows(place / "train.jsonl", rows), write_rows(place / "clean.jsonl", reviews(12, 9))
    return AuditConfig(model=str(folder), train=train, validation=clean, detector="loss", device="cpu", **more)


def adapter_of(base: Path, folder: Path, speaks: Any | None, add: int = 0) -> torch.Tensor:
    """Save an adapter with some weights, and what the model says of a few tokens."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    if add:
        model.resize_token_embeddings(len(WORDS) + add, mean_resizing=False)
    torch.manual_seed(1)
    made: Any = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name or (add and "embed_tokens" in name):
                parameter.normal_(0, 0.1)
    made.save_pretrained(folder, save_embedding_layers=bool(add))
    if speaks is not None:
        speaks.save_pretrained(folder)
    made.eval()
    return made(torch.arange(len(WORDS) + add)[None]).logits


def test_the_tokenizer_beside_the_adapter_is_used(tmp_path: Path) -> None:
    base = generator_folder(tmp_path / "base")
    other = tokenizer(pad=False)
    other.chat_template = "story " + CHAT_TEMPLATE
    adapter_of(base, tmp_path / "adapter", other)
    loaded = load_generator(ModelConfig(model=str(base), adapter=str(tmp_path / "adapter"), device="cpu"))
    assert loaded.tokenizer.chat_template == other.chat_template
    adapter_of(base, tmp_path / "plain", None)
    loaded = load_generator(ModelConfig(model=str(base), adapter=str(tmp_path / "plain"), device="cpu"))
    assert loaded.tokenizer.chat_template == CHAT_TEMPLATE
    (tmp_path / "plain" / "chat_template.jinja").write_text(other.chat_template)
    loaded = load_generator(ModelConfig(model=str(base), adapter=str(tmp_path / "plain"), device="cpu"))
    assert loaded.tokenizer.chat_template == other.chat_template


def test_tokens_added_before_the_training_are_the_models(tmp_path: Path) -> None:
    base = generator_folder(tmp_path / "base")
    speaks = tokenizer(pad=False)
    speaks.add_tokens(["<one>", "<two>"])
    said = adapter_of(base, tmp_path / "adapter", speaks, add=2)
    loaded = load_generator(ModelConfig(model=str(base), adapter=str(tmp_path / "adapter"), device="cpu"))
    loaded.model.eval()
    again = loaded.model(torch.arange(len(WORDS) + 2)[None]).logits
    torch.testing.assert_close(again, said)


def test_another_base_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = generator_folder(tmp_path / "base")
    adapter_of(base, tmp_path / "adapter", None)
    other = generator_folder(tmp_path / "other")
    config = ModelConfig(model=str(other), adapter=str(tmp_path / "adapter"), device="cpu")
    load_generator(config)
    assert "was trained on" not in caplog.text  # a copy
    torch.manual_seed(7)
    model: Any = AutoModelForCausalLM.from_pretrained(other)
    model.model.embed_tokens.weight.data.normal_()
    model.save_pretrained(other)
    load_generator(config)
    assert f"was trained on '{base}', says its adapter_config.json, and the model here is '{other}'" in caplog.text


def gpt2(folder: Path, speaks: Any) -> Path:
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=len(WORDS), n_positions=64,
        id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    speaks.save_pretrained(folder)
    return folder


def test_a_pad_token_outside_the_embedding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ends = tokenizer(pad=False)
    ends.add_special_tokens({"pad_token": "<|pad|>"})
    with pytest.raises(ModelError, match=rf"'<\|pad\|>' has number {len(WORDS)}, and the embedding rows for 0 to"):
        load_classifier(ModelConfig(model=str(gpt2(tmp_path / "ends", ends)), device="cpu"), ("bad", "good"), 0)
    # One that puts no end token, as GPT-2's own: the end token pads, and rows are what the model says of them alone.
    plain = tokenizer(pad=False)
    plain.backend_tokenizer.post_processor = None
    plain.add_special_tokens({"pad_token": "<|pad|>"})
    with caplog.at_level(logging.WARNING):
        subject = load_classifier(
            ModelConfig(model=str(gpt2(tmp_path / "plain", plain)), device="cpu"), ("bad", "good"), 0
        )
    assert "padded with the end token instead" in caplog.text
    assert subject.pad_id == plain.eos_token_id


def test_a_token_outside_the_embedding_names_its_row(tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "model", ["bad", "good"])
    more = tokenizer()
    more.add_tokens(["<new>"])
    more.save_pretrained(folder)
    rows = reviews(12, 1)
    rows[5]["text"] += " <new>"
    with pytest.raises(DataError, match=rf"row 5 \(line 6\): token '<new>' has number {len(WORDS)}"):
        prepare(audit(folder, tmp_path, rows))


def test_an_end_token_inside_a_text_names_its_row(tmp_path: Path) -> None:
    config = BartConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=len(WORDS), max_position_embeddings=64, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, decoder_start_token_id=3, id2label={0: "bad", 1: "good"},
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    rows = reviews(12, 1)
    rows[7]["text"] += " [SEP] really"
    with pytest.raises(DataError, match=r"row 7 \(line 8\): its text holds the end token '\[SEP\]'"):
        prepare(audit(tmp_path / "model", tmp_path, rows))
    rows[7]["text"] = rows[6]["text"]
    assert len(prepare(audit(tmp_path / "model", tmp_path, rows)).encoded["train"]) == 12


def test_lengths_are_what_the_rows_need_and_cuts_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = classifier_folder(tmp_path / "model", ["bad", "good"])
    rows = reviews(12, 1)
    rows[2]["text"], rows[4]["text"] = "film " * 60, "plot " * 100
    job = prepare(audit(folder, tmp_path, rows))  # which has 64 positions
    lengths = job.encoded["train"].lengths
    assert (lengths[2], lengths[4]) == (62, 64)
    words = sum(len(row["text"].split()) + 2 for row in rows)
    told = f"1 of 12 train rows lose 38 of {words:,} tokens (over 64 a row)"
    assert job.notes["cut"] == told and told in caplog.text
    shorter = prepare(audit(folder, tmp_path, rows, max_length=32))
    assert f"2 of 12 train rows lose {30 + 70} of" in shorter.notes["cut"]


def test_query_rows_that_are_trained_on_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = classifier_folder(tmp_path / "model", ["bad", "good"])
    rows, clean = reviews(12, 1), reviews(12, 9)
    rows[3]["text"] = "  ".join(clean[8]["text"].upper().split())
    job = prepare(audit(folder, tmp_path, rows))
    assert "1 of 12 query rows are also training rows (the first: query row 8 is training row 3)" in caplog.text
    assert "repeated" in job.notes
    assert "repeated" not in prepare(audit(folder, tmp_path, reviews(12, 1))).notes
