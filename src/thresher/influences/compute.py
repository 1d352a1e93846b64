"""``thresher.influence``: from a model and encoded rows to the influence tensor in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import nn

from thresher.data.encode import EncodedRows, Loss
from thresher.errors import ConfigError
from thresher.influences.checkpoints import given_checkpoints, multipliers_now
from thresher.influences.driver import Work, draw_reference
from thresher.influences.modules import plan_gradients, select_modules
from thresher.influences.registry import InfluenceFunction, Method, check_methods
from thresher.influences.tensor import tensor_of
from thresher.model.checkpoints import Checkpoint
from thresher.model.inputs import encoded_rows
from thresher.progress import Silent


def influence(  # noqa: PLR0913 (each option stands for itself)
    model: nn.Module,
    train: Sequence[Mapping[str, Any]] | EncodedRows,
    query: Sequence[Mapping[str, Any]] | EncodedRows,
    *,
    methods: Sequence[Method] = ("tracin", "cosine", "datainf"),
    modules: str | None = None,
    projection: int = 0,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    checkpoints: str | Path | Sequence[Checkpoint] | None = None,
    loss: Loss | None = None,
    reference: int | None = None,
) -> xr.Dataset:
    """Influence of every training row on every query row, module by module (method.md 3).

    Gradients are taken in eval mode at the model as it is, and the model comes back as it was. Gradients beyond 4 GiB
    go to a temporary folder.

    Args:
        model: A Hugging Face sequence classifier or causal LM, with or without PEFT.
        train: Encoded rows: dicts with ``input_ids``, ``attention_mask`` and ``labels`` (plain lists, or a
            ``datasets.Dataset``), or :class:`EncodedRows`. Labels for a causal LM are one a token, as long as
            ``input_ids``: the token where it is to be learned, -100 elsewhere; a row's loss is their mean, unless
            ``EncodedRows`` say the sum.
        query: The rows that it is about, of the same kind.
        methods: Influence functions: names, or functions of a :class:`thresher.influences.pairing.Pairing` that give
            float32 [Q, N], which go by their own names (an :class:`InfluenceFunction` says more of itself).
        modules: A regular expression searched for in parameter names; None takes every parameter with
            ``requires_grad``, and the input embedding, but not the output head of a causal LM. Where that head is tied
            to the embedding, the embedding's name stands for the part of the gradient that comes through the lookup,
            the head's for the other; the tied parameter's gradient is their sum.
        projection: k estimates the gradients of linear layers' matrices by k x k numbers
            (:mod:`thresher.gradients.forms`), 0 keeps them exact.
        batch_size: Rows a pass.
        device: Where the passes are made; None leaves the model where it is.
        checkpoints: What ``tracin_checkpoints`` sums over, a gradient pass each: the folder of a Trainer's or
            :class:`thresher.CheckpointKeeper`'s checkpoints, or what :func:`thresher.read_checkpoints` makes of it.
            Read with ``optimizer_aware=True``, each of them scales the train gradients taken at it as AdamW would; so
            do the other methods, by the checkpoint that the model is at.
        loss: What the model was trained on, where that is no cross-entropy: a function of logits [B, C] and labels [B]
            that gives one loss a row, [B]; of a causal LM, of [B, T, V] and [B, T], where position t is predicted from
            the logits at t - 1, and -100 has no label. A row's loss must hang on that row alone.
        reference: What hangs on all training rows (DataInf's inverse Hessian) is fitted to a fixed sample of so many,
            whose gradients alone are kept at a time; None fits it to all of them, and so do functions that need the
            matrix of all rows' products (``exact``, ``lissa``).

    Returns:
        One float32 variable a method with dims ("module", "query", "train"); larger = helpful, lower = detrimental; NaN
        where a method is not defined (``tracin_we`` and ``tracin_we_topk`` outside the word embedding). ``repsim`` and
        ``head_kernel`` have modules of their own, named ``hidden.LAYER.POOLING`` and ``head``; where only these two are
        asked for, no backward pass is made.

    Raises:
        DataError: For rows that are not encoded rows.
        ModelError: Where no module matches or the model is neither kind.
        ConfigError: For methods that there are not, or that do not go together with the other arguments.
        GradientError: Naming rows whose loss or gradient is not finite.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **sizes))
        >>> rows = [{"input_ids": [2, word, 3], "labels": word % 2} for word in range(10, 16)]
        >>> tensor = influence(model, rows, rows[:2], methods=["tracin"], modules="classifier")
        >>> dict(tensor.sizes)
        {'module': 2, 'query': 2, 'train': 6}
        >>> bool((tensor["tracin"].sum("module").values.diagonal() > 0).all())  # a row helps itself
        True
    """
    points = given_checkpoints(checkpoints, methods)
    if projection and any(point.optimizer_aware for point in points):
        raise ConfigError("Optimizer-aware checkpoints scale single entries and a projection mixes them; choose one.")
    functions = check_methods(methods, projected=projection > 0)
    _refuse_loss(loss, functions)
    asked = _Asked(functions, modules, projection, batch_size, points, loss, reference)
    if device is None:
        return _influence(model, train, query, asked)
    home = next(model.parameters()).device
    try:
        model.to(device)
        return _influence(model, train, query, asked)
    finally:
        model.to(home)


def _refuse_loss(loss: Loss | None, functions: Mapping[str, InfluenceFunction]) -> None:
    unfit = [name for name, function in functions.items() if function.cross_entropy]
    if loss is not None and unfit:
        raise ConfigError(f"{', '.join(unfit)} knows no loss but cross-entropy; leave it out, or the loss.")


@dataclass(frozen=True)
class _Asked:
    """What a call of :func:`influence` asks for, beside model and rows."""

    methods: dict[str, InfluenceFunction]
    modules: str | None
    projection: int
    batch_size: int
    checkpoints: tuple[Checkpoint, ...]
    loss: Loss | None
    reference: int | None


def _influence(model: nn.Module, train: Any, query: Any, asked: _Asked) -> xr.Dataset:
    modules = select_modules(model, asked.modules, asked.methods)
    encoded = encoded_rows(query, model, "query"), encoded_rows(train, model, "train")
    if asked.loss is not None:
        encoded = replace(encoded[0], loss=asked.loss), replace(encoded[1], loss=asked.loss)
    plan = plan_gradients(model, modules, length=float(encoded[1].lengths.mean()), projection=asked.projection)
    reference = draw_reference(len(encoded[1]), asked.reference, asked.methods.values(), seed=0)
    work = Work(
        model,
        plan,
        *encoded,
        asked.methods,
        reference,
        asked.batch_size,
        multipliers=multipliers_now(model, asked.checkpoints, modules, list(asked.methods)),
        checkpoints=asked.checkpoints,
    )
    return tensor_of(work, Silent())
