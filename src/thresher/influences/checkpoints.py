"""Influence from several points of a training: TracIn summed over checkpoints (Pruthi et al. 2020, method.md 3),

    I[j, i] = sum over checkpoints c of eta_c (v_j^c . g_i^c),

one gradient pass a checkpoint. With optimizer-aware checkpoints, a_i of :mod:`thresher.model.adamw` stands for g_i.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from thresher.arrays import Indices
from thresher.errors import ConfigError, GradientError
from thresher.gradients.collect import Rows, collect, pass_block
from thresher.gradients.hooks import BatchGradients, GradientPass
from thresher.gradients.store import GradientStore
from thresher.influences.pairings import pairing
from thresher.influences.registry import INFLUENCE, Method, check_methods
from thresher.model.checkpoints import Checkpoint, checkpoint_of, load_checkpoint, read_checkpoints, restore_weights
from thresher.model.names import ModuleName
from thresher.progress import Progress, Within

SUMMED = "tracin_checkpoints"


class Shelve(Protocol):
    """Makes an empty store for rows, or finds what an earlier call put into it."""

    def __call__(self, rows: Rows, name: str, memory: int) -> GradientStore:
        """A store of this name that keeps so many bytes at hand."""
        ...


class CheckpointSums:
    """The sums over checkpoints: of the reference rows, and of a block of others. ``modules`` are weights.

    A row's sums take the place of its gradients in stores and blocks: [Q] a module.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Sequence[ModuleName],
        checkpoints: Sequence[Checkpoint],
        one_pass: GradientPass,
        batch_size: int,
    ) -> None:
        self._model, self._modules, self._checkpoints = model, modules, checkpoints
        self._pass, self._batch_size = one_pass, batch_size
        self._queries: list[GradientStore] = []
        self._reference: GradientStore | None = None

    def gather(self, query: Rows, reference: Rows, store: Shelve, progress: Progress) -> None:
        """The queries' gradients at each checkpoint, and the sums of the reference rows."""
        with restore_weights(self._model, self._checkpoints):
            for number, checkpoint in enumerate(self._checkpoints):
                found = store(query, f"query-{number:03d}", 0)
                with self._at(checkpoint):
                    collect(self._pass, found, query, self._batch_size, Within(progress, f"step {checkpoint.step}"))
                self._queries.append(found)
        self._reference = store(reference, "sums", 0)
        with progress.stage("sums over checkpoints", len(self._reference)) as advance:
            for number, block in enumerate(self._reference.rows):
                if not self._reference.has(number):
                    sums = {name: matrix.T.contiguous() for name, matrix in self.of_block(reference, block).items()}
                    self._reference.put(number, BatchGradients(dict(sums), torch.zeros(0), torch.zeros(0)))
                advance(len(block))

    def of_block(self, rows: Rows, block: Indices) -> dict[str, Tensor]:
        """The sums of some of the rows, [Q, rows] by module."""
        total: dict[str, Tensor] = {}
        with restore_weights(self._model, self._checkpoints):
            for checkpoint, query in zip(self._checkpoints, self._queries, strict=True):
                names = [module.name for module in self._modules]
                with self._at(checkpoint):
                    scaled = replace(rows, scales=checkpoint.multipliers(names))
                    found = pass_block(self._pass, scaled, block, self._batch_size)
                here = GradientStore([np.arange(len(block))], found.nbytes)
                here.device = query.device
                here.put(0, found)
                for module in self._modules:
                    term = (
                        np.float32(checkpoint.learning_rate).item()
                        * pairing(query, here, module.name, module.size).dots
                    )
                    total[module.name] = total[module.name] + term if module.name in total else term
        return total

    def of_reference(self, module: ModuleName) -> Tensor | None:
        """The sums of the reference rows, [Q, rows]; None of what is no weight."""
        if self._reference is None or module not in self._modules:
            return None
        parts = [(torch.from_numpy(rows), part) for rows, part in self._reference.blocks(module.name)]
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return torch.cat([part for _, part in parts if isinstance(part, Tensor)])[order].T

    def close(self) -> None:
        """Forget everything, on disk too."""
        for store in (*self._queries, *filter(None, [self._reference])):
            store.close()

    @contextmanager
    def _at(self, checkpoint: Checkpoint) -> Generator[None]:
        load_checkpoint(self._model, checkpoint)
        try:
            yield
        except GradientError as error:
            raise GradientError(f"{checkpoint.folder.name}: {error}") from None


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
