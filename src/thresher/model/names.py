"""What a parameter is, read from its name and its place in the model by rule, not from a table of architectures.

A *module* is one parameter tensor (method.md 2). It lies in a block (embedding, layer, head, other), in layer number
``layer`` if any, belongs to a projection (query, value, ...), is a LoRA factor (A, B) or a plain weight or bias, and
falls into one of the paper's groups: WE, the four quarters of the layers "1".."4", CL, or "other".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

Group = Literal["WE", "1", "2", "3", "4", "CL", "other"]
Block = Literal["embedding", "layer", "head", "other"]
Kind = Literal["weight", "hidden", "head"]

GROUPS = ("WE", "1", "2", "3", "4", "CL", "layers", "all")
"""The groups that scores are over, in the paper's order; ``layers`` joins the quarters, ``all`` everything."""

# A layer is an entry of a list: what holds the list, the list, the entry's number. The outermost list counts.
_LAYER = re.compile(r"^((?:[^.]+\.)*?)[^.]+\.(\d+)\.")
_LORA = re.compile(r"\.lora_(?:embedding_)?(\w+)\.")
_POOLER = re.compile(r"(^|\.)pooler(\.|$)")
# The last parts of a module's name that say which projection of attention it is; the first match wins.
_PROJECTIONS = (
    ("query_key_value", re.compile(r"^(query_key_value|qkv|qkv_proj|c_attn|wqkv|in_proj|qkv_linear)$", re.I)),
    ("query", re.compile(r"^(query|query_proj|q_proj|q_lin|q_head|q|wq)$", re.I)),
    ("key", re.compile(r"^(key|key_proj|k_proj|k_lin|k_head|k|wk)$", re.I)),
    ("value", re.compile(r"^(value|value_proj|v_proj|v_lin|v_head|v|wv)$", re.I)),
)


@dataclass(frozen=True)
class ModuleName:
    """One parameter tensor: ``name`` as in ``named_parameters()``, ``layer`` is -1 outside the layers.

    ``kind`` is "weight", unless it is one of the modules of :mod:`thresher.model.states` that are no parameter.
    """

    name: str
    block: Block
    layer: int
    projection: str
    factor: str
    group: Group
    size: int
    kind: Kind = "weight"


def describe(model: nn.Module, names: Iterable[str]) -> list[ModuleName]:
    """Describe the named parameters, in the order given.

    Layers are numbered through: those of an encoder first, then those of its decoder.
    """
    anatomy = _anatomy(model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters(remove_duplicate=False)}
    return [_describe(name, sizes[name], _factor(model, name), anatomy) for name in names]


def projection(module_name: str) -> str:
    """``query``, ``key``, ``value``, ``query_key_value`` (fused) or ``-``, from the parts of a module's name."""
    for part in reversed(module_name.split(".")):
        for kind, pattern in _PROJECTIONS:
            if pattern.match(part):
                return kind
    return "-"


def attention_projections(model: nn.Module) -> list[str]:
    """Names of the layers that project to query or value (or to both, fused), as in ``named_modules()``."""
    anatomy = _anatomy(model)
    return [
        name
        for name, module in model.named_modules()
        if projection(name.rpartition(".")[2]) in ("query", "value", "query_key_value")
        and isinstance(getattr(module, "weight", None), nn.Parameter)
        and anatomy.layer(name + ".") >= 0
    ]


def head_modules(model: nn.Module) -> list[str]:
    """Names of the parts of a classifier that lie outside its backbone and have parameters."""
    backbone = backbone_prefix(model)
    return [
        name
        for name, child in model.named_children()
        if name != backbone.rstrip(".") and next(child.parameters(), None) is not None
    ]


def embedding_name(model: nn.Module) -> str | None:
    """The name of the input word embedding's weight, or None where the model has none."""
    try:
        weight = model.get_input_embeddings().weight  # pyright: ignore
    except (AttributeError, NotImplementedError):
        return None
    for name, parameter in model.named_parameters():
        if parameter is weight:
            return name
    return None


