"""What influence functions look at: the modules, and the form in which their gradients are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from thresher.errors import ConfigError, ModelError
from thresher.gradients.forms import Form, choose_forms, form_bytes, table_ids
from thresher.influences.registry import Methods, check_methods
from thresher.model.adapters import adapter_parameters
from thresher.model.names import ModuleName, describe, embedding_name
from thresher.model.quantise import is_packed
from thresher.model.states import head_module, hidden_modules
from thresher.model.tied import output_head, untie

MEMORY = 4 * 2**30
"""Bytes of gradients in memory, where nothing else is said."""


def select_modules(model: nn.Module, pattern: str | None, methods: Methods) -> list[ModuleName]:
    """What the methods look at, in model order, and then what is no parameter (:mod:`thresher.model.states`).

    Parameters whose name matches, or by default the trainable ones and the input embedding, without the output head of
    a causal LM: its gradients take as many numbers as the vocabulary times the hidden units.
    """
    places = {function.where for function in check_methods(methods).values()}
    found = _parameters(model, pattern) if places & {"every weight", "word embedding"} else []
    if "hidden states" in places:
        found += hidden_modules(model)
    if "head" in places:
        found.append(head_module())
    return found


def _parameters(model: nn.Module, pattern: str | None) -> list[ModuleName]:
    with untie(model):
        return describe(model, _matching(model, pattern))


def _matching(model: nn.Module, pattern: str | None) -> list[str]:
    embedding, head = embedding_name(model), output_head(model)
    parameters = dict(model.named_parameters())
    frozen = not any(parameter.requires_grad for parameter in parameters.values())
    trained = adapter_parameters(model) if frozen else {n for n, p in parameters.items() if p.requires_grad}
    body = [n for n in parameters if head is None or "lora_" in n or not n.startswith(f"{head[0]}.")]
    try:
        wanted = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--modules '{pattern}': not a regular expression ({error}).") from None
    names = [
        name
        for name in parameters
        if ".original_module." not in name  # what PEFT keeps of a head that it replaced; no row passes through it
        and (wanted.search(name) if wanted else name == embedding or (name in trained and name in body))
    ]
    if not names:
        some = ", ".join(list(parameters)[:3])
        raise ModelError(f"No parameter of the model matches --modules '{pattern}'; names look like: {some}.")
    packed = next((name for name in names if is_packed(parameters[name])), None)
    if packed is not None:
        raise ModelError(
            f"--modules '{pattern}': {packed} is quantised, and has no gradient; leave it out of the pattern."
        )
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

    @property
    def weights(self) -> GradientPlan:
        """The same for those modules alone that are weights; they come first."""
        return replace(self, modules=[module for module in self.modules if module.kind == "weight"])


def plan_gradients(
    model: nn.Module, modules: Sequence[ModuleName], *, length: float, projection: int = 0
) -> GradientPlan:
    """How the gradients of rows of ``length`` tokens are kept."""
    with untie(model):
        return _plan(model, modules, length, projection)


def _plan(model: nn.Module, modules: Sequence[ModuleName], length: float, projection: int) -> GradientPlan:
    weights = [module.name for module in modules if module.kind == "weight"]
    device = next(model.parameters()).device
    forms = choose_forms(model, weights, length=length, projection=projection, device=device)
    tables = table_ids(model)
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
