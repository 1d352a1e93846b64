"""Fine-tuning, an epoch at a time, so that a killed run goes on with the very next one.

An own loop rather than a trainer's: its whole state is one safetensors file, written after each epoch, and every
epoch's order and dropout follow from (seed, epoch) alone. A run that was killed and went on ends with the same weights
as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from thresher.arrays import Indices
from thresher.config import Recipe
from thresher.data.encode import EncodedRows, within_memory
from thresher.errors import DivergedError
from thresher.files import remove
from thresher.model.checkpoints import write_checkpoint
from thresher.model.load import LoadedModel
from thresher.model.losses import batch_losses
from thresher.model.mixed import mixed_precision
from thresher.model.predict import Predictions, accuracy, predict, read_predictions, write_predictions
from thresher.model.quantise import differentiable
from thresher.progress import Advance, Progress
from thresher.tensors import read_tensors, write_tensors

CHECKPOINTS = "checkpoints"
STATE = "state.safetensors"
SAID = "said"
KEPT = "kept"
BUCKET = 16  # batches that are sorted by length together; the batches themselves stay in random order


@dataclass(frozen=True)
class Epoch:
    """Mean training loss (while training), and after the epoch the mean loss on the queries.

    ``query_right`` is the share of the queries that are then predicted right; None where rows have no class.
    """

    train_loss: float
    query_loss: float
    query_right: float | None = None


@dataclass(frozen=True)
class History:
    """All epochs, how many ``queries`` judged each, and the one whose weights were kept."""

    epochs: tuple[Epoch, ...]
    queries: int = 0

    @property
    def chosen(self) -> int:
        """Number of the kept epoch, from 0: of those that get as many queries right as the best, but for a standard
        error, the one of lowest query loss, the later of two alike.

        The lowest loss alone may be that of an epoch that still answers one class: who has learned more errs with more
        confidence. Most queries right alone is often luck: docs/architecture.md has what was measured.
        """
        most = max(epoch.query_right or 0.0 for epoch in self.epochs)
        enough = most - (math.sqrt(most * (1 - most) / self.queries) if self.queries else 0.0)
        near = [number for number, epoch in enumerate(self.epochs) if (epoch.query_right or 0.0) >= enough]
        return min(near, key=lambda number: (self.epochs[number].query_loss, -number))

    @property
    def in_vain(self) -> int:
        """How many epochs there were since the last with more queries right than all before it, or a lower loss."""
        rights = [epoch.query_right or 0.0 for epoch in self.epochs]
        losses = [epoch.query_loss for epoch in self.epochs]
        last = max(rights.index(max(rights)), losses.index(min(losses))) if self.epochs else 0
        return max(len(self.epochs) - 1 - last, 0)

    @property
    def hopeful(self) -> list[int]:
        """Numbers of the epochs of which one is the kept one, whatever follows: no other is better in both respects."""
        numbers = range(len(self.epochs))
        return [one for one in numbers if not any(self._beats(other, one) for other in numbers)]

    def _beats(self, first: int, second: int) -> bool:
        one, other = self.epochs[first], self.epochs[second]
        better = (one.query_loss, -first) < (other.query_loss, -second)
        return better and (one.query_right or 0.0) >= (other.query_right or 0.0)


EpochCallback = Callable[[int, Epoch], None]
"""What is told of each finished epoch: its number, counted from 1, and its losses."""


def finetune(  # noqa: PLR0913 (each says something else of one training)
    subject: LoadedModel,
    train: EncodedRows,
    query: EncodedRows,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
    name: str = "fine-tuning",
    on_epoch_end: EpochCallback = lambda number, epoch: None,
) -> History:
    """Train the trainable parameters with AdamW; leave the model at its best epoch on the queries, in eval mode.

    Where the recipe has a patience, and so many epochs brought nothing, the training ends before the last epoch. State
    goes to ``folder`` after each epoch, and what is found there is taken up; so does what the model said of each
    row as it trained on it (:func:`read_epoch_predictions`), and if the recipe keeps checkpoints, each epoch's in
    ``checkpoints``. ``on_epoch_end`` hears of every epoch when it ends, and first of those of an earlier call. Raises
    :class:`DivergedError` where the loss is no longer finite.
    """
    weights = {key: p for key, p in subject.model.named_parameters() if p.requires_grad}
    optimizer = _optimizer(weights, recipe)
    done = _resume(folder / STATE, weights, optimizer)
    retell(folder, on_epoch_end)
    with differentiable(subject.model), progress.stage(name, recipe.epochs * len(train)) as advance:
        advance(len(done) * len(train))
        while len(done) < recipe.epochs and not 0 < (recipe.patience or 0) <= History(done).in_vain:
            epoch = len(done)
            said = _train_epoch(subject, train, recipe, optimizer, (seed, epoch), advance)
            loss = said.mean_loss
            with mixed_precision(subject, recipe):
                found = predict(subject, query, recipe.rows_a_pass)
            if not math.isfinite(loss) or not math.isfinite(found.mean_loss):
                raise DivergedError(f"The loss is no longer finite in epoch {epoch + 1}; use a lower --learning-rate.")
            right = accuracy(subject, query, found.outputs) if isinstance(query.labels, Tensor) else None
            done = (*done, Epoch(loss, found.mean_loss, right))
            write_tensors(folder / KEPT / f"{epoch}.safetensors", weights)
            write_predictions(folder / SAID / f"{epoch}.safetensors", {"train": said})
            if recipe.keep_checkpoints:
                steps = math.ceil(len(train) / recipe.rows_a_step(len(train)))
                rate = mean_rate(epoch, steps, recipe)
                write_checkpoint(folder / CHECKPOINTS, (epoch + 1) * steps, rate, weights, optimizer)
            _save(folder / STATE, weights, optimizer, done)
            _keep_hopeful(folder, History(done))
            on_epoch_end(len(done), done[-1])
    _keep_hopeful(folder, History(done))
    history = History(done, len(query))
    best, _ = read_tensors(folder / KEPT / f"{history.chosen}.safetensors")
    _load(weights, best)
    subject.model.eval()
    return history


def retell(folder: Path, on_epoch_end: EpochCallback) -> None:
    """Tell of the epochs of a :func:`finetune` that are in its ``folder``, if any."""
    if (folder / STATE).exists():
        for number, epoch in enumerate(_epochs(read_tensors(folder / STATE, ())[1]), start=1):
            on_epoch_end(number, epoch)


def read_epoch_predictions(folder: Path) -> list[Predictions]:
    """Losses and outputs of every row in the state in which the model trained on it, epoch by epoch.

    They cost nothing, and show how fast a row was learned. ``folder`` is that of a finished :func:`finetune`.
    """
    files = sorted((folder / SAID).glob("*.safetensors"), key=lambda file: int(file.stem))
    return [read_predictions(file, "train") for file in files]


def _train_epoch(
    subject: LoadedModel,
    data: EncodedRows,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    key: tuple[int, int],
    advance: Advance,
) -> Predictions:
    seed, epoch = key
    torch.manual_seed(seed * 1_000_003 + epoch)  # dropout
    batches = shuffled_batches(data.lengths, recipe.rows_a_step(len(data)), np.random.default_rng([seed, epoch]))
    said: list[Predictions] = []
    subject.model.train()
    for number, rows in enumerate(batches):
        rate = learning_rate(epoch * len(batches) + number, recipe.epochs * len(batches), recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        for part in within_memory(rows, data.lengths):
            batch = data.batch(part, subject.pad_id, subject.device)
            with mixed_precision(subject, recipe):
                losses, outputs = batch_losses(subject.model, batch)
            (losses.sum() / len(rows)).backward()
            said.append(Predictions(losses.detach().float().cpu(), outputs.float().cpu()))
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        advance(len(rows))
    place = torch.from_numpy(np.argsort(np.concatenate(batches)))
    losses, outputs = (torch.cat([getattr(part, name) for part in said])[place] for name in ("losses", "outputs"))
    return Predictions(losses, outputs)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear rise over the warm-up share of the steps, then half a cosine down to zero."""
    rise = math.ceil(recipe.warmup * steps)
    if step < rise:
        return recipe.peak_rate * step / rise
    return recipe.peak_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def mean_rate(epoch: int, steps: int, recipe: Recipe) -> float:
    """Mean learning rate over the steps of an epoch: what TracIn weighs the epoch's checkpoint with."""
    here = range(epoch * steps, (epoch + 1) * steps)
    return sum(learning_rate(step, recipe.epochs * steps, recipe) for step in here) / steps