def backbone_prefix(model: nn.Module) -> str:
    """Prefix of the backbone's parameter names ("bert.", or "base_model.model.bert." under PEFT), "" if unknown.

    The backbone is the part that the model itself names, or else the one that holds word embedding and layers.
    """
    base = _base_prefix(model)
    inner = model.get_submodule(base.rstrip("."))
    named = str(getattr(inner, "base_model_prefix", ""))
    if named and hasattr(inner, named):
        return f"{base}{named}."
    part = (embedding_name(model) or "").removeprefix(base).partition(".")[0] + "."
    holds_layers = any(name.startswith(part) and _LAYER.match(name) for name, _ in inner.named_parameters())
    return base + part if holds_layers else ""


def groups_in(modules: Sequence[ModuleName]) -> list[str]:
    """Those of :data:`GROUPS` that are not empty."""
    present: set[str] = {module.group for module in modules} | {"all"}
    if present & {"1", "2", "3", "4"}:
        present.add("layers")
    return [group for group in GROUPS if group in present]


def in_group(module: ModuleName, group: str) -> bool:
    """Whether the module belongs to a group of :func:`groups_in`."""
    if group == "layers":
        return module.block == "layer"
    return group in ("all", module.group)


@dataclass(frozen=True)
class _Anatomy:
    """Where the parts of a model begin: prefixes of names, and for each stack of layers the number of its first."""

    base: str
    backbone: str
    embedding: str | None
    stacks: Mapping[str, int]
    layers: int

    def layer(self, name: str) -> int:
        """The layer that a parameter lies in, counted through all stacks; -1 outside the layers."""
        found = _layer(name, self.backbone)
        return -1 if found is None else self.stacks[found[0]] + found[1]


def _anatomy(model: nn.Module) -> _Anatomy:
    backbone = backbone_prefix(model)
    heights: dict[str, int] = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        if found := _layer(name, backbone):
            stack, number = found
            heights[stack] = max(heights.get(stack, 0), number + 1)
    starts: dict[str, int] = {}
    total = 0
    for stack, height in heights.items():
        starts[stack] = total
        total += height
    return _Anatomy(_base_prefix(model), backbone, embedding_name(model), starts, total)


def _layer(name: str, backbone: str) -> tuple[str, int] | None:
    """The stack (what holds the list of layers) and the number within it; None outside the backbone's layers."""
    found = _LAYER.match(name) if name.startswith(backbone) else None
    return (found[1], int(found[2])) if found else None


def _base_prefix(model: nn.Module) -> str:
    """Prefix of the names of the model that PEFT wraps; "" without PEFT."""
    if not hasattr(model, "get_base_model"):
        return ""
    inner = model.get_base_model()  # pyright: ignore[reportCallIssue]
    return next(f"{name}." for name, module in model.named_modules() if module is inner)


def _factor(model: nn.Module, name: str) -> str:
    """``A`` or ``B`` of LoRA; else what the parameter is called: ``weight``, ``bias``, ``ia3_l``, ..."""
    if found := _LORA.search(name):
        return found[1]
    owner, _, last = name.rpartition(".")
    # PEFT keeps bare parameters in dictionaries by the adapter's name.
    return owner.rpartition(".")[2] if isinstance(model.get_submodule(owner), nn.ParameterDict) else last


def _describe(name: str, size: int, factor: str, anatomy: _Anatomy) -> ModuleName:
    layer = anatomy.layer(name)
    block: Block = "other"
    group: Group = "other"
    if name == anatomy.embedding:
        block, group = "embedding", "WE"
    elif layer >= 0:
        block = "layer"
        group = ("1", "2", "3", "4")[4 * layer // anatomy.layers]
    elif name.startswith(anatomy.base) and (not name.startswith(anatomy.backbone) or _POOLER.search(name)):
        block, group = "head", "CL"
    return ModuleName(name, block, layer, projection(name.rpartition(".")[0]), factor, group, size)
