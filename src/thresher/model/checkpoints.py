"""The points of a training that were saved: found, read into the model, and left again.

Two kinds of folder are understood, both of ``checkpoint-STEP`` folders with safetensors inside: what a transformers (or
TRL) Trainer saves, and what :class:`thresher.CheckpointKeeper` and Thresher's own fine-tuning keep. Only the second
holds AdamW's second moments: a Trainer's optimizer state is a pickle, and is never opened.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from typing_extensions import TypedDict

from thresher.errors import ModelError
from thresher.files import read_given, write_json
from thresher.model.adamw import is_adamw, read_multipliers, write_second_moments
from thresher.tensors import shapes_in, write_tensors

ABOUT, WEIGHTS, MOMENTS = "checkpoint.json", "weights.safetensors", "second_moments.safetensors"
_NUMBERED = re.compile(r"checkpoint-(\d+)")
_ADAPTER, _WHOLE, _INDEX = "adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json"


class _About(TypedDict):
    """What a keeper writes of a checkpoint."""

    second_moments: bool
    learning_rate: float


class _Entry(TypedDict, total=False):
    """What a Trainer logs now and then."""

    step: int
    learning_rate: float


class _State(TypedDict, total=False):
    """What a Trainer says of a checkpoint."""

    log_history: list[_Entry]


class _Index(TypedDict):
    """Which of several files has a tensor."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """One saved point of a training: after ``step`` updates, at ``learning_rate``.

    ``second_moments`` says whether AdamW's are there; ``optimizer_aware``, whether train gradients taken here are to be
    scaled by them (:mod:`thresher.model.adamw`).
    """

    folder: Path
    step: int
    learning_rate: float
    second_moments: bool
    optimizer_aware: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of its weights."""
        for name in (WEIGHTS, _ADAPTER, _WHOLE):
            if (self.folder / name).is_file():
                return (self.folder / name,)
        return tuple(
            self.folder / name for name in sorted(set(read_given(self.folder / _INDEX, _Index)["weight_map"].values()))
        )

    def multipliers(self, names: Sequence[str]) -> dict[str, Tensor]:
        """What the named parameters' train gradients are multiplied with, by name; {} unless ``optimizer_aware``."""
        return read_multipliers(self.folder / MOMENTS, names) if self.optimizer_aware else {}


def read_checkpoints(folder: str | Path, *, optimizer_aware: bool = False) -> list[Checkpoint]:
    """The checkpoints in a Trainer's output folder, or of a :class:`thresher.CheckpointKeeper`, by step.

    A Trainer's learning rate is the latest that it logged at or before the checkpoint's step; a keeper's is that of the
    last update; Thresher's own fine-tuning keeps the mean over the epoch. With ``optimizer_aware``, train gradients
    will be scaled as AdamW would. Raises :class:`ModelError` where there is no checkpoint, or one without weights,
    learning rate or (if they are needed) second moments.
    """
    numbered = {int(found[1]): path for path in Path(folder).glob("*") if (found := _NUMBERED.fullmatch(path.name))}
    checkpoints = [
        _read_kept(path, step, optimizer_aware)
        if (path / ABOUT).is_file()
        else _read_saved(path, step, optimizer_aware)
        for step, path in sorted(numbered.items())
        if path.is_dir() and not _unfinished(path)
    ]
    if not checkpoints:
        raise ModelError(
            f"{folder}: there is no checkpoint-* folder in it; name the output folder of a Trainer that saved "
            "checkpoints, or that of a thresher.CheckpointKeeper."
        )
    return checkpoints


