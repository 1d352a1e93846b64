"""The search for a learning rate: what it costs, that it finds the one that teaches, that a kill changes nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from thresher.config import Recipe
from thresher.errors import ConfigError, DivergedError, ModelError
from thresher.model import rate_search as module
from thresher.model.finetune import Epoch, History, finetune
from thresher.model.rate_search import FINALISTS, RATES, SHARES, USUAL, RateTrainer, find_rate, read_trials
from thresher.progress import Silent
from training import data, subject

UNKNOWN = Recipe(epochs=4, batch_size=8, lora_dropout=0.0)


def trainer(recipe: Recipe = UNKNOWN) -> RateTrainer:
    one = subject()
    start = {name: p.detach().clone() for name, p in one.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def reset() -> None:
        for name, parameter in one.model.named_parameters():
            if name in start:
                parameter.copy_(start[name])

    return RateTrainer(one, data(48, 1), data(12, 2), recipe, reset, 0)


def pretend(monkeypatch: pytest.MonkeyPatch, loss_at: Any) -> list[tuple[float, int]]:
    """Trainings that come to the loss ``loss_at`` their rate; what was trained: rate, and rows passed over."""
    made: list[tuple[float, int]] = []

    def pretended(subject: Any, train: Any, query: Any, recipe: Recipe, **_: Any) -> History:
        made.append((recipe.peak_rate, recipe.epochs * len(train)))
        loss = loss_at(recipe.peak_rate)
        if not math.isfinite(loss):
            raise DivergedError("too high")
        return History((Epoch(1.0, loss),))

    monkeypatch.setattr(module, "finetune", pretended)
    return made


@pytest.mark.parametrize("place", range(len(RATES)))
@pytest.mark.parametrize("epochs", [1, 4, 10])
def test_the_best_rate_is_found_at_no_more_than_the_cost_of_one_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, epochs: int
) -> None:
    one = trainer(UNKNOWN.model_copy(update={"epochs": epochs, "batch_size": 2}))
    best = one.rates[place]
    made = pretend(monkeypatch, lambda rate: abs(math.log(rate / best)))
    assert find_rate(one, tmp_path, Silent()).rate == best
    assert len(made) == len(RATES) + FINALISTS
    assert sum(rows for _, rows in made) <= epochs * len(one.train)
    assert [rate for rate, _ in made[: len(RATES)]] == list(one.rates)


def test_a_rate_at_which_the_loss_diverges_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda rate: math.inf if rate > 2e-4 else 1 / rate)
    found = find_rate(trainer(), tmp_path, Silent())
    assert found.rate == 1.5e-4
    assert [trial.query_loss is None for trial in found.trials[: len(RATES)]] == [False, False, True, True, True]
    pretend(monkeypatch, lambda rate: math.inf)
    with pytest.raises(ModelError, match="lower --learning-rate"):
        find_rate(trainer(), tmp_path / "none", Silent())


CHANCE = 1.0986  # three classes of four queries each


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ((1.1, 1.1, 1.12, 1.13, 1.2), 3),  # none has learned, the lowest least of all: what is usual
        ((1.2, 1.09, 1.1, 1.1, math.inf), 3),
        ((1.1, 1.1, 1.1, 1.1, 1.0), 4),
        ((1.1, 1.1, 1.0, 1.05, 1.2), 2),
        ((0.9, 1.1, 1.1, 1.1, 1.1), 0),
        ((1.1, 1.1, 1.1, math.inf, math.inf), 2),
    ],
)
def test_a_trial_that_knows_no_more_than_how_often_each_class_is_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: tuple[float, ...], found: int
) -> None:
    one = trainer()
    shares = np.bincount(one.query.classes.numpy()) / len(one.query)
    chance = -(shares * np.log(shares)).sum()
    by_rate = dict(zip(one.rates, (loss * chance / CHANCE for loss in losses), strict=True))
    pretend(monkeypatch, by_rate.__getitem__)
    assert find_rate(one, tmp_path, Silent()).rate == one.rates[found]
    assert sorted(USUAL) == sorted(RATES)


def test_trials_are_trainings_from_the_same_start(tmp_path: Path) -> None:
    one = trainer()
    found = find_rate(one, tmp_path, Silent())
    longest = [trial for trial in found.trials if trial.share == SHARES[-1]]
    assert found.rate == one.ordered(longest)[0].rate
    for trial in longest:  # one epoch over all rows
        one.reset()
        recipe = UNKNOWN.model_copy(update={"learning_rate": trial.rate, "epochs": 1})
        alone = finetune(
            one.subject, one.train, one.query, recipe, seed=0, folder=tmp_path / f"{trial.rate}", progress=Silent()
        )
        assert trial.query_loss == alone.epochs[0].query_loss
    assert read_trials(tmp_path) == found.trials
    assert len(np.unique(np.array([trial.loss for trial in found.trials], np.float32))) == len(found.trials)


def test_a_killed_search_goes_on_to_the_same_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = find_rate(trainer(), tmp_path / "whole", Silent())
    made: list[float] = []

    def killed(*given: Any, **options: Any) -> History:
        made.append(given[3].peak_rate)
        if len(made) == 4:
            raise KeyboardInterrupt
        return finetune(*given, **options)

    monkeypatch.setattr(module, "finetune", killed)
    with pytest.raises(KeyboardInterrupt):
        find_rate(trainer(), tmp_path / "killed", Silent())
    assert find_rate(trainer(), tmp_path / "killed", Silent()) == expected
    assert len(made) == len(RATES) + FINALISTS + 1  # the trial that was killed, twice; no other


def test_a_trial_takes_the_steps_of_the_whole_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(Recipe(epochs=600))
    sizes: list[int] = []

    def watched(subject: Any, train: Any, query: Any, recipe: Recipe, **_: Any) -> History:
        sizes.append(recipe.rows_a_step(len(train)))
        return History((Epoch(1.0, 1.0),))

    monkeypatch.setattr(module, "finetune", watched)
    find_rate(one, tmp_path, Silent())
    assert set(sizes) == {one.recipe.rows_a_step(len(one.train))}
    assert one.recipe.model_copy(update={"epochs": 48}).rows_a_step(len(one.train)) != sizes[0]


@pytest.mark.parametrize(("size", "first", "last"), [(32, 1e-4, 1e-2), (8, 5e-5, 5e-3), (16, 7.1e-5, 7.1e-3)])
def test_rates_go_with_the_square_root_of_the_rows_a_step(size: int, first: float, last: float) -> None:
    rates = trainer(UNKNOWN.model_copy(update={"batch_size": size})).rates
    assert (rates[0], rates[-1], len(rates)) == (first, last, len(RATES))


def test_no_rate_is_made_up() -> None:
    with pytest.raises(ConfigError, match="no learning rate"):
        _ = UNKNOWN.peak_rate
    assert Recipe(learning_rate=0.5).peak_rate == 0.5
