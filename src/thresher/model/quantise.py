"""Bases in 8 or 4 bits by bitsandbytes, with an adapter and a head of full precision on top.

The packed weights are constants: they have no gradient, are not trained and are not audited. A layer in 4 bits gives
W_q x with W_q the unpacked weight, and its gradient in x is exact. A layer in 8 bits rounds x, too, and its backward
pass takes that rounding for the identity (LLM.int8(), Dettmers et al. 2022; QLoRA, Dettmers et al. 2023).
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from thresher.config import ModelConfig
from thresher.errors import ModelError

ROUNDING_8BIT = 2.0**-8
"""Half a step of what an 8-bit layer rounds its input to, as a share of a position's largest entry."""


def packing(config: ModelConfig, settings: Any, device: torch.device, kept: Sequence[str] | None) -> dict[str, Any]:
    """What ``from_pretrained`` is to be told so that linear layers come packed; nothing where that is not asked for.

    ``kept`` names the modules that stay as they are, None an output head. Layers compute in the model's own dtype.
    Raises :class:`ModelError` where bitsandbytes is missing or does not know the device.
    """
    if config.quantize is None:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"--quantize {config.quantize}: needs the 'bitsandbytes' package: pip install 'thresher[quantize]'."
        )
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of its rounding at every call of a layer
    bitsandbytes: Any = importlib.import_module("bitsandbytes")
    known = sorted(bitsandbytes.supported_torch_devices)
    if device.type not in known:
        raise ModelError(
            f"--quantize {config.quantize}: bitsandbytes knows {', '.join(known)}, not {device}; name another --device."
        )
    named = getattr(settings, "dtype", None) or "float32" if config.dtype == "auto" else config.dtype
    four: dict[str, Any] = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": str(named).removeprefix("torch."),
    }
    how: dict[str, Any] = four if config.quantize == "4bit" else {"load_in_8bit": True}
    skipped = None if kept is None else list(kept)
    return {"quantization_config": BitsAndBytesConfig(**how, llm_int8_skip_modules=skipped), "device_map": {"": device}}


def is_packed(parameter: Tensor) -> bool:
    """Whether a parameter holds packed numbers, which have no gradient."""
    return not parameter.is_floating_point() or hasattr(parameter, "quant_state")


def precision(model: nn.Module) -> float:
    """The relative rounding of what the model computes: its dtype's, or that of inputs in 8 bits."""
    eps = max(torch.finfo(p.dtype).eps for p in model.parameters() if not is_packed(p))
    eight = any(p.dtype == torch.int8 for p in model.parameters())
    return max(eps, ROUNDING_8BIT) if eight else eps


def move_model(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device; a packed one was loaded there, and stays."""
    return model if any(is_packed(p) for p in model.parameters()) else model.to(device)


@contextmanager
def differentiable(model: nn.Module) -> Generator[None]:
    """Keep gradients flowing through 4-bit layers, for the duration.

    On CPUs with bfloat16 instructions such a layer repacks its weight for speed at its first prediction, and what it
    says from then on is cut from the graph without a word.
    """
    layers: list[Any] = [m for m in model.modules() if getattr(m, "support_avx512bf16_for_cpu", False)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
        layer.state_dict()  # saving undoes the repacking
    try:
        yield
    finally:
        for layer in layers:
            layer.support_avx512bf16_for_cpu = True
