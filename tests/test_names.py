"""Block, layer, projection, factor and group of parameters, read from the names of every family by one set of rules."""

from __future__ import annotations

from typing import Any

import peft
import pytest
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertModel,
    T5ForSequenceClassification,
    XLMConfig,
)

from conftest import CLASSES, CONFIGS, T5, VOCABULARY, classifier, tiny_model
from thresher.model.names import ModuleName, attention_projections, describe, head_modules

EXPECTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "bert": {
        "bert.embeddings.word_embeddings.weight": ("embedding", -1, "-", "weight", "WE"),
        "bert.embeddings.position_embeddings.weight": ("other", -1, "-", "weight", "other"),
        "bert.encoder.layer.0.attention.self.query.bias": ("layer", 0, "query", "bias", "1"),
        "bert.encoder.layer.1.output.LayerNorm.weight": ("layer", 1, "-", "weight", "3"),
        "bert.pooler.dense.weight": ("head", -1, "-", "weight", "CL"),
        "classifier.weight": ("head", -1, "-", "weight", "CL"),
    },
    "roberta": {
        "roberta.encoder.layer.1.attention.self.value.weight": ("layer", 1, "value", "weight", "3"),
        "classifier.out_proj.weight": ("head", -1, "-", "weight", "CL"),
    },
    "distilbert": {
        "distilbert.embeddings.word_embeddings.weight": ("embedding", -1, "-", "weight", "WE"),
        "distilbert.transformer.layer.1.attention.q_lin.weight": ("layer", 1, "query", "weight", "3"),
        "pre_classifier.weight": ("head", -1, "-", "weight", "CL"),
    },
    "mpnet": {
        "mpnet.encoder.layer.1.attention.attn.v.weight": ("layer", 1, "value", "weight", "3"),
        "mpnet.encoder.relative_attention_bias.weight": ("other", -1, "-", "weight", "other"),
        "classifier.dense.weight": ("head", -1, "-", "weight", "CL"),
    },
    "electra": {
        "electra.embeddings_project.weight": ("other", -1, "-", "weight", "other"),
        "electra.encoder.layer.1.attention.self.key.weight": ("layer", 1, "key", "weight", "3"),
        "classifier.dense.weight": ("head", -1, "-", "weight", "CL"),
        "classifier.out_proj.bias": ("head", -1, "-", "bias", "CL"),
    },
    "deberta-v2": {
        "deberta.encoder.layer.1.attention.self.query_proj.weight": ("layer", 1, "query", "weight", "3"),
        "deberta.encoder.layer.1.attention.self.pos_key_proj.weight": ("layer", 1, "-", "weight", "3"),
        "deberta.encoder.rel_embeddings.weight": ("other", -1, "-", "weight", "other"),
        "pooler.dense.weight": ("head", -1, "-", "weight", "CL"),
    },
    "modernbert": {
        "model.embeddings.tok_embeddings.weight": ("embedding", -1, "-", "weight", "WE"),
        "model.layers.1.attn.Wqkv.weight": ("layer", 1, "query_key_value", "weight", "3"),
        "model.layers.1.attn.Wo.weight": ("layer", 1, "-", "weight", "3"),
        "head.dense.weight": ("head", -1, "-", "weight", "CL"),
        "classifier.bias": ("head", -1, "-", "bias", "CL"),
    },
    "t5-encoder": {
        "transformer.shared.weight": ("embedding", -1, "-", "weight", "WE"),
        "transformer.encoder.block.0.layer.1.DenseReluDense.wi.weight": ("layer", 0, "-", "weight", "1"),
        "transformer.encoder.block.1.layer.0.SelfAttention.q.weight": ("layer", 1, "query", "weight", "3"),
        "transformer.encoder.final_layer_norm.weight": ("other", -1, "-", "weight", "other"),
        "classifier.weight": ("head", -1, "-", "weight", "CL"),
    },
    "gpt2": {
        "transformer.wte.weight": ("embedding", -1, "-", "weight", "WE"),
        "transformer.wpe.weight": ("other", -1, "-", "weight", "other"),
        "transformer.h.1.attn.c_attn.weight": ("layer", 1, "query_key_value", "weight", "3"),
        "transformer.h.1.attn.c_proj.weight": ("layer", 1, "-", "weight", "3"),
        "score.weight": ("head", -1, "-", "weight", "CL"),
    },
    "gpt-neox": {
        "gpt_neox.embed_in.weight": ("embedding", -1, "-", "weight", "WE"),
        "gpt_neox.layers.0.attention.query_key_value.bias": ("layer", 0, "query_key_value", "bias", "1"),
        "score.weight": ("head", -1, "-", "weight", "CL"),
    },
    "opt": {
        "model.decoder.embed_tokens.weight": ("embedding", -1, "-", "weight", "WE"),
        "model.decoder.embed_positions.weight": ("other", -1, "-", "weight", "other"),
        "model.decoder.layers.1.self_attn.q_proj.weight": ("layer", 1, "query", "weight", "3"),
        "score.weight": ("head", -1, "-", "weight", "CL"),
    },
    "qwen3": {"model.layers.1.self_attn.q_norm.weight": ("layer", 1, "-", "weight", "3")},
    "phi": {
        "model.layers.1.self_attn.v_proj.bias": ("layer", 1, "value", "bias", "3"),
        "model.layers.1.self_attn.dense.weight": ("layer", 1, "-", "weight", "3"),
        "model.final_layernorm.weight": ("other", -1, "-", "weight", "other"),
    },
} | {
    family: {
        "model.embed_tokens.weight": ("embedding", -1, "-", "weight", "WE"),
        "model.layers.0.self_attn.q_proj.weight": ("layer", 0, "query", "weight", "1"),
        "model.layers.1.self_attn.k_proj.weight": ("layer", 1, "key", "weight", "3"),
        "model.layers.1.mlp.gate_proj.weight": ("layer", 1, "-", "weight", "3"),
        "model.norm.weight": ("other", -1, "-", "weight", "other"),
        "score.weight": ("head", -1, "-", "weight", "CL"),
    }
    for family in ("llama", "qwen2", "mistral", "gemma")
}  # fmt: skip


