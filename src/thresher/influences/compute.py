"""``thresher.influence``: from a model and encoded rows to the influence tensor in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from thresher.data.encode import EncodedRows, encoded_rows
from thresher.errors import ConfigError, ModelError
from thresher.gradients.capture import gradient_pass
from thresher.gradients.collect import batch_rows, collect, plan_blocks, row_bytes
from thresher.gradients.store import GradientStore, Side
from thresher.influences.pairing import pairing
from thresher.influences.registry import INFLUENCE, check_methods
from thresher.influences.tensor import filled, labelled
from thresher.model.losses import correct_rows
from thresher.model.names import ModuleName, describe, embedding_name
from thresher.progress import Progress, Silent

MEMORY = 4 * 2**30


def influence(
    model: nn.Module,
    train: Sequence[Mapping[str, Any]],
    query: Sequence[Mapping[str, Any]],
    *,
    methods: Sequence[str] = ("tracin", "cosine", "datainf"),
    modules: str | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> xr.Dataset:
    """Influence of every training row on every query row, module by module (SPEC 3).

    ``model`` is a Hugging Face sequence classifier, with or without PEFT. ``train`` and ``query`` are sequences of
    encoded rows: dicts with ``input_ids``, ``attention_mask`` and ``labels`` (plain lists, or a ``datasets.Dataset``).
    ``methods`` are names of influence functions. ``modules`` is a regular expression searched for in parameter names;
    None takes every parameter with ``requires_grad``, and the input embedding. ``device`` None leaves the model where
    it is.

    Returns one float32 variable a method with dims ("module", "query", "train"); larger = helpful, lower =
    detrimental; NaN where a method is not defined (``tracin_we`` and ``tracin_we_topk`` outside the word embedding).
    Gradients are taken in eval mode at the model as it is, and the model comes back as it was. Gradients beyond 4 GiB
    go to a temporary folder.

    Raises :class:`DataError` for rows that are not encoded rows, :class:`ModelError` where no module matches or the
    model is no sequence classifier, :class:`GradientError` naming rows whose loss or gradient is not finite.
    """
    names = check_methods(methods)
    if device is None:
        return _influence(model, train, query, names, modules, batch_size)
    home = next(model.parameters()).device
    try:
        model.to(device)
        return _influence(model, train, query, names, modules, batch_size)
    finally:
        model.to(home)


def select_modules(model: nn.Module, pattern: str | None) -> list[ModuleName]:
    """The parameters whose name matches, or by default the trainable ones and the input embedding, in model order."""
    embedding = embedding_name(model)
    try:
        wanted = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--modules '{pattern}': not a regular expression ({error}).") from None
    names = [
        name
        for name, parameter in model.named_parameters()
        if ".original_module." not in name  # what PEFT keeps of a head that it replaced; no row passes through it
        and (wanted.search(name) if wanted else parameter.requires_grad or name == embedding)
    ]
    if not names:
        some = ", ".join(name for name, _ in list(model.named_parameters())[:3])
        raise ModelError(f"No parameter of the model matches --modules '{pattern}'; names look like: {some}.")
    return describe(model, names)


def gradient_row_bytes(modules: Sequence[ModuleName], model: nn.Module, length: float) -> int:
    """Bytes that the gradients of one row of ``length`` tokens take."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    parameters = dict(model.named_parameters())
    dense = {m.name: m.size for m in modules if id(parameters[m.name]) not in tables}
    widths = {m.name: parameters[m.name].shape[-1] for m in modules if m.name not in dense}
    return row_bytes(dense, widths, length)


def gather(
    model: nn.Module,
    modules: Sequence[ModuleName],
    data: dict[Side, EncodedRows],
    *,
    batch_size: int,
    memory: int,
    folder: Path | None = None,
    progress: Progress,
) -> GradientStore:
    """All rows' gradients of the modules; what is finished in ``folder`` is not computed again."""
    each = gradient_row_bytes(modules, model, float(data["train"].lengths.mean()))
    batch_size = batch_rows(batch_size, each)
    store = GradientStore(
        {side: plan_blocks(rows.lengths, batch_size, each) for side, rows in data.items()}, memory, folder
    )
    with gradient_pass(model, [module.name for module in modules], *data.values()) as one_pass:
        collect(one_pass, store, data, batch_size, progress)
    return store


def module_matrices(
    store: GradientStore, module: ModuleName, methods: Iterable[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """One module's [Q, N] matrix for every method that is defined there."""
    pair = pairing(store, module.name, module.size, is_word_embedding=module.group == "WE")
    results = {name: INFLUENCE[name].compute(pair) for name in methods}
    return {name: result.numpy() for name, result in results.items() if result is not None}


def _influence(
    model: nn.Module, train: Any, query: Any, methods: tuple[str, ...], pattern: str | None, batch_size: int
) -> xr.Dataset:
    modules = select_modules(model, pattern)
    data: dict[Side, EncodedRows] = {
        "query": encoded_rows(query, model, "query"),
        "train": encoded_rows(train, model, "train"),
    }
    store = gather(model, modules, data, batch_size=batch_size, memory=MEMORY, progress=Silent())
    try:
        _, logits = store.predictions("query")
        correct = correct_rows(logits, data["query"].labels, model.config).numpy()
        shape = (len(modules), len(data["query"]), len(data["train"]))
        values = {method: np.full(shape, np.nan, np.float32) for method in methods}
        for number, module in enumerate(modules):
            for method, matrix in module_matrices(store, module, methods).items():
                values[method][number] = matrix
    finally:
        store.close()
    return filled(labelled(modules, correct, len(data["train"])), values)
