"""One tiny random configuration an architecture, for what must hold of any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers

from folders import WORDS

CLASSES = 3
_NARROW: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 64,
}
_GROUPED: dict[str, Any] = {**_NARROW, "num_key_value_heads": 2, "head_dim": 8}
_EXPERTS: dict[str, Any] = {**_GROUPED, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
_T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": len(WORDS),
    "decoder_start_token_id": 0,
}
_XLM: dict[str, Any] = {
    "emb_dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_words": len(WORDS),
    "max_position_embeddings": 64,
}
_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": len(WORDS)}
_BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 64,
}

ENCODERS: Mapping[str, dict[str, Any]] = {
    "Albert": {**_NARROW, "embedding_size": 16},
    "Bert": _NARROW,
    "BigBird": {**_NARROW, "attention_type": "original_full"},
    "ConvBert": {**_NARROW, "embedding_size": 32},
    "Data2VecText": _NARROW,
    "Deberta": {**_NARROW, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "DebertaV2": {**_NARROW, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": len(WORDS)},
    "Electra": {**_NARROW, "embedding_size": 16},
    "Ernie": _NARROW,
    "Esm": {**_NARROW, "mask_token_id": 1, "pad_token_id": 0},
    "EuroBert": {**_GROUPED},
    "Flaubert": _XLM,
    "FNet": _NARROW,
    "Funnel": {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1], "vocab_size": len(WORDS)},
    "IBert": _NARROW,
    "Longformer": {**_NARROW, "attention_window": 8},
    "Luke": {**_NARROW, "entity_vocab_size": 4, "entity_emb_size": 8},
    "MegatronBert": _NARROW,
    "MobileBert": {**_NARROW, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "ModernBert": {**_NARROW, "local_attention": 8, "global_attn_every_n_layers": 2},
    "MPNet": _NARROW,
    "NomicBert": _NARROW,
    "RemBert": {**_NARROW, "input_embedding_size": 16, "output_embedding_size": 16},
    "Roberta": _NARROW,
    "RobertaPreLayerNorm": _NARROW,
    "RoCBert": {**_NARROW, "enable_pronunciation": False, "enable_shape": False},
    "RoFormer": _NARROW,
    "SqueezeBert": {**_NARROW, "embedding_size": 32},
    "XLM": _XLM,
    "XLMRoberta": _NARROW,
    "XLMRobertaXL": _NARROW,
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "vocab_size": len(WORDS)},
    "Xmod": {**_NARROW, "languages": ["en_XX"], "default_language": "en_XX"},
    "T5": _T5,
    "UMT5": _T5,
    "Bart": _BART,
    "Mvp": _BART,
}
DECODERS: Mapping[str, dict[str, Any]] = {
    "Arcee": _GROUPED,
    "BioGpt": _NARROW,
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": len(WORDS)},
    "Cohere": _GROUPED,
    "CTRL": {**_GPT, "dff": 64},
    "DeepseekV3": {
        **_NARROW,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 16,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
    },
    "Exaone4": _GROUPED,
    "Falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": len(WORDS)},
    "Gemma": _GROUPED,
    "Gemma2": {**_GROUPED, "sliding_window": 8},
    "Gemma3Text": {**_GROUPED, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "Glm": _GROUPED,
    "Glm4": _GROUPED,
    "GPT2": _GPT,
    "GPTBigCode": _GPT,
    "GPTNeo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
        "vocab_size": len(WORDS),
        "max_position_embeddings": 64,
    },
    "GPTNeoX": _NARROW,
    "GPTJ": {**_GPT, "rotary_dim": 4},
    "GptOss": {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "Granite": _GROUPED,
    "Helium": _GROUPED,
    "Jamba": {
        **_GROUPED,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
        "mamba_dt_rank": 4,
        "num_experts": 2,
        "num_experts_per_tok": 1,
    },
    "Llama": _GROUPED,
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "vocab_size": len(WORDS)},
    "Mistral": {**_GROUPED, "sliding_window": 8},
    "Mixtral": {**_GROUPED, "num_local_experts": 4},
    "Mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "vocab_size": len(WORDS)},
    "Nemotron": _GROUPED,
    "Olmo": _GROUPED,
    "Olmo2": _GROUPED,
    "OpenAIGPT": _GPT,
    "OPT": {**_NARROW, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "Persimmon": _NARROW,
    "Phi": _NARROW,
    "Phi3": {**_NARROW, "num_key_value_heads": 2},
    "Qwen2": _GROUPED,
    "Qwen2Moe": {**_EXPERTS, "shared_expert_intermediate_size": 32},
    "Qwen3": _GROUPED,
    "Qwen3Moe": _EXPERTS,
    "SmolLM3": _GROUPED,
    "StableLm": _GROUPED,
    "Starcoder2": _GROUPED,
    "XGLM": {
        "d_model": 32,
        "num_layers": 2,
        "attention_heads": 4,
        "ffn_dim": 64,
        "vocab_size": len(WORDS),
        "max_position_embeddings": 64,
    },
}

PADDING_TELLS = ("ConvBert", "FNet", "MobileBert", "XLNet")
"""Encoders that look at the positions after a row's end: by a convolution, by mixing all of them, by pooling them."""

ONLY_GENERATE = ("Cohere", "Granite", "Mamba", "XGLM")
"""Decoders that the library has no classifier of."""


def configured(architecture: str, **more: Any) -> Any:
    """The library's configuration of an architecture, at this file's sizes; special tokens are the word tokenizer's."""
    sizes = ENCODERS.get(architecture) or DECODERS[architecture]
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    return getattr(transformers, f"{architecture}Config")(**{**special, **sizes, **more})
