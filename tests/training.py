"""A tiny model to fine-tune, and encoded rows."""

from __future__ import annotations

from conftest import PAD, tiny_model, tiny_rows
from thresher.data.encode import EncodedRows
from thresher.model.inputs import encoded_rows
from thresher.model.load import LoadedModel


class Tokenizer:
    pad_token_id = PAD


def subject() -> LoadedModel:
    return LoadedModel(tiny_model("bert", lora=True), Tokenizer(), {"0": 0, "1": 1, "2": 2}, "lora")


def data(count: int, seed: int) -> EncodedRows:
    return encoded_rows(tiny_rows(count, seed=seed), tiny_model("bert"), "train")
