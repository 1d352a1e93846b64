"""LoRA on the query and value projections, with a classifier's head trained beside it (method.md 6)."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from thresher.config import Recipe
from thresher.errors import ModelError, first_line
from thresher.model.load import LoadedModel
from thresher.model.names import attention_projections
from thresher.model.quantise import move_model


def with_lora(subject: LoadedModel, recipe: Recipe, seed: int) -> LoadedModel:
    """The subject with a new adapter; same seed, same initial weights.

    A classifier's head and parts that no checkpoint filled (perhaps a pooler) are trained whole.
    """
    targets = attention_projections(subject.model)
    if not targets:
        raise ModelError(
            f"{type(subject.model).__name__}: no query and value projections were found by name; LoRA needs them. "
            "Fine-tune the model yourself and audit it with --no-finetune --modules."
        )
    whole = list(dict.fromkeys([*subject.head, *subject.untrained]))
    settings = LoraConfig(
        task_type=subject.learns,
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
        modules_to_save=whole or None,
    )
    torch.manual_seed(seed)
    device = subject.device
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transposed layers (Conv1D) are recognised, and said so by a warning
            model = get_peft_model(subject.model, settings)  # pyright: ignore[reportArgumentType]
    except ValueError as error:  # layers of the model's own kind
        raise ModelError(
            f"{type(subject.model).__name__}: LoRA cannot be put on its query and value projections "
            f"({first_line(error)}). Fine-tune the model yourself and audit it with --no-finetune --modules."
        ) from None
    if not recipe.base_dropout:
        _drop_only_in_lora(model)
    return replace(subject, model=move_model(model, device))


def _drop_only_in_lora(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for attribute in ("dropout_prob", "attention_dropout", "attn_dropout", "dropout"):
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.0)