def shuffled_batches(lengths: Indices, batch_size: int, rng: np.random.Generator) -> list[Indices]:
    """All rows once, in random order, batched with rows of like length to save padding."""
    order = rng.permutation(len(lengths))
    batches: list[Indices] = []
    for start in range(0, len(order), BUCKET * batch_size):
        bucket = order[start : start + BUCKET * batch_size]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _optimizer(weights: dict[str, nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in weights.values() if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in weights.values() if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate)


def _keep_hopeful(folder: Path, history: History) -> None:
    """Take the weights of epochs away that will not be chosen."""
    for number in set(range(len(history.epochs))) - set(history.hopeful):
        remove(folder / KEPT / f"{number}.safetensors")


def _save(
    file: Path, weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, done: tuple[Epoch, ...]
) -> None:
    tensors: dict[str, Tensor] = dict(weights)
    for name, parameter in weights.items():
        tensors |= {f"{name}|{key}": value for key, value in optimizer.state[parameter].items()}
    write_tensors(file, tensors, [asdict(epoch) for epoch in done])


def _resume(file: Path, weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> tuple[Epoch, ...]:
    if not file.exists():
        return ()
    tensors, epochs = read_tensors(file)
    _load(weights, tensors)
    for name, parameter in weights.items():
        if f"{name}|step" in tensors:  # absent for a parameter that no row ever used
            moments = {key: tensors[f"{name}|{key}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {
                "step": tensors[f"{name}|step"],
                **moments,
            }  # the count stays on the CPU
    return _epochs(epochs)


def _epochs(notes: Sequence[Mapping[str, float]]) -> tuple[Epoch, ...]:
    return tuple(Epoch(**epoch) for epoch in notes)


@torch.no_grad()
def _load(weights: dict[str, nn.Parameter], tensors: dict[str, Tensor]) -> None:
    for name, parameter in weights.items():
        parameter.copy_(tensors[name])