def write_checkpoint(
    folder: Path, step: int, learning_rate: float, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> Checkpoint:
    """Keep a training's point: the named (trained) weights, and AdamW's second moments where the optimizer is AdamW."""
    target = folder / f"checkpoint-{step}"
    write_tensors(target / WEIGHTS, weights)
    moments = is_adamw(optimizer)
    if moments:
        write_second_moments(target / MOMENTS, weights, optimizer)
    write_json(target / ABOUT, {"step": step, "learning_rate": learning_rate, "second_moments": moments})
    return Checkpoint(target, step, learning_rate, moments)


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into the model, PEFT or whole.

    Raises :class:`ModelError`, with the model untouched, where names or shapes do not fit or a trained parameter is
    missing.
    """
    places = _places(model, checkpoint)
    for key, saved in _tensors(checkpoint):
        places[key].copy_(saved)


def refuse_unfit(model: nn.Module, checkpoints: Sequence[Checkpoint]) -> None:
    """Raise what :func:`load_checkpoint` would, from the files' headers alone."""
    for checkpoint in checkpoints:
        _places(model, checkpoint)


@contextmanager
def restore_weights(model: nn.Module, checkpoints: Sequence[Checkpoint]) -> Generator[None]:
    """Put back, on leaving, every weight that loading one of the checkpoints may change. Takes a copy of them."""
    places = {place.data_ptr(): place for point in checkpoints for place in _places(model, point).values()}
    before = {pointer: place.to("cpu", copy=True) for pointer, place in places.items()}
    try:
        yield
    finally:
        for pointer, place in places.items():
            place.copy_(before[pointer])


def checkpoint_of(model: nn.Module, checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The (last) checkpoint whose weights the model has now. Raises :class:`ModelError` where it is none of them."""
    for checkpoint in reversed(checkpoints):
        places = _places(model, checkpoint)
        if all(torch.equal(places[key], saved.to(places[key])) for key, saved in _tensors(checkpoint)):
            return checkpoint
    raise ModelError(
        f"{checkpoints[0].folder.parent}: none of the {len(checkpoints)} checkpoints has the weights of the model, so "
        "its optimizer state is not known; load the model from one of them."
    )


def _read_kept(folder: Path, step: int, optimizer_aware: bool) -> Checkpoint:
    about = read_given(folder / ABOUT, _About)
    if optimizer_aware and not about["second_moments"]:
        raise ModelError(f"{folder}: the training's optimizer was not AdamW, so it has no second moments to scale by.")
    return Checkpoint(folder, step, float(about["learning_rate"]), bool(about["second_moments"]), optimizer_aware)


def _read_saved(folder: Path, step: int, optimizer_aware: bool) -> Checkpoint:
    if not any((folder / name).is_file() for name in (_ADAPTER, _WHOLE, _INDEX)):
        raise ModelError(
            f"{folder}: holds neither {_ADAPTER} nor {_WHOLE}; save checkpoints as safetensors (no pickle is opened)."
        )
    if optimizer_aware:
        raise ModelError(
            f"{folder}: a Trainer saves AdamW's state as a pickle, which is not opened; keep its second moments with "
            "the callback thresher.CheckpointKeeper."
        )
    history = read_given(folder / "trainer_state.json", _State).get("log_history", [])
    rates = {entry["step"]: entry["learning_rate"] for entry in history if "learning_rate" in entry and "step" in entry}
    logged = max((at for at in rates if at <= step), default=None)
    if logged is None:
        raise ModelError(
            f"{folder}: its trainer_state.json has no learning rate at or before step {step}; train with smaller "
            "logging_steps, or with the callback thresher.CheckpointKeeper."
        )
    return Checkpoint(folder, step, float(rates[logged]), second_moments=False)


def _unfinished(folder: Path) -> bool:
    """Whether a kill left weights here without the file that is written last."""
    return (folder / WEIGHTS).is_file() and not (folder / ABOUT).is_file()


@torch.no_grad()
def _places(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The model's tensor for every key of the checkpoint's files; copying into one changes the model."""
    known: dict[str, Tensor] = model.state_dict()
    if hasattr(model, "get_base_model"):
        known |= _adapter_tensors(model)
    places: dict[str, Tensor] = {}
    for key, shape in _shapes(checkpoint).items():
        place = known.get(key, known.get(key.replace(".modules_to_save.", ".")))
        if place is None:
            raise ModelError(f"{checkpoint.folder}: holds '{key}', which the model has not; {_SAME}")
        if tuple(place.shape) != shape:
            raise ModelError(
                f"{checkpoint.folder}: '{key}' has shape {shape}, in the model it has {tuple(place.shape)}; {_SAME}"
            )
        places[key] = place
    # A model trained whole and kept by us may have had frozen parts, which are then not in the file.
    if hasattr(model, "get_base_model") or not (checkpoint.folder / ABOUT).is_file():
        there = {place.data_ptr() for place in places.values()}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.data_ptr() not in there:
                raise ModelError(f"{checkpoint.folder}: holds no weights for the trained '{name}'; {_SAME}")
    return places


_SAME = "the checkpoints must be of this model's own training."


def _adapter_tensors(model: Any) -> dict[str, Tensor]:
    """The adapter's tensors, the model's own, under the names that PEFT saves them by."""
    from peft import get_peft_model_state_dict

    # Whether the embedding changed would be asked of the hub; where it did, it has its plain name.
    return get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {key: shape for path in checkpoint.files for key, shape in shapes_in(path).items()}


def _tensors(checkpoint: Checkpoint) -> Generator[tuple[str, Tensor]]:
    for path in checkpoint.files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                yield key, file.get_tensor(key)
