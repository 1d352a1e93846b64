"""LoRA on the query and value projections, with a classifier's head beside it (method.md 6); saved as PEFT does."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from thresher.config import Recipe
from thresher.errors import ModelError, first_line
from thresher.files import read_json, write_json
from thresher.model.classes import CLASSES_FILE
from thresher.model.load import LoadedModel
from thresher.model.names import attention_projections
from thresher.model.quantise import move_model
from thresher.model.quiet import quiet


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


def save_lora(subject: LoadedModel, folder: Path) -> None:
    """Save an adapter that was trained here with its tokenizer and the numbers of its classes; same run, same bytes."""
    model: Any = subject.model
    with quiet():
        model.save_pretrained(folder)
        subject.tokenizer.save_pretrained(folder)
    settings = folder / "adapter_config.json"
    # PEFT keeps names in sets, whose order is another in every process.
    in_order = {
        name: sorted(value) if name in ("target_modules", "modules_to_save") and value else value
        for name, value in read_json(settings).items()
    }
    write_json(settings, in_order)
    if subject.classes:
        write_json(folder / CLASSES_FILE, subject.classes)


def _drop_only_in_lora(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for attribute in ("dropout_prob", "attention_dropout", "attn_dropout", "dropout"):
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.0)
