"""The output head of a causal LM: the matrix of one score a token of the vocabulary.

Its matrix is often tied to the word embedding: one tensor that is looked up on the way in and multiplied on the way
out. The tied gradient is the sum of the two, of which one is sparse and the other as large as the vocabulary is wide.
Thresher keeps them apart: the embedding's name stands for looking up, the head's for multiplying.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import nn

from thresher.model.inputs import generates


def output_head(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Name (as in ``named_modules()``) and module of a causal LM's output head, seen through PEFT; None without one."""
    wrapped: Any = model
    head = wrapped.get_output_embeddings() if generates(model) else None
    return next(((name, module) for name, module in model.named_modules() if module is head), None)


@contextmanager
def untie(model: nn.Module) -> Generator[None]:
    """Give a tied head a parameter of its own over the same storage, for the duration.

    ``named_parameters()`` then names both, and autograd tells what comes through the head from what comes through the
    lookup; nothing is copied.
    """
    head = _tied_head(model)
    if head is None:
        yield
        return
    layer: Any = head[1]
    shared: nn.Parameter = layer.weight
    try:
        layer.weight = nn.Parameter(shared.detach(), requires_grad=shared.requires_grad)
        yield
    finally:
        layer.weight = shared


def _tied_head(model: nn.Module) -> tuple[str, nn.Module] | None:
    head = output_head(model)
    if head is None:
        return None
    wrapped: Any = model
    table = getattr(wrapped.get_input_embeddings(), "weight", None)
    own = dict(head[1].named_parameters(recurse=False)).get("weight")
    return head if own is not None and own is table else None