def place(module: ModuleName) -> tuple[Any, ...]:
    return (module.block, module.layer, module.projection, module.factor, module.group)


def places(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    return {module.name: place(module) for module in describe(model, [name for name, _ in model.named_parameters()])}


@pytest.mark.parametrize("family", list(EXPECTED))
def test_parameters_of_every_family_have_their_place(family: str) -> None:
    found = places(classifier(family))
    assert {name: found[name] for name in EXPECTED[family]} == EXPECTED[family]


@pytest.mark.parametrize("family", list(CONFIGS))
def test_every_layer_of_every_family_has_its_projections(family: str) -> None:
    model = classifier(family)
    found = {(module.layer, module.projection) for module in describe(model, [n for n, _ in model.named_parameters()])}
    fused = {(layer, "query_key_value") for layer in (0, 1)}
    split = {(layer, kind) for layer in (0, 1) for kind in ("query", "key", "value")}
    assert {pair for pair in found if pair[1] != "-"} in (fused, split)


def test_an_encoders_layers_are_numbered_before_its_decoders() -> None:
    found = places(T5ForSequenceClassification(CONFIGS["t5-encoder"]()))
    assert found["transformer.encoder.block.1.layer.0.SelfAttention.v.weight"][1:] == (1, "value", "weight", "2")
    assert found["transformer.decoder.block.0.layer.1.EncDecAttention.q.weight"][1:] == (2, "query", "weight", "3")
    assert found["transformer.decoder.block.1.layer.2.DenseReluDense.wo.weight"][1:] == (3, "-", "weight", "4")
    assert found["classification_head.out_proj.weight"] == ("head", -1, "-", "weight", "CL")


def test_an_encoder_and_a_decoder_of_different_depth_follow_one_another() -> None:
    config = type(CONFIGS["t5-encoder"]())(**T5, num_decoder_layers=6)
    layers = {place[1] for place in places(T5ForSequenceClassification(config)).values()}
    assert layers == {-1, *range(8)}


def test_lists_that_lie_side_by_side_are_the_same_layers() -> None:
    sizes: dict[str, Any] = {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_words": VOCABULARY}
    config = XLMConfig(**sizes, vocab_size=VOCABULARY)
    found = places(AutoModelForSequenceClassification.from_config(config))
    for part in ("attentions.1.q_lin", "layer_norm1.1", "ffns.1.lin1"):
        assert found[f"transformer.{part}.weight"][:2] == ("layer", 1)


def test_layers_that_share_their_weights_are_one() -> None:
    config = AlbertConfig(hidden_size=32, num_attention_heads=4, intermediate_size=64, vocab_size=VOCABULARY)
    found = places(AutoModelForSequenceClassification.from_config(config))
    assert {place[1] for place in found.values()} == {-1, 0}


@pytest.mark.parametrize("family", ["bert", "llama", "t5-encoder"])
def test_a_head_with_numbered_parts_has_no_layers(family: str) -> None:
    model = classifier(family)
    head = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Sequential(nn.Linear(32, CLASSES)))
    setattr(model, head_modules(model)[0], head)
    name = head_modules(model)[0]
    found = places(model)
    assert found[f"{name}.0.weight"] == found[f"{name}.2.0.weight"] == ("head", -1, "-", "weight", "CL")
    assert {place[4] for place in found.values()} == {"WE", "1", "3", "CL", "other"}
    assert not any(part.startswith(name) for part in attention_projections(model))


class Bare(nn.Module):
    """A classifier that is no class of the library: a backbone and a head, and where its words are."""

    def __init__(self) -> None:
        super().__init__()
        self.config = CONFIGS["bert"]()
        self.trunk = BertModel(self.config)
        self.head = nn.Sequential(nn.Linear(32, CLASSES))

    def get_input_embeddings(self) -> nn.Module:
        return self.trunk.embeddings.word_embeddings


def test_without_a_named_backbone_it_is_what_holds_words_and_layers() -> None:
    found = places(Bare())
    assert found["trunk.embeddings.word_embeddings.weight"][4] == "WE"
    assert found["trunk.encoder.layer.1.attention.self.query.weight"][:3] == ("layer", 1, "query")
    assert found["head.0.weight"] == ("head", -1, "-", "weight", "CL")


def test_parts_of_adapters_are_named_by_what_they_are() -> None:
    def adapted(settings: Any) -> dict[str, tuple[Any, ...]]:
        model: Any = peft.get_peft_model(tiny_model("bert"), settings)
        return {name.removeprefix("base_model.model."): where for name, where in places(model).items()}

    projections = ["query", "value"]
    query = "bert.encoder.layer.1.attention.self.query"
    dora = adapted(
        peft.LoraConfig(task_type="SEQ_CLS", target_modules=[*projections, "word_embeddings"], use_dora=True)
    )
    assert dora[f"{query}.base_layer.weight"] == ("layer", 1, "query", "weight", "3")
    assert dora[f"{query}.lora_B.default.weight"] == ("layer", 1, "query", "B", "3")
    assert dora[f"{query}.lora_magnitude_vector.default.weight"] == ("layer", 1, "query", "magnitude_vector", "3")
    assert dora["bert.embeddings.word_embeddings.base_layer.weight"][4] == "WE"
    assert dora["bert.embeddings.word_embeddings.lora_embedding_A.default"] == ("other", -1, "-", "A", "other")
    assert dora["classifier.modules_to_save.default.weight"] == ("head", -1, "-", "weight", "CL")
    ia3 = adapted(peft.IA3Config(task_type="SEQ_CLS", target_modules=projections, feedforward_modules=[]))
    assert ia3[f"{query}.ia3_l.default"] == ("layer", 1, "query", "ia3_l", "3")
    prompt = adapted(peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4))
    assert prompt["prompt_encoder.default.embedding.weight"] == ("other", -1, "-", "weight", "other")
    assert prompt["base_model.bert.encoder.layer.1.attention.self.query.weight"][:2] == ("layer", 1)
    assert prompt["base_model.classifier.modules_to_save.default.weight"][4] == "CL"
