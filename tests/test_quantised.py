"""Bases in 4 and 8 bits: gradients of what lies on top of them, audits from end to end, and clear refusals."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, LlamaConfig

import thresher
from conftest import audited, pass_gradients, relative_error, tiny_rows, true_gradients
from folders import SIZES, answers, classifier_folder, reviews, tokenizer, write_rows
from thresher.config import ModelConfig, Recipe
from thresher.errors import ModelError
from thresher.model.finetune import finetune
from thresher.model.inputs import encoded_rows
from thresher.model.load import LoadedModel, load_classifier, load_generator
from thresher.model.lora import with_lora
from thresher.model.quantise import is_packed
from thresher.progress import Silent

WIDE: dict[str, Any] = {**SIZES, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
CONFIGS: dict[str, Any] = {"bert": BertConfig(**WIDE), "llama": LlamaConfig(**WIDE)}
CLASSES = ("bad", "fine", "good")
FAST: dict[str, Any] = {
    "detector": "datainf/layers/vote",
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "device": "cpu",
}


def missing() -> str:
    """Why nothing can be quantised here; nothing where it can."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed"
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        dequantize_4bit(*quantize_4bit(torch.ones(64, 64)))
    except Exception as error:  # no library for this machine; the kinds of error differ
        return f"bitsandbytes has no working backend for the CPU ({error})"
    return ""


