"""Modules that are no parameter: a layer's pooled hidden states, and the last linear layer as a kernel.

They stand in the tensor beside the parameters, with layer and group, so that influence functions which need no backward
pass are selected, added up and compared like all others.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from torch import nn

from thresher.errors import ModelError
from thresher.model.names import ModuleName

Pooling = Literal["last", "mean"]

HEAD = "head"
_HIDDEN = re.compile(r"hidden\.(embedding|\d+)\.(last|mean)")


def hidden_modules(model: nn.Module) -> list[ModuleName]:
    """The embedding's and every layer's output, pooled by the last token and by the mean over the real ones.

    Raises :class:`ModelError` where the model's configuration does not tell how many layers there are.
    """
    settings: Any = model.config.get_text_config()  # pyright: ignore
    layers, width = getattr(settings, "num_hidden_layers", None), getattr(settings, "hidden_size", None)
    if not isinstance(layers, int) or not isinstance(width, int) or getattr(settings, "is_encoder_decoder", False):
        raise ModelError("The model is no stack of layers of one width; leave repsim out of --methods.")
    return [_hidden(layer, layers, pooling, width) for layer in range(-1, layers) for pooling in ("last", "mean")]


def hidden_place(name: str) -> tuple[int, Pooling]:
    """Layer (-1 for the embedding) and pooling of a hidden module's name."""
    found = _HIDDEN.fullmatch(name)
    assert found is not None
    return (-1 if found[1] == "embedding" else int(found[1])), "last" if found[2] == "last" else "mean"


def head_module() -> ModuleName:
    """The last linear layer's matrix, met through inner products of what goes in and out; its size does not matter."""
    return ModuleName(HEAD, "head", -1, "-", "weight", "CL", 0, kind="head")


def _hidden(layer: int, layers: int, pooling: Pooling, width: int) -> ModuleName:
    if layer < 0:
        return ModuleName(f"hidden.embedding.{pooling}", "embedding", -1, "-", pooling, "WE", width, kind="hidden")
    group = ("1", "2", "3", "4")[4 * layer // layers]
    return ModuleName(f"hidden.{layer}.{pooling}", "layer", layer, "-", pooling, group, width, kind="hidden")
