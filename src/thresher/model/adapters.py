"""An adapter that was trained elsewhere: all of it lands in the model, or it is refused.

PEFT passes over tensors that belong nowhere, and leaves at random what the file lacks: the base would be audited as if
it were the fine-tuned model.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.utils.save_and_load import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from thresher.errors import ModelError, first_line
from thresher.files import read_given
from thresher.locks import Scratch
from thresher.model.quiet import quiet
from thresher.model.source import same_weights
from thresher.tensors import shapes_in

WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"
OF_OTHERS = frozenset({"SHADOW", "XLORA"})
"""Kinds of adapters that load further weights, wherever their settings say and in whatever format."""

WRAPPERS = frozenset({"_orig_mod", "module"})
"""Parts that ``torch.compile`` and data parallelism put into a name."""

log = logging.getLogger(__name__)


def load_adapter(model: Any, adapter: str, untrained: tuple[str, ...], base: str) -> nn.Module:
    """The model with the adapter of a folder or hub id; ``untrained`` are the model's parts that no checkpoint filled,
    and ``base`` is where the model came from.

    Names that a compiled or wrapped model gave are mended. Raises :class:`ModelError` where a tensor of the file has no
    place in the model, or one that was trained is not in the file; and where its weights are no safetensors, or it
    wants weights of others.
    """
    here = Path(adapter) if Path(adapter).is_dir() else _fetched(adapter)
    _refuse_incomplete(here, adapter, untrained)
    _refuse_others(here, adapter)
    _warn_of_other_base(here, adapter, base)
    _resize(model, here)
    try:
        with quiet(), _unwrap(here, adapter) as folder:
            found: Any = PeftModel.from_pretrained(model, folder, is_trainable=True)
            given: dict[str, Tensor] = load_peft_weights(folder, device="cpu")
    except KeyError as error:  # of a layer that was trained whole
        raise ModelError(
            f"{adapter}: the trained {error} is not in the adapter's file; save the whole adapter."
        ) from None
    except Exception as error:  # shapes, keys, files: the library raises many kinds
        raise ModelError(f"{adapter}: the adapter does not fit the model ({first_line(error)})") from None
    _place(found, given, adapter)
    return found


def _fetched(adapter: str) -> Path:
    """The folder that holds a hub's adapter. PEFT itself would take a pickle where there is no safetensors file."""
    try:
        found = [
            cached_file(adapter, name, _raise_exceptions_for_missing_entries=False) for name in (SETTINGS, WEIGHTS)
        ]
    except Exception as error:  # no such repository, no network: the library raises many kinds
        raise ModelError(f"{adapter}: cannot be loaded as an adapter ({first_line(error)})") from None
    if not all(found):
        raise ModelError(
            f"{adapter}: needs {SETTINGS} and {WEIGHTS}; save the adapter with PEFT (no pickle is opened)."
        )
    return Path(str(found[-1])).parent


def _refuse_others(folder: Path, adapter: str) -> None:
    kind = _settings(folder).get("peft_type")
    if isinstance(kind, str) and kind in OF_OTHERS:
        raise ModelError(f"{adapter}: an adapter of kind {kind} loads weights from elsewhere; merge it into its model.")


def _settings(folder: Path) -> dict[str, Any]:
    return read_given(folder / SETTINGS, dict[str, Any])


def _warn_of_other_base(folder: Path, adapter: str, base: str) -> None:
    told = _settings(folder).get("base_model_name_or_path")
    if not isinstance(told, str) or not told or same_weights(told, base):
        return
    log.warning(
        "%s: was trained on '%s', says its adapter_config.json, and the model here is '%s'; if these are not the same "
        "weights, what is audited is not what was trained.",
        adapter,
        told,
        base,
    )


def _resize(model: Any, adapter: Path) -> None:
    """Give the word embedding the rows that it had in the training, where tokens were added before it."""
    embedding = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embedding)
    for key, shape in saved_shapes(adapter).items():
        parts = key.split(".")
        whole = key.endswith(f"{name}.weight") and len(shape) == 2
        rows = shape[0] if whole else shape[1] if "lora_embedding_A" in parts and f".{name}." in key else None
        if rows is not None and rows != len(embedding.weight):
            model.resize_token_embeddings(rows, mean_resizing=False)
            return