needs_bitsandbytes = pytest.mark.skipif(bool(missing()), reason=missing())
both = pytest.mark.parametrize("bits", ["4bit", "8bit"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrained backbones, a causal LM and rows."""
    folder = tmp_path_factory.mktemp("quantised")
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        AutoModel.from_config(config, **({"add_pooling_layer": False} if name == "bert" else {})).save_pretrained(
            folder / name
        )
        tokenizer(pad=name == "bert").save_pretrained(folder / name)
    AutoModelForCausalLM.from_config(CONFIGS["llama"]).save_pretrained(folder / "generator")
    tokenizer(pad=False).save_pretrained(folder / "generator")
    for rows, file in ((reviews, "reviews"), (answers, "answers")):
        write_rows(folder / f"{file}.jsonl", rows(24, 1))
        write_rows(folder / f"{file}-clean.jsonl", rows(8, 2))
    return folder


def subject(place: Path, family: str, bits: Any, **more: Any) -> LoadedModel:
    """A quantised base under LoRA that has learned something."""
    base = load_classifier(ModelConfig(model=str(place / family), quantize=bits, device="cpu", **more), CLASSES, 0)
    found = with_lora(base, Recipe(), 0)
    with torch.no_grad():
        for name, parameter in found.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return found


def packed(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if is_packed(p)}


def unpacked(model: nn.Module) -> nn.Module:
    """The same model with ordinary linear layers that hold the numbers its packed ones stand for."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit

    modules: list[tuple[str, Any]] = list(model.named_modules())
    for name, layer in modules:
        if isinstance(layer, Linear4bit):
            packed: Any = layer.weight
            plain = nn.Linear(layer.in_features, layer.out_features)
            plain.weight = nn.Parameter(dequantize_4bit(packed.data, packed.quant_state))
            plain.register_parameter("bias", layer.bias)
            model.set_submodule(name, plain)
    return model


def alone(model: nn.Module, rows: list[dict[str, Any]], names: list[str]) -> dict[str, Tensor]:
    """Gradients by plain autograd, one row at a time, of the model as it is."""
    parameters = {name: p for name, p in model.named_parameters() if name in names}
    for parameter in parameters.values():
        parameter.requires_grad_()
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for row in rows:
        loss = F.cross_entropy(model.eval()(torch.tensor([row["input_ids"]])).logits, torch.tensor([row["labels"]]))
        for name, gradient in zip(names, torch.autograd.grad(loss, [parameters[n] for n in names]), strict=True):
            found[name].append(gradient)
    return {name: torch.stack(gradients) for name, gradients in found.items()}


def few_rows() -> list[dict[str, Any]]:
    return [{**row, "input_ids": [token % len(tokenizer()) for token in row["input_ids"]]} for row in tiny_rows(8)]


@needs_bitsandbytes
@pytest.mark.parametrize("family", list(CONFIGS))
def test_gradients_over_4_bits_are_those_of_the_unpacked_model(place: Path, family: str) -> None:
    model, rows = subject(place, family, "4bit").model, few_rows()
    names = audited(model)
    assert {"lora_A", "lora_B", "modules_to_save"} <= {part for name in names for part in name.split(".")}
    with torch.no_grad():
        model.eval()(torch.tensor([[2, 3, 4]]))  # a prediction may repack the weights, which cuts the graph
    found, row_by_row = pass_gradients(model, names, rows)
    assert row_by_row == ()
    for name, truth in true_gradients(unpacked(model), rows, names).items():
        assert relative_error(found[name], truth) < 1e-5, name


@needs_bitsandbytes
@pytest.mark.parametrize("family", list(CONFIGS))
@pytest.mark.parametrize(("scale", "tolerance"), [(1, 1e-5), (4, 0.05)], ids=["even", "outliers"])
def test_gradients_over_8_bits_are_those_of_rows_alone(
    place: Path, family: str, scale: float, tolerance: float
) -> None:
    # A feature that is large at any position of a batch is not rounded in the whole batch, so a row in a batch differs
    # from the row alone by the rounding of 8 bits. That must not be taken for a wrong rule.
    model, rows = subject(place, family, "8bit").model, few_rows()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.mul_(scale)
    names = audited(model)
    found, row_by_row = pass_gradients(model, names, rows)
    assert row_by_row == ()
    for name, truth in alone(model, rows, names).items():
        assert relative_error(found[name], truth.double()) < tolerance, name


@needs_bitsandbytes
@both
@pytest.mark.parametrize("family", list(CONFIGS))
def test_only_layers_under_the_head_are_packed(place: Path, family: str, bits: str) -> None:
    model = subject(place, family, bits).model
    assert packed(model)
    assert all(".layer" in name and not p.requires_grad for name, p in packed(model).items())
    assert not set(packed(model)) & set(audited(model))
    rows = few_rows()
    with pytest.raises(ModelError, match=r"is quantised, and has no gradient"):
        thresher.influence(model, rows, rows[:2], modules="query|q_proj")


@needs_bitsandbytes
@pytest.mark.parametrize(
    ("bits", "task", "model", "file"),
    [("4bit", "classify", "bert", "reviews"), ("8bit", "generate", "generator", "answers")],
)
def test_audits_fine_tune_over_packed_weights(place: Path, bits: str, task: str, model: str, file: str) -> None:
    given = {"train": place / f"{file}.jsonl", "validation": place / f"{file}-clean.jsonl"}
    settings = {name: str(path) for name, path in given.items()} | {"task": task, "quantize": bits, **FAST}
    found = thresher.audit({**settings, "model": str(place / model), "output": str(place / f"{task}-{bits}")})
    assert sorted(found.scores["rank"]) == list(range(1, 25))
    assert found.scores["score"].nunique() > 12
    assert {"A", "B"} < set(found.tensor["factor"].values)


@needs_bitsandbytes
def test_training_over_4_bits_is_training_of_the_unpacked_model(place: Path, tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=1e-2)
    own, base = (
        load_classifier(ModelConfig(model=str(place / "bert"), quantize="4bit", device="cpu"), CLASSES, 0)
        for _ in range(2)
    )
    before = {name: p.clone() for name, p in packed(own.model).items()}
    histories: list[Any] = []
    for subject in (own, replace(base, model=unpacked(base.model))):
        tuned = with_lora(subject, recipe, 0)
        rows = encoded_rows(few_rows(), tuned.model, "train")
        folder = tmp_path / str(len(histories))
        histories.append(finetune(tuned, rows, rows, recipe, seed=0, folder=folder, progress=Silent()))
    for ours, plain in zip(histories[0].epochs, histories[1].epochs, strict=True):
        assert (ours.train_loss, ours.query_loss) == pytest.approx((plain.train_loss, plain.query_loss), rel=1e-4)
    after = list(packed(own.model).values())
    assert all(torch.equal(p, q) for p, q in zip(before.values(), after, strict=True))


@needs_bitsandbytes
@both
def test_adapters_go_on_top_of_packed_weights(place: Path, bits: str) -> None:
    own = subject(place, "bert", bits)
    folder = place / f"adapter-{bits}"
    own.model.save_pretrained(folder)  # pyright: ignore
    config = ModelConfig(model=str(place / "bert"), adapter=str(folder), quantize=bits, device="cpu")  # pyright: ignore
    again = load_classifier(config, CLASSES, 1)
    row = torch.tensor([[2, 5, 9, 11]])
    with torch.no_grad():
        assert torch.equal(again.model.eval()(row).logits, own.model.eval()(row).logits)


@needs_bitsandbytes
def test_heads_of_causal_models_stay_as_they_are(place: Path) -> None:
    model = load_generator(ModelConfig(model=str(place / "generator"), quantize="4bit", device="cpu")).model
    assert packed(model)
    assert all(".layers." in name for name in packed(model))


def test_models_fine_tuned_whole_are_refused(tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path, ["bad", "good"])
    with pytest.raises(ModelError, match="fine-tuned whole"):
        load_classifier(ModelConfig(model=str(folder), quantize="8bit"), ["bad", "good"], 0)


def test_bitsandbytes_is_asked_for_by_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'thresher\[quantize\]'"):
        load_classifier(ModelConfig(model=str(place / "bert"), quantize="4bit", device="cpu"), CLASSES, 0)


@needs_bitsandbytes
def test_devices_that_cannot_do_it_are_refused(place: Path) -> None:
    with pytest.raises(ModelError, match="bitsandbytes knows"):
        load_classifier(ModelConfig(model=str(place / "bert"), quantize="4bit", device="meta"), CLASSES, 0)
