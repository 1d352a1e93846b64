"""``thresher.influence``: from a model and encoded rows to the influence tensor in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from thresher.data.encode import EncodedRows, encoded_rows
from thresher.errors import ConfigError, ModelError
from thresher.gradients.collect import batch_rows, collect, plan_blocks
from thresher.gradients.forms import Form, choose_forms, form_bytes
from thresher.gradients.frozen import gradient_pass
from thresher.gradients.store import GradientStore, Side
from thresher.influences.pairings import pairing
from thresher.influences.registry import INFLUENCE, check_methods
from thresher.influences.tensor import filled, labelled
from thresher.model.head import output_head, untied
from thresher.model.losses import correct_rows
from thresher.model.names import ModuleName, describe, embedding_name
from thresher.model.states import head_module, hidden_modules
from thresher.progress import Progress, Silent

MEMORY = 4 * 2**30


def influence(
    model: nn.Module,
    train: Sequence[Mapping[str, Any]] | EncodedRows,
    query: Sequence[Mapping[str, Any]] | EncodedRows,
    *,
    methods: Sequence[str] = ("tracin", "cosine", "datainf"),
    modules: str | None = None,
    projection: int = 0,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> xr.Dataset:
    """Influence of every training row on every query row, module by module (SPEC 3).

    ``model`` is a Hugging Face sequence classifier or causal LM, with or without PEFT. ``train`` and ``query`` are
    sequences of encoded rows: dicts with ``input_ids``, ``attention_mask`` and ``labels`` (plain lists, or a
    ``datasets.Dataset``), or :class:`EncodedRows`. Labels for a causal LM are one a token, as long as ``input_ids``:
    the token where it is to be learned, -100 elsewhere; a row's loss is their mean, unless ``EncodedRows`` say the sum.
    ``methods`` are names of influence functions. ``modules`` is a regular expression searched for in parameter names;
    None takes every parameter with ``requires_grad``, and the input embedding, but not the output head of a causal LM.
    Where that head is tied to the embedding, the embedding's name stands for the part of the gradient that comes
    through the lookup, the head's for the other; the tied parameter's gradient is their sum. ``projection`` k estimates
    the gradients of linear layers' matrices by k x k numbers (:mod:`thresher.gradients.forms`), 0 keeps them exact.
    ``device`` None leaves the model where it is.

    Returns one float32 variable a method with dims ("module", "query", "train"); larger = helpful, lower =
    detrimental; NaN where a method is not defined (``tracin_we`` and ``tracin_we_topk`` outside the word embedding).
    ``repsim`` and ``head_kernel`` have modules of their own, named ``hidden.LAYER.POOLING`` and ``head``; where only
    these two are asked for, no backward pass is made.
    Gradients are taken in eval mode at the model as it is, and the model comes back as it was. Gradients beyond 4 GiB
    go to a temporary folder.

    Raises :class:`DataError` for rows that are not encoded rows, :class:`ModelError` where no module matches or the
    model is neither kind, :class:`GradientError` naming rows whose loss or gradient is not finite.
    """
    names = check_methods(methods, projected=projection > 0)
    if device is None:
        return _influence(model, train, query, names, modules, projection, batch_size)
    home = next(model.parameters()).device
    try:
        model.to(device)
        return _influence(model, train, query, names, modules, projection, batch_size)
    finally:
        model.to(home)


def select_modules(model: nn.Module, pattern: str | None, methods: Sequence[str]) -> list[ModuleName]:
    """What the methods look at, in model order, and then what is no parameter (:mod:`thresher.model.states`).

    Parameters whose name matches, or by default the trainable ones and the input embedding, without the output head of
    a causal LM: its gradients take as many numbers as the vocabulary times the hidden units.
    """
    places = {INFLUENCE[method].where for method in methods}
    found = _parameters(model, pattern) if places & {"every weight", "word embedding"} else []
    if "hidden states" in places:
        found += hidden_modules(model)
    if "head" in places:
        found.append(head_module())
    return found


def _parameters(model: nn.Module, pattern: str | None) -> list[ModuleName]:
    with untied(model):
        return describe(model, _matching(model, pattern))


def _matching(model: nn.Module, pattern: str | None) -> list[str]:
    embedding, head = embedding_name(model), output_head(model)
    parameters = dict(model.named_parameters())
    body = [n for n in parameters if head is None or "lora_" in n or not n.startswith(f"{head[0]}.")]
    try:
        wanted = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--modules '{pattern}': not a regular expression ({error}).") from None
    names = [
        name
        for name, parameter in parameters.items()
        if ".original_module." not in name  # what PEFT keeps of a head that it replaced; no row passes through it
        and (wanted.search(name) if wanted else name == embedding or (parameter.requires_grad and name in body))
    ]
    if not names:
        some = ", ".join(list(parameters)[:3])
        raise ModelError(f"No parameter of the model matches --modules '{pattern}'; names look like: {some}.")
    return names


@dataclass(frozen=True)
class GradientPlan:
    """The modules with the form in which each matrix is kept, and the bytes that a row's gradients take."""

    modules: Sequence[ModuleName]
    forms: Mapping[str, Form]
    row_bytes: int

    @property
    def names(self) -> list[str]:
        """The modules' names."""
        return [module.name for module in self.modules]


