"""Mixed precision: matrix products in bfloat16 while the weights, and what AdamW adds to them, keep their dtype."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from thresher.config import Recipe
from thresher.model.load import LoadedModel


@contextmanager
def mixed_precision(subject: LoadedModel, recipe: Recipe) -> Generator[None]:
    """For the duration the model runs as ``recipe.bf16`` says. Leave it between two steps.

    Autocast remembers its bfloat16 copy of a trained weight until the outermost context ends.
    """
    if not recipe.bf16:
        yield
        return
    device = subject.device.type
    # On a CPU the fused attention's backward pass in bfloat16 takes eight times that in float32.
    attention = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    with torch.autocast(device, torch.bfloat16), attention:
        yield
