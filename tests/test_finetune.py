"""Training: the schedule, the batches, the kept epoch, and going on after a kill as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopping import Stopping
from thresher.config import Recipe
from thresher.errors import ModelError
from thresher.model.finetune import Epoch, History, finetune, learning_rate, read_epoch_predictions, shuffled_batches
from thresher.model.predict import predict
from thresher.progress import Progress, Silent
from thresher.tensors import read_tensors
from training import data, subject

RECIPE = Recipe(epochs=4, batch_size=4, learning_rate=5e-3)


def trained(
    folder: Path, recipe: Recipe = RECIPE, seed: int = 0, progress: Progress | None = None
) -> tuple[dict[str, torch.Tensor], History]:
    one, progress = subject(), progress or Silent()
    history = finetune(one, data(18, 1), data(6, 2), recipe, seed=seed, folder=folder, progress=progress)
    assert not one.model.training
    return {name: p.detach().clone() for name, p in one.model.named_parameters()}, history


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_training_changes_only_what_is_trainable_and_lowers_the_loss(tmp_path: Path) -> None:
    before = subject().model
    weights, history = trained(tmp_path / "a", RECIPE.model_copy(update={"epochs": 8}))
    losses = [epoch.train_loss for epoch in history.epochs]
    assert losses[-1] < losses[0]
    for name, parameter in before.named_parameters():
        assert torch.equal(parameter, weights[name]) != parameter.requires_grad, name


def test_same_seed_same_weights(tmp_path: Path) -> None:
    first, history = trained(tmp_path / "a")
    second, again = trained(tmp_path / "b")
    other, _ = trained(tmp_path / "c", seed=1)
    assert same(first, second)
    assert history == again
    assert not same(first, other)


@pytest.mark.parametrize(("stop_in", "bf16"), [(1, False), (2, False), (3, False), (2, True)])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, stop_in: int, bf16: bool) -> None:
    recipe = RECIPE.model_copy(update={"bf16": bf16})
    expected, history = trained(tmp_path / "whole", recipe)
    with pytest.raises(KeyboardInterrupt):  # after the first batch of an epoch
        trained(tmp_path / "killed", recipe, progress=Stopping("fine-tuning", 18 * stop_in))
    torch.rand(7)  # the state of the generator must not matter
    found, again = trained(tmp_path / "killed", recipe)
    assert same(found, expected)
    assert again == history


def test_epochs_are_told_when_they_end_and_again_after_a_kill(tmp_path: Path) -> None:
    rows, queries = data(18, 1), data(6, 2)
    heard: list[tuple[int, Epoch]] = []

    def told(number: int, epoch: Epoch) -> None:
        heard.append((number, epoch))
        if len(heard) == 2:
            raise KeyboardInterrupt

    given: dict[str, Any] = {"seed": 0, "folder": tmp_path, "progress": Silent(), "on_epoch_end": told}
    with pytest.raises(KeyboardInterrupt):
        finetune(subject(), rows, queries, RECIPE, **given)
    before = heard[:]
    heard += before * 4  # so many that nothing is interrupted
    already = len(heard)
    history = finetune(subject(), rows, queries, RECIPE, **given)
    assert heard[already:] == list(enumerate(history.epochs, start=1))
    assert before == heard[already : already + 2]


def test_the_kept_epoch_has_the_lowest_loss_of_those_that_get_as_many_right_but_for_chance() -> None:
    assert History((Epoch(1, 0.5), Epoch(1, 0.4), Epoch(1, 0.4), Epoch(1, 0.6))).chosen == 2  # of rows without a class
    one_class, knows, surer = Epoch(1, 0.69, 0.5), Epoch(1, 0.75, 0.8), Epoch(1, 0.7, 0.8)
    assert History((one_class, knows, surer, knows)).chosen == 2
    best, luck, behind = (Epoch(1, loss, right) for loss, right in ((0.5, 0.78), (0.9, 0.81), (0.3, 0.76)))
    assert History((best, luck), 100).chosen == 0  # .03 of 100 queries is less than a standard error, .039
    assert History((luck, best, behind), 100).chosen == 1  # .05 is more
    assert History((best, luck, best), 100).chosen == 2  # the later of two alike
    assert History((Epoch(1, 0.1, 0.5), Epoch(1, 3.0, 0.81)), 100).chosen == 1  # one class, and sure of it


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 10)), min_size=1, max_size=8), st.sampled_from([0, 10, 40]))
def test_the_epoch_that_will_be_chosen_is_always_hopeful(seen: list[tuple[int, int]], queries: int) -> None:
    epochs = [Epoch(1.0, loss / 4, right / 10) for loss, right in seen]
    for count in range(1, len(epochs) + 1):
        hopeful = History(tuple(epochs[:count])).hopeful
        assert History(tuple(epochs[:count]), queries).chosen in hopeful
        later = [number for number in History(tuple(epochs)).hopeful if number < count]
        assert set(later) <= set(hopeful)  # what was taken away is never wanted again


def test_in_vain_are_epochs_that_brought_neither_more_right_nor_a_lower_loss() -> None:
    seen = [(0.9, 0.5), (0.8, 0.5), (0.8, 0.5), (0.9, 0.6), (1.0, 0.6), (1.1, 0.4)]
    epochs = [Epoch(1.0, loss, right) for loss, right in seen]
    assert [History(tuple(epochs[:count])).in_vain for count in range(7)] == [0, 0, 0, 1, 0, 1, 2]
    answers = [Epoch(1.0, loss) for loss in (3.0, 2.0, 2.5, 1.9)]
    assert [History(tuple(answers[:count])).in_vain for count in range(5)] == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("rate", [5e-3, 1e-12])  # at which something is learned, and nothing
def test_a_training_ends_when_its_patience_does_and_is_else_the_same(tmp_path: Path, rate: float) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 8, "learning_rate": rate, "lora_dropout": 0.0})
    _, whole = trained(tmp_path / "whole", recipe)
    _, ended = trained(tmp_path / "ended", recipe.model_copy(update={"patience": 2}))
    counts = [History(whole.epochs[:count]).in_vain for count in range(1, 9)]
    expected = next((count for count, vain in enumerate(counts, start=1) if vain >= 2), 8)
    assert ended.epochs == whole.epochs[:expected]
    assert len(read_epoch_predictions(tmp_path / "ended")) == expected
    weights, again = trained(tmp_path / "ended", recipe.model_copy(update={"patience": 2}))  # nothing is added
    assert again == ended and weights


def test_only_weights_that_may_be_chosen_are_kept_and_the_chosen_ones_are_those_of_their_epoch(tmp_path: Path) -> None:
    weights, history = trained(tmp_path / "a", RECIPE.model_copy(update={"epochs": 6}))
    assert sorted(int(file.stem) for file in (tmp_path / "a" / "kept").iterdir()) == history.hopeful
    short = RECIPE.model_copy(update={"epochs": 6})
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", short, progress=Stopping("fine-tuning", 18 * (history.chosen + 1)))
    state, _ = read_tensors(tmp_path / "b" / "state.safetensors")  # as the chosen epoch left them
    assert all(torch.equal(weights[name], state[name]) for name in state if "|" not in name)


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero() -> None:
    recipe = Recipe(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, recipe) for step in range(101)]
    assert rates[0] == 0
    assert rates[10] == max(rates) == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert np.all(np.diff(rates[:11]) > 0) and np.all(np.diff(rates[10:]) < 0)


def test_every_row_is_seen_once_an_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 205)
    batches = shuffled_batches(lengths, 8, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(205))
    assert max(map(len, batches)) == 8
    padding = sum(lengths[b].max() * len(b) for b in batches) / lengths.sum()
    assert padding < 1.3


def test_a_loss_that_is_no_longer_finite_stops_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lower --learning-rate"):
        trained(tmp_path, RECIPE.model_copy(update={"learning_rate": 1e30}))


def test_what_was_said_while_training_is_kept_row_by_row(tmp_path: Path) -> None:
    """With a rate of zero nothing is learned, so that every epoch says what the untrained model says."""
    still = Recipe(epochs=2, batch_size=4, learning_rate=1e-30, lora_dropout=0.0, base_dropout=False)
    one, rows = subject(), data(18, 1)
    model = one.model
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    expected = predict(one, rows, 32)
    history = finetune(one, rows, data(6, 2), still, seed=0, folder=tmp_path, progress=Silent())
    said = read_epoch_predictions(tmp_path)
    assert len(said) == 2
    for epoch, found in zip(history.epochs, said, strict=True):
        torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.outputs, expected.outputs, rtol=1e-4, atol=1e-5)
        assert epoch.train_loss == pytest.approx(found.mean_loss)


def test_mixed_precision_multiplies_in_bfloat16_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()
    recipe = RECIPE.model_copy(update={"bf16": True})
    one = subject()
    named = dict(one.model.named_modules())
    layer = next(module for name, module in named.items() if name.endswith("query.base_layer"))
    layer.register_forward_hook(lambda _layer, _given, out: seen.add(out.dtype))
    history = finetune(one, data(18, 1), data(6, 2), recipe, seed=0, folder=tmp_path / "mixed", progress=Silent())
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in one.model.parameters()} == {torch.float32}
    exact, plain = trained(tmp_path / "plain")
    weights = {name: p.detach() for name, p in one.model.named_parameters()}
    assert not same(weights, exact)
    for mixed, full in zip(history.epochs, plain.epochs, strict=True):  # as far as eight bits of a product reach
        assert mixed.train_loss == pytest.approx(full.train_loss, abs=0.05)
        assert mixed.query_loss == pytest.approx(full.query_loss, abs=0.05)


@pytest.mark.parametrize(("rows", "epochs", "size"), [(400, 10, 8), (700, 10, 8), (800, 10, 16), (1_600, 10, 32)])
def test_few_rows_take_small_steps_for_there_to_be_some_hundred(rows: int, epochs: int, size: int) -> None:
    recipe = Recipe(epochs=epochs)
    assert recipe.rows_a_step(rows) == size
    assert size == 8 or rows * epochs / size >= 500
    assert Recipe(epochs=epochs, batch_size=4).rows_a_step(rows) == 4
    assert (recipe.rows_a_pass, Recipe(batch_size=4).rows_a_pass) == (32, 4)
