"""``thresher.influence``: from a model and encoded rows to the influence tensor in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from thresher.data.encode import EncodedRows, Loss
from thresher.errors import ConfigError
from thresher.gradients.store import GradientStore, Side
from thresher.influences.checkpoints import SUMMED, CheckpointSum, given_checkpoints, multipliers_now
from thresher.influences.gather import MEMORY, gather, plan_gradients, select_modules
from thresher.influences.pairing import Pairing
from thresher.influences.pairings import pairing
from thresher.influences.registry import InfluenceFunction, Method, Methods, check_methods
from thresher.influences.tensor import fill_frame, make_frame
from thresher.model.checkpoints import Checkpoint
from thresher.model.inputs import encoded_rows
from thresher.model.losses import correct_rows
from thresher.model.names import ModuleName
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
    asked = _Asked(functions, modules, projection, batch_size, points, loss)
    if device is None:
        return _influence(model, train, query, asked)
    home = next(model.parameters()).device
    try:
        model.to(device)
        return _influence(model, train, query, asked)
    finally:
        model.to(home)


def module_matrices(store: GradientStore, module: ModuleName, methods: Methods) -> dict[str, npt.NDArray[np.float32]]:
    """One module's [Q, N] matrix for every method that is defined there.

    Raises :class:`ConfigError` for a method that gives something else.
    """
    pair = pairing(store, module.name, module.size)
    functions = {name: one.compute for name, one in check_methods(methods).items() if one.defined_on(module)}
    results = {name: function(pair) for name, function in functions.items() if function is not None}
    return {name: _matrix(name, result, pair) for name, result in results.items() if result is not None}


def _matrix(name: str, result: Any, pair: Pairing) -> npt.NDArray[np.float32]:
    wanted = (pair.queries, pair.rows)
    if not isinstance(result, torch.Tensor) or tuple(result.shape) != wanted:
        given = f"a tensor of {tuple(result.shape)}" if isinstance(result, torch.Tensor) else type(result).__name__
        raise ConfigError(
            f"The influence function '{name}' gives {given} on {pair.module}; a tensor of {wanted}, one number a query "
            "and training row, is needed."
        )
    return result.numpy()


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


def _influence(model: nn.Module, train: Any, query: Any, asked: _Asked) -> xr.Dataset:
    modules = select_modules(model, asked.modules, asked.methods)
    data: dict[Side, EncodedRows] = {
        "query": encoded_rows(query, model, "query"),
        "train": encoded_rows(train, model, "train"),
    }
    if asked.loss is not None:
        data = {side: replace(rows, loss=asked.loss) for side, rows in data.items()}
    plan = plan_gradients(model, modules, length=float(data["train"].lengths.mean()), projection=asked.projection)
    gathered = partial(gather, model, data=data, batch_size=asked.batch_size, memory=MEMORY)
    shape = (len(modules), len(data["query"]), len(data["train"]))
    values = {method: np.full(shape, np.nan, np.float32) for method in asked.methods}
    multipliers = multipliers_now(model, asked.checkpoints, modules, list(asked.methods))
    if SUMMED in asked.methods:
        weights = plan.weights
        total = np.zeros((len(weights.modules), *shape[1:]), np.float32)
        CheckpointSum(model, weights.modules, asked.checkpoints, partial(gathered, weights)).into(total, Silent())
        values[SUMMED][: len(total)] = total  # weights come first
    store = gathered(plan, progress=Silent(), multipliers=multipliers)
    try:
        _, outputs = store.predictions("query")
        correct = correct_rows(outputs, data["query"].labels, model.config).numpy()
        for number, module in enumerate(modules):
            for method, matrix in module_matrices(store, module, asked.methods).items():
                values[method][number] = matrix
    finally:
        store.close()
    return fill_frame(make_frame(modules, correct, len(data["train"])), values, asked.methods)
