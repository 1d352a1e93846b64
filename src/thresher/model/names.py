"""What a parameter is, read from its name and its place in the model by rule, not from a table of architectures.

A *module* is one parameter tensor (SPEC 2). It lies in a block (embedding, layer, head, other), in layer number
``layer`` if any, belongs to a projection (query, value, ...), is a LoRA factor (A, B) or a plain weight or bias, and
falls into one of the paper's groups: WE, the four quarters of the layers "1".."4", CL, or "other".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

Group = Literal["WE", "1", "2", "3", "4", "CL", "other"]
Block = Literal["embedding", "layer", "head", "other"]
Kind = Literal["weight", "hidden", "head"]

_LAYER = re.compile(r"\.(\d+)\.")
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
    """Describe the named parameters, in the order given."""
    shapes = {name: parameter.numel() for name, parameter in model.named_parameters(remove_duplicate=False)}
    layers = 1 + max((_layer(name) for name in shapes), default=-1)
    embedding = embedding_name(model)
    backbone = backbone_prefix(model)
    return [_describe(name, shapes[name], layers, embedding, backbone) for name in names]


def projection(module_name: str) -> str:
    """``query``, ``key``, ``value``, ``query_key_value`` (fused) or ``-``, from the parts of a module's name."""
    for part in reversed(module_name.split(".")):
        for kind, pattern in _PROJECTIONS:
            if pattern.match(part):
                return kind
    return "-"


def attention_projections(model: nn.Module) -> list[str]:
    """Names of the layers that project to query or value (or to both, fused), as in ``named_modules()``."""
    return [
        name
        for name, module in model.named_modules()
        if projection(name.rpartition(".")[2]) in ("query", "value", "query_key_value")
        and isinstance(getattr(module, "weight", None), nn.Parameter)
        and _layer(name + ".") >= 0
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
    """Prefix of the backbone's parameter names ("bert.", or "base_model.model.bert." under PEFT), "" if unknown."""
    wrapped = hasattr(model, "get_base_model")
    inner = model.get_base_model() if wrapped else model  # pyright: ignore[reportCallIssue]
    prefix = str(getattr(inner, "base_model_prefix", ""))
    if not prefix or not hasattr(inner, prefix):
        return ""
    return f"base_model.model.{prefix}." if wrapped else f"{prefix}."


def groups_in(modules: Sequence[ModuleName]) -> list[str]:
    """The paper's layer groups that are not empty, in its order; ``layers`` joins the quarters, ``all`` everything."""
    present = {module.group for module in modules}
    groups = [group for group in ("WE", "1", "2", "3", "4", "CL") if group in present]
    if present & {"1", "2", "3", "4"}:
        groups.append("layers")
    return [*groups, "all"]


def in_group(module: ModuleName, group: str) -> bool:
    """Whether the module belongs to a group of :func:`groups_in`."""
    if group == "layers":
        return module.block == "layer"
    return group in ("all", module.group)


def _describe(name: str, size: int, layers: int, embedding: str | None, backbone: str) -> ModuleName:
    layer = _layer(name)
    parent = name.rpartition(".")[0]
    factor = next((f for mark, f in (("lora_A", "A"), ("lora_B", "B")) if mark in name), name.rpartition(".")[2])
    block: Block = "other"
    group: Group = "other"
    if name == embedding:
        block, group = "embedding", "WE"
    elif layer >= 0:
        block = "layer"
        group = ("1", "2", "3", "4")[4 * layer // layers]
    elif not name.startswith(backbone) or _POOLER.search(name):
        block, group = "head", "CL"
    return ModuleName(name, block, layer, projection(parent), factor, group, size)


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found.group(1)) if found else -1