@contextmanager
def _unwrap(here: Path, adapter: str) -> Generator[str]:
    """The adapter's folder, or a copy whose tensors are named without wrappers, where that leaves them distinct."""
    names = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in saved_shapes(here)}
    if all(name == plain for name, plain in names.items()) or len(set(names.values())) < len(names):
        yield str(here)
        return
    log.warning("%s: the tensors have names of a compiled or wrapped model, which are mended.", adapter)
    with Scratch() as scratch:
        folder = scratch.path
        shutil.copy(here / SETTINGS, folder)
        tensors = load_file(here / WEIGHTS)
        save_file({names[name]: tensor for name, tensor in tensors.items()}, folder / WEIGHTS)
        yield str(folder)


def _place(model: Any, given: Mapping[str, Tensor], adapter: str) -> None:
    """See that every tensor is where it belongs, under another name if need be."""
    with quiet():
        wanted: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    also = model.state_dict()  # whole layers that were saved beside the adapter
    mended = _mend(given, wanted)
    foreign = sorted(name for name in given if mended.get(name, name) not in wanted and name not in also)
    lacking = sorted(set(wanted) - {mended.get(name, name) for name in given})
    if foreign:
        raise ModelError(
            f"{adapter}: {len(foreign)} of {len(given)} tensors of the adapter have no place in the model, the first "
            f"is '{foreign[0]}'; name the --model that the adapter was trained on, in the class it was trained in."
        )
    if lacking:
        raise ModelError(
            f"{adapter}: {len(lacking)} of {len(wanted)} trained tensors are not in the adapter's file, the first is "
            f"'{lacking[0]}'; save the whole adapter with save_pretrained."
        )
    if mended:
        log.warning("%s: %d tensors have names of a text model inside another, which are mended.", adapter, len(mended))
        set_peft_model_state_dict(model, {mended.get(name, name): tensor for name, tensor in given.items()})


def _mend(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, str]:
    """The model's name of each tensor that is called otherwise, where exactly one of the same shape is meant."""
    places: dict[tuple[str, ...], list[str]] = {}
    for name in wanted:
        places.setdefault(_plain(name), []).append(name)
    mended: dict[str, str] = {}
    for name, tensor in given.items():
        meant = places.get(_plain(name), [])
        if name not in wanted and len(meant) == 1 and wanted[meant[0]].shape == tensor.shape:
            mended[name] = meant[0]
    return mended if len(set(mended.values()) - set(given)) == len(mended) else {}


def _plain(name: str) -> tuple[str, ...]:
    """Parts of a name; a text model inside another is called as if it stood alone."""
    return tuple("model" if part == "language_model" else part for part in name.split("."))


def adapter_parameters(model: nn.Module) -> set[str]:
    """Names of the active adapter's parameters, trainable or not: layers of its own and those it replaced whole.

    ``PeftModel.from_pretrained`` freezes all of them unless told otherwise. Empty for a model without an adapter.
    """
    if not isinstance(model, PeftModel):
        return set()
    inner: Any = model.base_model
    own: str = getattr(inner, "prefix", "prompt_encoder")
    active = set(model.active_adapters)
    return {
        name
        for name, _ in model.named_parameters()
        if active & set(name.split(".")) and (own in name or ".modules_to_save." in name)
    }


@contextmanager
def without_adapter(model: nn.Module) -> Generator[None]:
    """For the duration the base answers alone, as it came; afterwards the same parameters are trainable as before."""
    assert isinstance(model, PeftModel)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        with model.disable_adapter():
            yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trainable[name])


def saved_shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in an adapter's file by name; none where there is no such file."""
    weights = adapter / WEIGHTS
    return shapes_in(weights) if weights.is_file() else {}


def of_whole_layer(name: str) -> bool:
    """Whether a saved tensor is a layer's own, and none that an adapter put on it."""
    return not any(part.startswith("lora_") for part in name.split("."))


def _refuse_incomplete(folder: Path, adapter: str, untrained: tuple[str, ...]) -> None:
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{adapter}: no {WEIGHTS} in this folder; save the adapter with PEFT.")
    saved = [key.split(".") for key in saved_shapes(folder) if of_whole_layer(key)]
    lost = [part for part in untrained if not any(part.rpartition(".")[2] in key for key in saved)]
    if lost:
        raise ModelError(f"{adapter}: holds no weights for {', '.join(lost)}, and neither does the base model.")