def plan_gradients(
    model: nn.Module, modules: Sequence[ModuleName], *, length: float, projection: int = 0
) -> GradientPlan:
    """How the gradients of rows of ``length`` tokens are kept."""
    with untied(model):
        return _planned(model, modules, length, projection)


def _planned(model: nn.Module, modules: Sequence[ModuleName], length: float, projection: int) -> GradientPlan:
    weights = [module.name for module in modules if module.kind == "weight"]
    device = next(model.parameters()).device
    forms = choose_forms(model, weights, length=length, projection=projection, device=device)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    total = 0.0
    for module in modules:
        if module.kind == "head":
            total += 4 * length * model.config.get_text_config().hidden_size  # pyright: ignore
        elif id(parameters.get(module.name)) in tables:
            total += length * (4 * parameters[module.name].shape[-1] + 16)
        else:
            shape = parameters[module.name].shape if module.kind == "weight" else (module.size,)
            total += form_bytes(module.size, shape, forms.get(module.name, "dense"), length)
    return GradientPlan(modules, forms, int(total))


def gather(
    model: nn.Module,
    plan: GradientPlan,
    data: dict[Side, EncodedRows],
    *,
    batch_size: int,
    memory: int,
    folder: Path | None = None,
    progress: Progress,
) -> GradientStore:
    """All rows' gradients of the plan's modules; what is finished in ``folder`` is not computed again."""
    batch_size = batch_rows(batch_size, plan.row_bytes)
    store = GradientStore(
        {side: plan_blocks(rows.lengths, batch_size, plan.row_bytes) for side, rows in data.items()}, memory, folder
    )
    store.labels = {side: rows.classes for side, rows in data.items()}
    with gradient_pass(model, plan.names, data["train"], plan.forms) as one_pass:
        if one_pass.head is not None and one_pass.head.generative:
            store.head = one_pass.head.matrix()
        collect(one_pass, store, data, batch_size, progress)
    return store


def module_matrices(
    store: GradientStore, module: ModuleName, methods: Iterable[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """One module's [Q, N] matrix for every method that is defined there."""
    pair = pairing(store, module.name, module.size)
    defined = [name for name in methods if INFLUENCE[name].defined_on(module)]
    results = {name: INFLUENCE[name].compute(pair) for name in defined}
    return {name: result.numpy() for name, result in results.items() if result is not None}


def _influence(
    model: nn.Module,
    train: Any,
    query: Any,
    methods: tuple[str, ...],
    pattern: str | None,
    projection: int,
    batch_size: int,
) -> xr.Dataset:
    modules = select_modules(model, pattern, methods)
    data: dict[Side, EncodedRows] = {
        "query": encoded_rows(query, model, "query"),
        "train": encoded_rows(train, model, "train"),
    }
    plan = plan_gradients(model, modules, length=float(data["train"].lengths.mean()), projection=projection)
    store = gather(model, plan, data, batch_size=batch_size, memory=MEMORY, progress=Silent())
    try:
        _, outputs = store.predictions("query")
        correct = correct_rows(outputs, data["query"].labels, model.config).numpy()
        shape = (len(modules), len(data["query"]), len(data["train"]))
        values = {method: np.full(shape, np.nan, np.float32) for method in methods}
        for number, module in enumerate(modules):
            for method, matrix in module_matrices(store, module, methods).items():
                values[method][number] = matrix
    finally:
        store.close()
    return filled(labelled(modules, correct, len(data["train"])), values)
