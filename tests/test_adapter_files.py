"""Adapters as files: all of their tensors land in the model under audit, or it is refused; so from Python."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, LlamaConfig, OPTConfig

import thresher
from conftest import PAD, VOCABULARY, tiny_rows
from folders import SIZES
from thresher.errors import ModelError
from thresher.model.adapters import WEIGHTS, load_adapter
from thresher.model.classes import class_numbers
from thresher.model.quiet import quiet

TARGETS = ["q_proj", "v_proj"]


def base() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {**SIZES, "vocab_size": VOCABULARY, "pad_token_id": PAD, "num_labels": 3}
    return AutoModelForSequenceClassification.from_config(LlamaConfig(**sizes))


def moved(model: Any) -> Any:
    """As if its adapter had been trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Any, Path]:
    model = moved(peft.get_peft_model(base(), peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=TARGETS)))
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


def rename(adapter: Path, new_name: Callable[[str], str | None]) -> None:
    tensors = load_file(adapter / WEIGHTS)
    renamed = {new: tensor for name, tensor in tensors.items() if (new := new_name(name)) is not None}
    save_file(renamed, adapter / WEIGHTS, metadata={"format": "pt"})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[2, 5, 7, 3]])).logits


@pytest.mark.parametrize(
    "new_name",
    [
        lambda name: name,
        lambda name: f"_orig_mod.{name}",
        lambda name: name.replace("base_model.model.", "base_model.model.module."),
        lambda name: name.replace("base_model.model.model.", "base_model.model.language_model."),
    ],
    ids=["as saved", "compiled", "wrapped", "inside another model"],
)
def test_the_audited_model_is_the_fine_tuned_one(saved: tuple[Any, Path], new_name: Callable[[str], str]) -> None:
    model, adapter = saved
    rename(adapter, new_name)
    loaded = load_adapter(base(), str(adapter), (), "base")
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.allclose(logits(loaded), logits(base()))


@pytest.mark.parametrize(
    ("new_name", "said"),
    [
        (lambda name: name.replace("base_model.model.model.", "base_model.model."), "16 of 17 tensors .* no place"),
        (lambda name: name if ".layers.0." not in name else None, "4 of 17 trained tensors are not in"),
        (lambda name: name if "score" not in name else None, "trained .*score.weight. is not in the adapter"),
        (lambda name: name.replace(".layers.0.", ".layers.9."), "4 of 17 tensors .* no place.*layers.9"),
    ],
    ids=["of the bare backbone", "half", "without its head", "of more layers"],
)
def test_an_adapter_that_is_not_whole_or_not_the_models_is_refused(
    saved: tuple[Any, Path], new_name: Callable[[str], str | None], said: str
) -> None:
    _, adapter = saved
    rename(adapter, new_name)
    with pytest.raises(ModelError, match=said):
        load_adapter(base(), str(adapter), (), "base")


def test_lora_on_an_untrained_head_does_not_stand_for_it(tmp_path: Path) -> None:
    settings = peft.LoraConfig(r=2, target_modules=[*TARGETS, "score"])
    peft.get_peft_model(base(), settings).save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="holds no weights for score"):
        load_adapter(base(), str(tmp_path), ("score",), "base")
    load_adapter(base(), str(tmp_path), (), "base")  # of a base with a trained head


@pytest.mark.parametrize("rank", [1, 2, 8])
def test_the_head_says_how_many_classes_there_are(tmp_path: Path, rank: int) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "vocab_size": 24,
    }
    more: dict[str, Any] = {"num_attention_heads": 4, "max_position_embeddings": 64, "num_labels": 3}
    settings = OPTConfig(**sizes, **more)
    model = AutoModelForSequenceClassification.from_config(settings)
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=rank, target_modules="all-linear")  # out_proj of attention, too
    peft.get_peft_model(model, lora).save_pretrained(str(tmp_path))
    AutoModel.from_config(settings).save_pretrained(tmp_path / "base")
    plain = OPTConfig(**sizes)  # of a base without a head: two classes without names
    found = class_numbers(plain, ["x", "y", "z"], str(tmp_path))
    assert found.numbers == {"x": 0, "y": 1, "z": 2}
    assert "sorted order" in found.assumed


def test_a_frozen_adapter_means_its_adapter(saved: tuple[Any, Path]) -> None:
    model, adapter = saved
    frozen: Any = peft.PeftModel.from_pretrained(base(), str(adapter))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    rows, queries = tiny_rows(6), tiny_rows(2, seed=5)
    expected, found = (thresher.influence(one, rows, queries) for one in (model, frozen))
    assert list(found["module"].values) == list(expected["module"].values)
    assert len(found["module"]) == 18  # A and B of two projections in four layers, the head, the embedding
    assert found.equals(expected)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_a_library_that_asks_another_by_an_old_name_is_not_heard_and_others_are(saved: tuple[Any, Path]) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        load_adapter(base(), str(saved[1]), (), "base")
        with quiet():
            warnings.warn("something else is deprecated", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in heard] == ["something else is deprecated"]


def fetched(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on the hub has what is in a folder."""

    def cached_file(_: str, name: str, **__: Any) -> str | None:
        return str(folder / name) if (folder / name).is_file() else None

    monkeypatch.setattr("thresher.model.adapters.cached_file", cached_file)


def test_an_adapter_of_the_hub_is_read_as_one_in_a_folder(
    saved: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, adapter = saved
    fetched(monkeypatch, adapter)
    assert torch.equal(logits(load_adapter(base(), "some/adapter", (), "base")), logits(model))
    with pytest.raises(ModelError, match="some/adapter: holds no weights for pooler"):
        load_adapter(base(), "some/adapter", ("pooler",), "base")


def test_an_adapter_of_the_hub_that_is_a_pickle_is_not_opened(
    saved: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, adapter = saved
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    fetched(monkeypatch, adapter)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))  # pyright: ignore[reportUnknownArgumentType]
    with pytest.raises(
        ModelError, match=r"some/adapter: needs adapter_config\.json and adapter_model\.safetensors;.*pickle"
    ):
        load_adapter(base(), "some/adapter", (), "base")


@pytest.mark.parametrize("kind", ["XLORA", "SHADOW"])
def test_an_adapter_that_names_other_weights_is_refused(saved: tuple[Any, Path], kind: str) -> None:
    _, adapter = saved
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"peft_type": kind}))
    assert kind in peft.PeftType.__members__
    with pytest.raises(ModelError, match=f"kind {kind} loads weights from elsewhere"):
        load_adapter(base(), str(adapter), (), "base")
