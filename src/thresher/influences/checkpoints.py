"""Influence from several points of a training: TracIn summed over checkpoints (Pruthi et al. 2020, method.md 3),

    I[j, i] = sum over checkpoints c of eta_c (v_j^c . g_i^c),

one gradient pass a checkpoint. With optimizer-aware checkpoints, a_i of :mod:`thresher.model.adamw` stands for g_i.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr
from torch import Tensor, nn

from thresher.errors import ConfigError, GradientError
from thresher.files import remove
from thresher.gradients.store import GradientStore
from thresher.influences.pairings import pairing
from thresher.influences.registry import INFLUENCE, Method, check_methods
from thresher.influences.tensor import TensorFile
from thresher.model.checkpoints import Checkpoint, checkpoint_of, load_checkpoint, read_checkpoints, restore_weights
from thresher.model.names import ModuleName
from thresher.progress import Progress, Within

SUMMED = "tracin_checkpoints"


@dataclass(frozen=True)
class CheckpointSum:
    """What the sum is made of. ``modules`` are weights; ``gather`` is ``gather.gather``, all else but these given."""

    model: nn.Module
    modules: Sequence[ModuleName]
    checkpoints: Sequence[Checkpoint]
    gather: Callable[..., GradientStore]

    def into(self, total: npt.NDArray[np.float32], progress: Progress) -> None:
        """Add the sum to ``total`` [module, Q, N]."""
        with restore_weights(self.model, self.checkpoints):
            for checkpoint in self.checkpoints:
                store = self._gather(checkpoint, None, progress)
                try:
                    for number, module in enumerate(self.modules):
                        total[number] += _term(store, module, checkpoint)
                finally:
                    store.close()

    def on_disk(self, folder: Path, frame: xr.Dataset, progress: Progress) -> TensorFile:
        """The sum as a tensor file in ``folder``; what a killed run finished there is not computed again.

        The sum up to each checkpoint is a file of its own, made from the one before: nothing can be added twice.
        """
        files = [TensorFile(folder / f"sum-{number:03d}.zarr") for number in range(len(self.checkpoints))]
        done = max((number for number, file in enumerate(files) if file.complete), default=-1)
        with restore_weights(self.model, self.checkpoints[done + 1 :]):
            for number in range(done + 1, len(files)):
                gradients = folder / f"gradients-{number:03d}"
                store = self._gather(self.checkpoints[number], gradients, progress)
                files[number].create(frame, (SUMMED,))
                before = files[number - 1].open()[SUMMED] if number else None
                for place in range(files[number].finished_modules, len(self.modules)):
                    matrix = _term(store, self.modules[place], self.checkpoints[number])
                    if before is not None:
                        matrix += np.asarray(before[place].values)
                    files[number].write(place, {SUMMED: matrix}, len(self.modules))
                remove(gradients)
                if number:
                    files[number - 1].remove()
        return files[-1]

    def _gather(self, checkpoint: Checkpoint, folder: Path | None, progress: Progress) -> GradientStore:
        load_checkpoint(self.model, checkpoint)
        with _naming(checkpoint):
            return self.gather(
                folder=folder,
                progress=Within(progress, f"step {checkpoint.step}"),
                multipliers=checkpoint.multipliers([module.name for module in self.modules]),
            )


def given_checkpoints(
    checkpoints: str | Path | Sequence[Checkpoint] | None, methods: Sequence[Method], *, optimizer_aware: bool = False
) -> tuple[Checkpoint, ...]:
    """The checkpoints of a folder, or those given, if what is asked for and what is given go together.

    Raises :class:`ConfigError` where ``methods`` need checkpoints that are not there, where no method needs those that
    are, and where a method cannot take gradients that the optimizer scaled.
    """
    if isinstance(checkpoints, (str, Path)):
        checkpoints = read_checkpoints(checkpoints, optimizer_aware=optimizer_aware)
    found = tuple(checkpoints or ())
    aware = optimizer_aware or any(checkpoint.optimizer_aware for checkpoint in found)
    if not found and (aware or SUMMED in methods):
        what = f"The influence function '{SUMMED}'" if SUMMED in methods else "--optimizer-aware"
        raise ConfigError(f"{what} needs checkpoints of the training; name their folder with --checkpoints.")
    if found and not aware and SUMMED not in methods:
        raise ConfigError(
            f"--checkpoints is read for the influence function '{SUMMED}' or for --optimizer-aware; ask for one of "
            "them, or leave it out."
        )
    refuse_curved(methods, optimizer_aware=aware)
    return found


def refuse_curved(methods: Sequence[Method], *, optimizer_aware: bool) -> None:
    """Raise :class:`ConfigError` for methods that cannot take gradients that the optimizer scaled."""
    functions = check_methods(methods)
    curved = [name for name, function in functions.items() if not function.optimizer_aware]
    if optimizer_aware and curved:
        able = [name for name, function in INFLUENCE.items() if function.optimizer_aware]
        raise ConfigError(
            f"--optimizer-aware: {', '.join(curved)} cannot take gradients that the optimizer scaled; choose --methods "
            f"from {', '.join(able)}, and --influence among them."
        )


def multipliers_now(
    model: nn.Module, checkpoints: Sequence[Checkpoint], modules: Sequence[ModuleName], methods: Sequence[str]
) -> dict[str, Tensor]:
    """What scales train gradients at the model as it is: {} unless the checkpoints are optimizer-aware."""
    if not any(checkpoint.optimizer_aware for checkpoint in checkpoints) or set(methods) == {SUMMED}:
        return {}
    return checkpoint_of(model, checkpoints).multipliers([module.name for module in modules])


def _term(store: GradientStore, module: ModuleName, checkpoint: Checkpoint) -> npt.NDArray[np.float32]:
    pair = pairing(store, module.name, module.size)
    return np.float32(checkpoint.learning_rate) * pair.dots.numpy()


@contextmanager
def _naming(checkpoint: Checkpoint) -> Generator[None]:
    try:
        yield
    except GradientError as error:
        raise GradientError(f"{checkpoint.folder.name}: {error}") from None
