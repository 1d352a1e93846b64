"""The learning rate, where the user gives none: successive halving (Jamieson & Talwalkar 2016) on short trainings.

Every rate is tried for a small part of a training, the two that teach the queries most for a larger one. A trial has
the schedule of a whole training, warm-up and decline, over fewer steps: a training cut off while its rate still rises
says little of the rate. Trials are compared by the queries' loss, which falls before the first answer changes. Where
that is no lower than what knowing how often each class is would give, the order of the rates is noise, and what is
mostly best elsewhere comes first. All of them together take the steps of one training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from thresher.config import STEP_ROWS, Recipe
from thresher.data.encode import EncodedRows
from thresher.errors import DivergedError, ModelError
from thresher.files import read_json, remove, write_json
from thresher.model.finetune import finetune
from thresher.model.load import LoadedModel
from thresher.progress import Progress

USUAL = (3e-3, 1e-2, 1e-3, 3e-4, 1e-4)
"""What is tried of steps of 32 rows, in the order in which it is mostly best where a trial does not tell; of others it
goes with the square root of their rows (Malladi et al. 2022, for Adam)."""

RATES = tuple(sorted(USUAL))
"""The same, in the order in which it is tried."""

LEARNED = 0.98
"""Of the loss that knowing how often each class is would give: a trial that comes to less has learned something."""

SHARES = (0.08, 0.3)
"""Which part of a whole training each trial of the first round and of the last takes."""

FINALISTS = 2
TRIALS = "trials.json"


@dataclass(frozen=True)
class Trial:
    """A short training: ``share`` of a whole one, and the lowest mean loss that it came to on the queries.

    ``query_loss`` is None where the training diverged.
    """

    rate: float
    share: float
    query_loss: float | None

    @property
    def loss(self) -> float:
        """What trials are compared by."""
        return np.inf if self.query_loss is None else self.query_loss


@dataclass(frozen=True)
class RateSearch:
    """All trials in the order in which they were made, and the ``rate`` that is best by them."""

    trials: tuple[Trial, ...]
    rate: float


@dataclass(frozen=True)
class RateTrainer:
    """What every trial trains: the subject on rows [n], judged on clean queries [Q], from weights that ``reset`` puts
    back, by ``recipe`` but for its rate."""

    subject: LoadedModel
    train: EncodedRows
    query: EncodedRows
    recipe: Recipe
    reset: Callable[[], None]
    seed: int

    @property
    def rates(self) -> tuple[float, ...]:
        """What is tried, to two digits."""
        return self._scaled(RATES)

    def ordered(self, trials: Iterable[Trial]) -> list[Trial]:
        """The best first: those that learned something by their loss, the others by what is mostly best; without those
        that diverged."""
        usual, telling = self._scaled(USUAL), LEARNED * self._chance

        def place(trial: Trial) -> tuple[bool, float]:
            learned = trial.loss < telling
            return not learned, trial.loss if learned else usual.index(trial.rate)

        return sorted((trial for trial in trials if trial.query_loss is not None), key=place)

    def _scaled(self, rates: Iterable[float]) -> tuple[float, ...]:
        scale = (self.recipe.rows_a_step(len(self.train)) / STEP_ROWS[0]) ** 0.5
        return tuple(float(f"{rate * scale:.1e}") for rate in rates)

    @property
    def _chance(self) -> float:
        """The queries' loss of somebody who knows how often each class is among them; infinite where rows have none."""
        if not isinstance(self.query.labels, Tensor):
            return np.inf
        shares = np.unique(self.query.classes, return_counts=True)[1] / len(self.query)
        return float(-(shares * np.log(shares)).sum())

    def steps(self, share: float) -> int:
        """Rows that a trial passes over."""
        return round(share * self.recipe.epochs * len(self.train))

    def run(self, rate: float, share: float, folder: Path, progress: Progress) -> Trial:
        """One trial; what a killed one left in ``folder`` is taken up."""
        epochs, rows = self._extent(share)
        step = self.recipe.rows_a_step(len(self.train))  # of the whole training
        given = {"learning_rate": rate, "epochs": epochs, "batch_size": step, "keep_checkpoints": False, "patience": 0}
        recipe = self.recipe.model_copy(update=given)
        self.reset()
        name = f"looking for a learning rate: {rate:g}"
        try:
            history = finetune(
                self.subject, rows, self.query, recipe, seed=self.seed, folder=folder, progress=progress, name=name
            )
        except DivergedError:
            return Trial(rate, share, None)
        return Trial(rate, share, min(epoch.query_loss for epoch in history.epochs))

    def _extent(self, share: float) -> tuple[int, EncodedRows]:
        """Epochs, and the rows of each: all of them, or for less than an epoch some drawn at random."""
        whole = int(share * self.recipe.epochs)
        if whole:
            return whole, self.train
        count = min(len(self.train), max(self.recipe.rows_a_step(len(self.train)), self.steps(share)))
        drawn = np.random.default_rng([self.seed, 5]).choice(len(self.train), count, replace=False)
        return 1, self.train.take(np.sort(drawn))


def find_rate(trainer: RateTrainer, folder: Path, progress: Progress) -> RateSearch:
    """The best of the trainer's rates. Trials go to ``folder``, and those that are finished there are not made again.

    Raises :class:`ModelError` where the loss of every trial diverges.
    """
    file = folder / TRIALS
    done = [Trial(**known) for known in read_json(file, [])]
    rates = trainer.rates
    for share in SHARES:
        for rate in rates:
            if not any((trial.rate, trial.share) == (rate, share) for trial in done):
                scratch = folder / f"{share:g}-{rate:g}"
                done.append(trainer.run(rate, share, scratch, progress))
                write_json(file, [asdict(trial) for trial in done])
                remove(scratch)
        best = trainer.ordered(trial for trial in done if trial.share == share)
        rates = tuple(trial.rate for trial in best[:FINALISTS])
        if not rates:
            lowest, highest = trainer.rates[0], trainer.rates[-1]
            raise ModelError(
                f"No learning rate from {lowest:g} to {highest:g} keeps the loss finite; give a lower --learning-rate."
            )
    return RateSearch(tuple(done), rates[0])


def read_trials(folder: Path) -> tuple[Trial, ...]:
    """What was tried in a ``folder``, in order."""
    known: list[Mapping[str, Any]] = read_json(folder / TRIALS, [])
    return tuple(Trial(**trial) for trial in known)
