"""The output head of a causal LM: the matrix of one score a token of the vocabulary.

Its matrix is often tied to the word embedding: one tensor that is looked up on the way in and multiplied on the way
out. The tied gradient is the sum of the two, of which one is sparse and the other as large as the vocabulary is wide.
Thresher keeps them apart: the embedding's name stands for looking up, the head's for multiplying.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from thresher.data.encode import generates


def output_head(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Name (as in ``named_modules()``) and module of a causal LM's output head, seen through PEFT; None without one."""
    wrapped: Any = model
    head = wrapped.get_output_embeddings() if generates(model) else None
    return next(((name, module) for name, module in model.named_modules() if module is head), None)


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by name, those of a tied head under its own name too."""
    found = dict(model.named_parameters())
    head = _tied_head(model)
    return found if head is None else found | {f"{head[0]}.weight": head[1].weight}  # pyright: ignore


@contextmanager
def untied(model: nn.Module) -> Generator[None]:
    """Give a tied head a parameter of its own over the same storage, for the duration.

    Autograd then tells what comes through the head from what comes through the lookup; nothing is copied.
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


@contextmanager
def head_inputs(model: nn.Module) -> Generator[list[Tensor]]:
    """Collect what goes into the output head in every forward pass for the duration: hidden states [B, T, d] each.

    Their logits are ``head(states)``, to which some models apply a scale or a cap. The list stays empty for a model
    without an output head.
    """
    states: list[Tensor] = []
    head = output_head(model)
    if head is None:
        yield states
        return
    handle = head[1].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0].detach()))
    try:
        yield states
    finally:
        handle.remove()


def _tied_head(model: nn.Module) -> tuple[str, nn.Module] | None:
    head = output_head(model)
    if head is None:
        return None
    wrapped: Any = model
    table = getattr(wrapped.get_input_embeddings(), "weight", None)
    own = dict(head[1].named_parameters(recurse=False)).get("weight")
    return head if own is not None and own is table else None
