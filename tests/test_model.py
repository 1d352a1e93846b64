"""Names of modules by rule, and what is audited by default."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from conftest import CONFIGS, tiny_model
from folders import classifier_folder, encoder_folder
from thresher.config import ModelConfig, Recipe
from thresher.errors import DataError, ModelError
from thresher.files import write_json
from thresher.influences.compute import select_modules
from thresher.model.load import audited_by_default, load_classifier, most_tokens
from thresher.model.lora import with_lora
from thresher.model.losses import row_losses
from thresher.model.names import attention_projections, groups_in, in_group, projection


@pytest.mark.parametrize("family", list(CONFIGS))
def test_lora_sits_on_query_and_value_of_every_layer_and_head_and_embedding_are_found(family: str) -> None:
    modules = select_modules(tiny_model(family, lora=True), None, ("tracin",))
    fused = family in ("gpt2", "gpt-neox", "modernbert")
    expected = {"query_key_value"} if fused else {"query", "value"}
    layers = [m for m in modules if m.block == "layer"]
    assert {(m.layer, m.projection, m.factor) for m in layers} == {
        (layer, kind, factor) for layer in (0, 1) for kind in expected for factor in "AB"
    }
    assert [m.group for m in layers] == ["1"] * (len(layers) // 2) + ["3"] * (len(layers) // 2)
    assert sum(m.group == "WE" for m in modules) == 1
    assert sum(m.group == "CL" for m in modules) >= 1
    assert not [m for m in modules if m.group == "other"]


def test_every_parameter_of_a_whole_model_has_its_place() -> None:
    modules = select_modules(tiny_model("bert"), None, ("tracin",))
    places = {m.name: (m.block, m.group) for m in modules}
    assert places["bert.embeddings.word_embeddings.weight"] == ("embedding", "WE")
    assert places["bert.embeddings.position_embeddings.weight"] == ("other", "other")
    assert places["bert.pooler.dense.bias"] == places["classifier.weight"] == ("head", "CL")
    assert groups_in(modules) == ["WE", "1", "3", "CL", "layers", "all"]
    assert sum(in_group(m, "layers") for m in modules) == sum(m.block == "layer" for m in modules)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("encoder.layer.3.attention.self.query", "query"),
        ("h.0.attn.c_attn.lora_A.default", "query_key_value"),
        ("layers.1.self_attn.v_proj", "value"),
        ("transformer.layer.0.attention.k_lin", "key"),
        ("encoder.layer.0.attention.attn.q", "query"),
        ("encoder.layer.0.attention.output.dense", "-"),
        ("layers.0.mlp.gate_proj", "-"),
    ],
)
def test_projections_are_read_from_names(name: str, kind: str) -> None:
    assert projection(name) == kind


def test_losses_are_those_of_the_library(bert: Any) -> None:
    logits, labels = torch.randn(6, 3), torch.randint(0, 3, (6,))
    assert torch.allclose(
        row_losses(logits, labels, bert.config).mean(), torch.nn.functional.cross_entropy(logits, labels)
    )
    several = torch.randint(0, 2, (6, 3))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, several.float())
    assert torch.allclose(row_losses(logits, several, bert.config).mean(), expected)
    with pytest.raises(ModelError, match="sequence classifier"):
        row_losses(torch.randn(6, 4, 9), labels, bert.config)


def config(folder: Path, **more: Any) -> ModelConfig:
    return ModelConfig(model=str(folder), device="cpu", **more)


def test_a_new_head_and_adapter_follow_from_the_seed(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "encoder")

    def initial(seed: int) -> dict[str, torch.Tensor]:
        subject = with_lora(load_classifier(config(folder), ("a", "b"), seed), Recipe(), seed)
        return {name: p.detach() for name, p in subject.model.named_parameters() if p.requires_grad}

    first, again, other = initial(0), initial(0), initial(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_without_base_dropout_only_the_adapter_drops(tmp_path: Path) -> None:
    subject = load_classifier(config(encoder_folder(tmp_path / "encoder")), ("a", "b"), 0)
    model = with_lora(subject, Recipe(base_dropout=False), 0).model
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert {p for name, p in rates.items() if "lora" in name} == {0.05}
    assert {p for name, p in rates.items() if "lora" not in name} == {0.0}


def test_classes_of_a_fine_tuned_model_are_matched_by_name_or_number_or_order(tmp_path: Path) -> None:
    named = classifier_folder(tmp_path / "named", ["no", "yes"])
    assert load_classifier(config(named), ("yes",), 0).classes == {"no": 0, "yes": 1}
    assert load_classifier(config(named), ("0", "1"), 0).classes == {"0": 0, "1": 1}
    with pytest.raises(DataError, match=r"Label 'maybe' .* not among the model's classes \(no, yes\)"):
        load_classifier(config(named), ("maybe", "yes"), 0)
    generic = classifier_folder(tmp_path / "generic", ["LABEL_0", "LABEL_1", "LABEL_2"])
    assert load_classifier(config(generic), ("0", "2"), 0).classes == {"0": 0, "1": 1, "2": 2}
    for labels in (("ham", "other", "spam"), ("00", "01", "02"), ("1", "2", "3")):
        subject = load_classifier(config(generic), labels, 0)
        assert subject.classes == {name: number for number, name in enumerate(labels)}
        assert subject.classes_assumed
    with pytest.raises(DataError, match=r"2 classes \(ham, spam\) and the model 3 without names"):
        load_classifier(config(generic), ("ham", "spam"), 0)


def test_an_adapter_knows_its_classes_by_file_or_by_number(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "encoder")
    saved: Any = with_lora(load_classifier(config(folder), ("a", "b", "c"), 0), Recipe(), 0).model
    adapter = tmp_path / "adapter"
    saved.save_pretrained(adapter)
    assert load_classifier(config(folder, adapter=str(adapter)), ("0", "2"), 0).classes == {"0": 0, "1": 1, "2": 2}
    with pytest.raises(DataError, match=r"2 classes \(a, c\) and the model 3 without names"):
        load_classifier(config(folder, adapter=str(adapter)), ("a", "c"), 0)
    write_json(adapter / "classes.json", {"c": 0, "b": 1, "a": 2})
    assert load_classifier(config(folder, adapter=str(adapter)), ("a", "c"), 0).classes["a"] == 2


def test_a_new_head_on_a_regression_model_learns_classes(tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "regression", ["LABEL_0"])
    with pytest.raises(ModelError, match="one number, not classes"):
        load_classifier(config(folder), ("0", "1"), 0)
    settings = json.loads((folder / "config.json").read_text()) | {"problem_type": "regression"}
    (folder / "config.json").write_text(json.dumps(settings))
    subject = load_classifier(config(folder, finetune=True), ("0", "1"), 0)
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert torch.equal(row_losses(logits, labels, subject.model.config), expected)


def test_rows_are_cut_to_the_positions_a_model_has() -> None:
    knows = SimpleNamespace(model_max_length=16)
    assert most_tokens(tiny_model("bert"), knows, 1000) == most_tokens(tiny_model("bert"), knows, None) == 64
    assert most_tokens(tiny_model("bert"), knows, 8) == 8
    assert most_tokens(tiny_model("roberta"), knows, 1000) == 62  # positions count from the one after the pad id
    endless: Any = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: None))
    assert most_tokens(endless, knows, None) == 16
    assert most_tokens(endless, knows, 1000) == 1000


def test_a_whole_model_is_audited_through_query_value_and_head(tmp_path: Path) -> None:
    subject = load_classifier(config(classifier_folder(tmp_path / "whole", ["a", "b"])), ("a", "b"), 0)
    pattern = audited_by_default(subject, projected=False)
    names = [m.name for m in select_modules(subject.model, pattern, ("tracin",))]
    parts = [*attention_projections(subject.model), "classifier"]
    assert names == [n for n, _ in subject.model.named_parameters() if n.rpartition(".")[0] in parts]


def test_an_adapter_without_the_head_is_refused(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "encoder")
    subject = with_lora(load_classifier(config(folder), ("a", "b"), 0), Recipe(), 0)
    saved: Any = subject.model
    saved.save_pretrained(tmp_path / "adapter")
    weights = {k: v for k, v in torch_tensors(tmp_path / "adapter").items() if "classifier" not in k}
    save_file(weights, tmp_path / "adapter/adapter_model.safetensors")
    with pytest.raises(ModelError, match="holds no weights for classifier"):
        load_classifier(config(folder, adapter=str(tmp_path / "adapter")), ("a", "b"), 0)
    with pytest.raises(ModelError, match=r"no adapter_model.safetensors"):
        load_classifier(config(folder, adapter=str(folder)), ("a", "b"), 0)


def torch_tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")
