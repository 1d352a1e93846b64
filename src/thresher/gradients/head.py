"""The last linear layer of a model: where it is, and whether its output really is what the loss sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thresher.data.encode import Batch
from thresher.errors import ModelError
from thresher.gradients.rules import precise
from thresher.model.quantise import is_packed


@dataclass(frozen=True)
class Head:
    """The last linear layer. ``generative`` where it gives scores of tokens, one vector a position."""

    layer: nn.Linear
    generative: bool

    def matrix(self) -> tuple[Tensor, Tensor | None]:
        """Weight [C, d] and bias [C], float32 on the CPU."""
        bias = None if self.layer.bias is None else precise(self.layer.bias.detach()).cpu()  # pyright: ignore
        return precise(self.layer.weight.detach()).cpu(), bias


@torch.no_grad()
def find_head(model: nn.Module, batch: Batch, options: Mapping[str, Any]) -> Head:
    """The linear layer that is called last and whose output, at some position of each row, is the row's logits.

    Raises :class:`ModelError` where there is none (several layers added up, capped or scaled scores).
    """
    last: list[tuple[nn.Linear, Tensor]] = []

    def remember(layer: nn.Linear, args: Any, output: Tensor) -> None:
        last[:] = [(layer, output)]

    handles = [layer.register_forward_hook(remember) for layer in model.modules() if isinstance(layer, nn.Linear)]
    try:
        logits: Tensor = model(**batch.inputs, **options).logits
    finally:
        for handle in handles:
            handle.remove()
    rows, width = len(batch), logits.shape[-1]
    if not last or last[0][1].shape[-1] != width or last[0][1][..., 0].numel() % rows:
        raise ModelError(
            "The model's scores do not come from one last linear layer; leave head_kernel out of --methods."
        )
    layer, output = last[0]
    if is_packed(layer.weight):
        raise ModelError("The model's last linear layer is quantised; leave head_kernel out of --methods.")
    wanted, given = logits.reshape(rows, -1, width), output.reshape(rows, -1, width)
    same = wanted.shape == given.shape and torch.allclose(wanted, given, rtol=1e-4, atol=1e-5)
    pooled = wanted.shape[1] == 1 and bool(((given - wanted).abs().amax(-1).amin(1) <= 1e-3).all())
    if not same and not pooled:
        raise ModelError("The model changes what its last linear layer says; leave head_kernel out of --methods.")
    return Head(layer, logits.dim() == 3)
